"""What may import what: checked over the sources, and in fresh processes over what is really loaded."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "core.training.pipeline",
    "core.training.sft",
    "core.training.callbacks",
    "core.training.randomness",
    "core.models.loading",
    "core.models.quantized_layers",
    "core.models.token_rows",
    "core.models.tokenizer",
    "core.models.adapters",
    "core.models.first_weights",
    "core.models.start_adapter",
    "core.models.targets",
    "core.models.inventory",
    "core.memory.probe",
    "core.memory.simulate",
    "core.memory.layer_pass",
    "core.memory.layer_tracing",
    "core.memory.simulated_gpu",
    "core.memory.simulated_memory",
    "core.memory.simulated_model",
    "core.memory.simulated_offloading",
    "core.memory.quick_fake",
    "core.data.arrow_reader",
    "core.data.rendered_chat",
    "core.data.rendering",
    "core.data.template_facts",
    "core.data.token_file",
    "core.data.tokenized",
    "core.data.tokenizing",
    "core.data.training_rows",
    "core.results.answers",
    "core.results.loaded",
    "core.results.generating",
    "core.results.held_out",
    "core.results.measuring",
    "core.results.answering",
    "core.results.another",
    "core.results.merging",
    "core.results.safetensors_writer",
    "core.results.difference",
    "core.results.merged_export",
    "core.results.trl_export",
    "core.results.trained_template",
    "core.starter.build_model",
    "core.training.data_of_run",
    "core.training.first_batch",
    "core.training.peak",
    "core.training.row_questions",
    "core.training.sample_callback",
}
HEAVY_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "tokenizers",
    "pyarrow",
)
NOT_IN_CORE = (*HEAVY_LIBRARIES, "numpy", "textual", "rich", "tui_app")
# Needed by a library of ours, though we never name it.
UNNAMED = {"accelerate"}
MODULE_OF = {"nvidia-ml-py": "pynvml", "pyyaml": "yaml"}
COMES_WITH = {
    "annotated_types": "pydantic",
    "httpx2": "huggingface_hub",
    "safetensors": "transformers",
    "pyarrow": "datasets",
    "jinja2": "torch",
    "numpy": "transformers",
}

LOADED = """
import importlib, json, sys
told = {}
for name in json.load(sys.stdin):
    importlib.import_module(name)
    told[name] = sorted({module.partition(".")[0] for module in sys.modules})
print(json.dumps(told))
"""


def modules(package: str) -> list[str]:
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_every_light_module_of_core_leaves_torch_and_terminals_alone() -> None:
    light = [name for name in modules("core") if name not in HEAVY]
    assert len(light) > 40
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=json.dumps(light), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(light)
    guilty = {name: sorted(set(loaded) & set(NOT_IN_CORE)) for name, loaded in told.items()}
    assert {name: found for name, found in guilty.items() if found} == {}


def test_every_module_of_the_app_leaves_torch_alone() -> None:
    names = [name for name in modules("tui_app") if not name.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-c", LOADED], input=json.dumps(names), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    guilty = {name: sorted({*loaded} & {*HEAVY_LIBRARIES}) for name, loaded in json.loads(done.stdout).items()}
    assert {name: found for name, found in guilty.items() if found} == {}


def test_the_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([linter, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _imported(package: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"core", "tui_app"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=!~\[; ]", line)[0].lower() for line in project["dependencies"]]
    declared = {MODULE_OF.get(name, name.replace("-", "_")) for name in names}
    imported = _imported("core") | _imported("tui_app")
    assert {COMES_WITH.get(name, name) for name in imported} - declared == set()
    assert declared - imported == UNNAMED


def test_the_environment_is_written_in_entry_points_only() -> None:
    allowed = {"tui_app/__main__.py", "core/training/runner.py", "core/training/warm.py", "core/cli.py"}
    # A child process begins here.
    allowed |= {"core/training/simulations.py"}
    writes = re.compile(r"os\.environ(\[[^]]+\]\s*=[^=]|\.(update|setdefault|pop|clear)\()|os\.(putenv|unsetenv)\(")
    found = {
        str(path.relative_to(ROOT))
        for package in ("core", "tui_app")
        for path in (ROOT / package).rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found <= allowed


def test_the_heavy_modules_are_where_they_are_said_to_be() -> None:
    for name in HEAVY:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        top = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        imports = {getattr(node, "module", None) or "" for node in top if isinstance(node, ast.ImportFrom)}
        imports |= {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        reached = {name.partition(".")[0] for name in imports} & {*HEAVY_LIBRARIES} or imports & HEAVY
        assert reached, f"{name} is light by now: take it off the list"
