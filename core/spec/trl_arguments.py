"""The argument names of the installed TRL and transformers, read from their sources without importing them."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

from core import python_source

_SOURCES = (
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)
OFFLOADING = "activation_offloading"
"""TRL's argument by which what the backward pass needs is on the host meanwhile."""
# Written by sftui itself, so that a spec cannot move a run's files or print over the screen.
OWNED = {
    "output_dir": "the run's folder is chosen by sftui",
    "logging_dir": "the run's folder is chosen by sftui",
    "disable_tqdm": "sftui shows the progress itself",
    "resume_from_checkpoint": "use `sftui resume`",
    "logging_steps": "every step is recorded",
    "logging_strategy": "every step is recorded",
    "logging_first_step": "every step is recorded",
    "logging_nan_inf_filter": "NaN is shown, never hidden",
    "report_to": "the run's journal keeps every figure; sftui.report_to gives them to others too",
    "do_train": "sftui run trains",
    "do_eval": "use eval_strategy",
    "do_predict": "there is nothing to predict",
    "hub_token": "a token does not belong in a file: log in with `hf auth login`",
    "push_to_hub": "export the result when it is made",
    "enable_jit_checkpoint": "sftui saves on SIGTERM itself",
    "trust_remote_code": "ctrl+o on the Model screen allows one model's code, of one revision",
    "model_init_kwargs": "use the options for model, precision and attention",
}


@cache
def argument_names() -> frozenset[str]:
    """Every argument that SFTConfig takes. Empty if neither library is installed."""
    names: set[str] = set()
    for package, path, class_name in _SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            source = Path(spec.origin).parent / path
            if source.is_file():
                names |= _fields(source.read_text(encoding="utf-8"), class_name)
    return frozenset(names)


def _fields(source: str, class_name: str) -> set[str]:
    return {
        field.target.id
        for node in python_source.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == class_name
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
