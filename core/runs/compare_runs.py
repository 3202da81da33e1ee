"""Runs side by side: what differs between them, and what came of it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from core.errors import SftuiError
from core.runs.folder import RunFolder
from core.runs.metrics import Unit
from core.runs.state import RunState, status
from core.spec.run_spec import options

MOST = 6
Section = Literal["settings", "data", "environment"]
# Differ between any two runs, and say nothing.
_SAYS_NOTHING = ("sftui.name", "sftui.notes", "output_dir", "run_name")


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same for all of the runs: one value each, in their order; None where it is not known."""

    section: Section
    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of each of the runs, in their order; None where a run has none."""

    name: str
    unit: Unit
    values: tuple[float | None, ...]
    lower_is_better: bool | None = None

    @property
    def best(self) -> int | None:
        """Which of the runs has the best one; None where none is better."""
        known = [value for value in self.values if value is not None]
        if self.lower_is_better is None or len(set(known)) < 2:
            return None
        wanted = min(known) if self.lower_is_better else max(known)
        return self.values.index(wanted)


def check_count(folders: Sequence[RunFolder]) -> None:
    """Raise SftuiError unless there are two to six different runs."""
    if len({folder.path for folder in folders}) != len(folders) or not 2 <= len(folders) <= MOST:
        raise SftuiError("Wrong use", f"{len(folders)} runs cannot be compared.", f"Name 2 to {MOST} different runs.")


def differences(folders: Sequence[RunFolder], states: Sequence[RunState]) -> tuple[Difference, ...]:
    """What is not the same for all of the runs, and nothing else."""
    defaults = {name: option.default for name, option in options().items()}
    found: list[Difference] = []
    sections: tuple[tuple[Section, list[dict[str, Any]], dict[str, Any]], ...] = (
        ("settings", [_settings(folder) for folder in folders], defaults),
        ("data", [_data(folder, state) for folder, state in zip(folders, states, strict=True)], {}),
        ("environment", [_environment(folder, state) for folder, state in zip(folders, states, strict=True)], {}),
    )
    for section, known, otherwise in sections:
        for name in dict.fromkeys(name for one in known for name in one):
            values = tuple(one.get(name, otherwise.get(name)) for one in known)
            if name not in _SAYS_NOTHING and any(value != values[0] for value in values):
                found.append(Difference(section, name, values))
    return tuple(found)


def figures(states: Sequence[RunState]) -> tuple[Figure, ...]:
    """What came of each run."""

    def each(name: str, unit: Unit, values: list[float | None], *, lower: bool | None = None) -> Figure:
        return Figure(name, unit, tuple(values), lower)

    last = [state.last for state in states]
    best = [min((found.loss for found in state.evaluations), default=None) for state in states]
    final = [state.evaluations[-1] if state.evaluations else None for state in states]
    rates = [_median([step.tokens_per_second for step in state.steps[-1000:]]) for state in states]
    return (
        each("steps", "count", [step.step if step else None for step in last]),
        each("epochs", "", [step.epoch if step else None for step in last]),
        each("tokens seen", "count", [step.tokens_seen if step else None for step in last]),
        each("loss, last 20 steps", "", [_median([step.loss for step in state.steps[-20:]]) for state in states]),
        each("held-out loss", "", [found.loss if found else None for found in final], lower=True),
        each("best held-out loss", "", best, lower=True),
        each("held-out accuracy", "share", [found.token_accuracy if found else None for found in final], lower=False),
        each("tokens/s", "count", rates, lower=False),
        each("step time", "seconds", [_median([step.seconds for step in state.steps[-1000:]]) for state in states]),
        each("time", "seconds", [state.outcome.seconds if state.outcome else None for state in states], lower=True),
        each("peak memory", "bytes", [state.peak.bytes if state.peak else None for state in states], lower=True),
        each(
            "trained parameters",
            "count",
            [state.adapted.trainable_parameters if state.adapted else None for state in states],
        ),
    )


def compare(folders: Sequence[RunFolder]) -> dict[str, Any]:
    """All of it for scripts. Raises SftuiError for too few or too many runs."""
    check_count(folders)
    states = [folder.read_state() for folder in folders]
    return {
        "runs": [
            {"id": folder.id, "path": str(folder.path), "state": status(state, alive=folder.is_alive())}
            for folder, state in zip(folders, states, strict=True)
        ],
        "differences": [asdict(one) for one in differences(folders, states)],
        "figures": [{**asdict(one), "best": one.best} for one in figures(states)],
    }


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _settings(folder: RunFolder) -> dict[str, Any]:
    try:
        values = folder.spec_values()
    except (OSError, SftuiError):
        return {}
    own = values.pop("sftui", None)
    if isinstance(own, dict):
        values.update({f"sftui.{name}": value for name, value in own.items()})
    return values


def _data(folder: RunFolder, state: RunState) -> dict[str, Any]:
    told = asdict(state.data) if state.data else {}
    # What is counted in rows is told; of the kinds of what was left out the counts say enough.
    told.pop("skipped_kinds", None)
    return told | {name: value for name, value in _json(folder, "data.json").items() if name not in told}


def _environment(folder: RunFolder, state: RunState) -> dict[str, Any]:
    found = _json(folder, "environment.json")
    packages = found.pop("packages", None)
    found.pop("spec", None)
    found |= packages if isinstance(packages, dict) else {}
    if state.loaded is not None:
        found |= {name: getattr(state.loaded, name) for name in ("device", "dtype", "attention", "auto_class")}
    if state.memory and state.memory[-1].use.gpus:
        found["gpu"] = ", ".join(gpu.name for gpu in state.memory[-1].use.gpus)
    return found


def _json(folder: RunFolder, name: str) -> dict[str, Any]:
    try:
        read = json.loads((folder.path / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
