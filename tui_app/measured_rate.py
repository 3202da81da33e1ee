"""How fast a model was trained on this device before: the newest run of its kind that has a few steps."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import SftuiError
from core.paths import expand
from core.runs.ends import read_ends
from core.runs.folder import RunFolder, all_runs

if TYPE_CHECKING:
    from core.runs.state import RunState
    from core.spec.run_spec import RunSpec
    from tui_app.draft import Draft

_LOOKED_AT = 50
# The first steps also warm up.
_SKIPPED_STEPS, _FEWEST_STEPS = 2, 3


@dataclass(frozen=True, slots=True)
class RateKey:
    """What a rate is of."""

    model: str
    """As the spec of a run names it: a whole path, or an id."""
    method: str
    device: str
    """The GPU's name; "cpu" without one."""

    @classmethod
    def of(cls, draft: Draft) -> RateKey | None:
        """That of the run that is being set up; None while model or device are not known."""
        if draft.model is None or draft.planned is None or draft.plan is None:
            return None
        device = draft.plan.device
        path = expand(draft.model_key[0])
        model = str(path.resolve()) if path.exists() else draft.model_key[0]
        return cls(model, draft.planned.method, "cpu" if device.kind == "cpu" else device.name)


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """What a run did."""

    tokens_per_second: float
    run_id: str


def measured_rate(key: RateKey) -> MeasuredRate | None:
    """The rate of the newest run like this one; None if there is none. Reads journals: for a background thread."""
    for folder in all_runs()[:_LOOKED_AT]:
        rate = _rate(folder, key)
        if rate is not None:
            return MeasuredRate(rate, folder.id)
    return None


def seconds_of(spec: RunSpec, tokens_per_epoch: int, steps_per_epoch: int, rate: MeasuredRate) -> float:
    """How long the whole training takes at this rate."""
    epochs = spec.num_train_epochs if spec.max_steps <= 0 else spec.max_steps / max(1, steps_per_epoch)
    return tokens_per_epoch * epochs / rate.tokens_per_second


def _rate(folder: RunFolder, key: RateKey) -> float | None:
    try:
        if folder.spec_values().get("model_name_or_path") != key.model:
            return None
        state = read_ends(folder.journal_file)
    except (OSError, SftuiError):
        return None
    if state.method != key.method or _device(state) != key.device:
        return None
    rates = [step.tokens_per_second for step in state.steps[_SKIPPED_STEPS:] if step.tokens_per_second > 0]
    return statistics.median(rates) if len(rates) >= _FEWEST_STEPS else None


def _device(state: RunState) -> str | None:
    if state.loaded is None:
        return None
    if state.loaded.device == "cpu":
        return state.loaded.device
    gpus = state.memory[-1].use.gpus if state.memory else ()
    own = [gpu.name for gpu in gpus if gpu.own_bytes] or [gpu.name for gpu in gpus]
    return own[0] if own else None
