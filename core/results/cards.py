"""The card of an exported model: what it was made from, how, and how well it did. Nothing of this machine is in it."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml

from core.data.request import Source
from core.data.sources import is_on_hub
from core.models.model_card import read_license
from core.results.result import Result
from core.runs.state import RunState
from core.spec.run_spec import DatasetSource, RunSpec
from core.text import human_count, human_duration, safe, shorten

_IN_CACHE = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_SETTINGS = (
    "seed", "max_length", "packing", "assistant_only_loss", "completion_only_loss", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "optim",
    "weight_decay", "max_grad_norm",
)  # fmt: skip
_ADAPTER_SETTINGS = ("lora_r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_modules_to_save")
_SHOWN_ANSWERS = 3


def base_name(spec: RunSpec, folder: Path, base_id: str | None = None) -> str:
    """What the base model is called where nobody knows this machine: its id on the hub, or its folder's name."""
    if base_id:
        return base_id
    if not Path(spec.model_name_or_path).is_absolute() and _HUB_ID.fullmatch(spec.model_name_or_path):
        return spec.model_name_or_path
    cached = next((found for part in folder.parts if (found := _IN_CACHE.fullmatch(part))), None)
    return f"{cached['owner']}/{cached['name']}" if cached else folder.name


def write_card(
    target: Path,
    result: Result,
    spec: RunSpec,
    kind: Literal["adapter", "merged"],
    base_folder: Path,
    base_id: str | None,
    facts: tuple[tuple[str, str], ...] = (),
) -> None:
    """Write README.md; `facts` are what was measured at the export."""
    state = result.run.read_state()
    name = base_name(spec, base_folder, base_id)
    parts = [
        _front(spec, kind, name, base_folder),
        f"# {_plain(_title(spec, result))}\n",
        _about(spec, state, kind, name),
        _use(kind, name),
        "## Data\n\n" + _table(_data(spec, state)),
        "## Settings\n\n" + _table(_settings(spec, state)),
        "## Metrics\n\n" + _table([*_metrics(state, result), *facts]),
        _answers(state),
        "## Versions\n\n" + _table(_versions(result)),
    ]
    (target / "README.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _front(spec: RunSpec, kind: str, base: str, base_folder: Path) -> str:
    told: dict[str, Any] = {
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sft", "lora", "sftui"] if spec.use_peft else ["sft", "sftui"],
    }
    if _HUB_ID.fullmatch(base):
        told["base_model"] = base
        told["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    if (license_name := read_license(base_folder)) and re.fullmatch(r"[a-z0-9.-]+", license_name):
        told["license"] = license_name
    datasets = [entry.path for entry in spec.datasets if is_on_hub(Source.of(entry))]
    if datasets:
        told["datasets"] = datasets
    return f"---\n{yaml.safe_dump(told, sort_keys=True, allow_unicode=True)}---\n"


def _title(spec: RunSpec, result: Result) -> str:
    label = spec.sftui.name or Path(spec.model_name_or_path).name
    return label if result.step is None else f"{label}, step {result.step:,}"


def _about(spec: RunSpec, state: RunState, kind: str, base: str) -> str:
    words = {"qlora": "QLoRA", "lora": "LoRA", "full": "full fine-tuning"}[spec.method]
    rows = f" on {state.data.train_rows:,} rows" if state.data else ""
    what = f"An adapter for {_plain(base)}" if kind == "adapter" else _plain(base)
    notes = f"\n{_plain(spec.sftui.notes)}\n" if spec.sftui.notes else ""
    return f"{what}, fine-tuned by {words}{rows} with [sftui](https://pypi.org/project/sftui/).\n{notes}"


def _use(kind: str, base: str) -> str:
    if kind == "adapter":
        load = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")\n'
            'model = PeftModel.from_pretrained(base, "PATH_OR_ID_OF_THIS")\n'
        )
    else:
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH_OR_ID_OF_THIS", dtype="auto")\n'
        )
    return (
        f"## Use\n\n```python\n{load}"
        'tokenizer = AutoTokenizer.from_pretrained("PATH_OR_ID_OF_THIS")\n```\n\n'
        "The tokenizer has the chat template that was trained with, and generation_config.json the tokens that "
        "answers end with.\n"
    )


def _data(spec: RunSpec, state: RunState) -> list[tuple[str, str]]:
    found = [("dataset", _named(entry)) for entry in spec.datasets]
    if spec.sftui.held_out_file:
        found.append(("held-out file", Path(spec.sftui.held_out_file).name))
    if (data := state.data) is not None:
        found += [("form", data.form), ("rows", f"{data.train_rows:,}"), ("rows held out", f"{data.held_out_rows:,}")]
        if data.tokens is not None:
            found.append(("tokens", f"{data.tokens:,}, of which {data.trained_tokens or 0:,} are learnt from"))
    return found


def _named(entry: DatasetSource) -> str:
    """The dataset's id on the hub, or the names of its files without what leads to them."""
    if is_on_hub(Source.of(entry)):
        return entry.path
    named = entry.named_files() or (entry.path,)
    return ", ".join(Path(name).name for name in named)


def _settings(spec: RunSpec, state: RunState) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = [("method", spec.method), ("base weights", spec.quantization)]
    if state.loaded is not None:
        found.append(("computed in", state.loaded.dtype))
    if spec.use_peft:
        found += [(name, _value(getattr(spec, name))) for name in _ADAPTER_SETTINGS]
        if state.adapted is not None:
            found.append(("lora_target_modules", ", ".join(state.adapted.target_modules)))
            found.append(("trained parameters", human_count(state.adapted.trainable_parameters)))
    found += [(name, _value(getattr(spec, name))) for name in _SETTINGS]
    length = f"{state.step:,}" if state.max_steps is None else f"{state.step:,} of {state.max_steps:,}"
    return [*found, ("steps", length), ("epochs", f"{state.epochs:g}" if state.epochs is not None else "n/a")]


def _metrics(state: RunState, result: Result) -> list[tuple[str, str]]:
    found = []
    last = result.step if result.step is not None else state.step
    steps = [step for step in state.steps if step.step <= last]
    if steps:
        found.append(("training loss at the end", f"{steps[-1].loss:.4f}"))
        found.append(("tokens seen", f"{steps[-1].tokens_seen:,}"))
    evaluations = [one for one in state.evaluations if one.step <= last]
    if evaluations:
        found.append(("held-out loss at the end", f"{evaluations[-1].loss:.4f}"))
        found.append(("held-out loss at the start", f"{evaluations[0].loss:.4f} (step {evaluations[0].step:,})"))
        if (accuracy := evaluations[-1].token_accuracy) is not None:
            found.append(("held-out token accuracy", f"{accuracy:.1%}"))
    for name, samples in (("base", state.base_samples), ("tuned", state.tuned_samples)):
        known = [one for one in samples.answers if one.expected is not None] if samples else []
        if known:
            exact = sum(one.answer.strip() == (one.expected or "").strip() for one in known)
            found.append((f"held-out answers exactly right, {name}", f"{exact} of {len(known)}"))
    if state.outcome is not None:
        found.append(("time", human_duration(state.outcome.seconds)))
    return found


def _answers(state: RunState) -> str:
    if state.base_samples is None or state.tuned_samples is None:
        return ""
    before = {answer.prompt: answer.answer for answer in state.base_samples.answers}
    rows = [
        f"| {_cell(one.prompt)} | {_cell(before.get(one.prompt, ''))} | {_cell(one.answer)} |"
        for one in state.tuned_samples.answers[:_SHOWN_ANSWERS]
    ]
    return "\n".join(["## Answers\n", "| asked | base | tuned |", "|---|---|---|", *rows, ""])


def _versions(result: Result) -> list[tuple[str, str]]:
    try:
        read = json.loads(result.run.environment_file.read_text(encoding="utf-8"))
        packages = {str(name): str(version) for name, version in read["packages"].items()}
        return [*packages.items(), ("python", str(read["python"]))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(words)} |" for name, words in rows), ""])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "n/a" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return _plain(shorten(safe(" ".join(text.split())), 200))


def _plain(text: str) -> str:
    """Foreign text as Markdown shows it letter by letter."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", safe(text))
