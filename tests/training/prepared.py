"""Prepared data, and a trainer over it, without a run around them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.rendering import DataRequest, PreparedData, prepare_data
from core.models.tokenizer import load_tokenizer
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.spec.build import build_spec
from core.spec.run_spec import RunSpec
from core.training.control import RunControl
from core.training.saving import CheckpointSaver
from core.training.sft import make_trainer, training_arguments
from core.training.whereabouts import Whereabouts


def spec_of(model: Path, data: Path, **values: Any) -> RunSpec:
    """A spec of a few steps on the CPU; `sftui` values are joined to its own."""
    own = {"device": "cpu", **values.pop("sftui", {})}
    return build_spec(
        {"model_name_or_path": str(model), "datasets": [{"path": str(data)}], "max_length": 96, "sftui": own, **values}
    )


def prepare(
    spec: RunSpec, told: list[Event] | None = None, stop: Callable[[], bool] = lambda: False
) -> tuple[PreparedData, Any]:
    """The spec's data, and the tokenizer that it was made with."""
    folder = Path(spec.model_name_or_path)
    tokenizer = load_tokenizer(folder, lambda *_: None, chat_template_path=spec.chat_template_path)
    tell = (lambda _: None) if told is None else told.append
    return prepare_data(spec, DataRequest(tokenizer, folder, tell, stop)), tokenizer


def trainer_over(spec: RunSpec, data: PreparedData, tokenizer: Any, folder: Path) -> Any:
    """The trainer of a run, over the base model with all its weights."""
    from transformers import AutoModelForCausalLM

    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(spec.model_name_or_path)
    arguments = training_arguments(spec, run, "float32", "cpu")
    return make_trainer(
        model, tokenizer, data, arguments, [], CheckpointSaver(run, None, lambda _: None, RunControl()), Whereabouts()
    )
