"""Reads what a draft names; slow, so for a background thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import SftuiError
from tui_app.messages import ModelRead

if TYPE_CHECKING:
    from core.memory.plan import ModelFacts
    from core.models.architecture import Preference
    from core.runs.launch import WarmRunner
    from tui_app.draft import Draft


def read_model(draft: Draft) -> ModelRead:
    """What is to be known of the model that the draft names, or why it cannot be read."""
    from core.memory import plan

    name, revision, load_as = draft.model_key
    prefer: Preference | None = "text" if load_as == "text" else "vision" if load_as == "vision" else None
    try:
        return ModelRead(draft.model_key, plan.read_model(name, revision, prefer))
    except SftuiError as error:
        return ModelRead(draft.model_key, None, error)


def build_inventory(model: ModelFacts, warm: WarmRunner) -> ModelFacts | None:
    """The model with its exact modules, or with why they cannot be built; None if nobody can tell now."""
    from core.models.inventory_file import Inventory
    from core.runs.launch import NoAnswerError

    question = {"ask": "inventory", "folder": str(model.folder), "auto_class": model.architecture.auto_class}
    try:
        return replace(model, inventory=Inventory.from_json(warm.ask(question)))
    except NoAnswerError:
        return None
    except SftuiError as error:
        return replace(model, unbuilt=error)


def trace_layers(model: ModelFacts, warm: WarmRunner, *, on_gpu: bool) -> ModelFacts | None:
    """The model with what its layers were seen to hold in a step; None if nobody can tell now."""
    from core.memory.layer_traces import LayerTraces
    from core.runs.launch import NoAnswerError

    question = {"ask": "layers", "folder": str(model.folder), "auto_class": model.architecture.auto_class}
    try:
        found = LayerTraces.from_json(warm.ask({**question, "on_gpu": on_gpu}))
    except NoAnswerError:
        return None
    except SftuiError:
        # The arithmetic does without them, and nobody is to ask again.
        found = LayerTraces.none(on_gpu=on_gpu)
    return replace(model, traces=found if model.traces is None else model.traces.joined(found))
