"""All figures of a run, to be taken elsewhere: as CSV, a line a step, or as JSON."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator
from typing import Any

from core.runs.events import EvaluationCompleted, StepCompleted, finite
from core.runs.folder import RunFolder
from core.runs.state import RunState, status

_STEP_FIELDS = tuple(field.name for field in dataclasses.fields(StepCompleted))
_HELD_OUT_FIELDS = tuple(field.name for field in dataclasses.fields(EvaluationCompleted) if field.name != "step")
COLUMNS = (*_STEP_FIELDS, *(f"held_out_{name}" for name in _HELD_OUT_FIELDS), "checkpoint")


def csv_lines(state: RunState) -> Iterator[str]:
    """A head line, then a line for each step; held-out figures and checkpoints stand in the line of their step."""
    evaluations = {found.step: found for found in state.evaluations}
    checkpoints = {kept.step: kept.path for kept in state.checkpoints}
    yield _line(COLUMNS)
    for step in state.steps:
        found = evaluations.pop(step.step, None)
        yield _line(_row(step, found, checkpoints.get(step.step)))
    # Without a step of their own: before the first, or where a journal was cut.
    for found in evaluations.values():
        yield _line([found.step, *[None] * (len(_STEP_FIELDS) - 1), *_held_out(found), checkpoints.get(found.step)])


def as_json(folder: RunFolder, state: RunState) -> dict[str, Any]:
    """Everything of a run that is a figure."""
    whole = {
        "id": folder.id,
        "state": status(state, alive=folder.is_alive()),
        "model": state.model,
        "method": state.method,
        "started": state.started_at,
        "steps": [dataclasses.asdict(step) for step in state.steps],
        "evaluations": [dataclasses.asdict(found) for found in state.evaluations],
        "memory": [{"time": one.time, "step": one.step, **dataclasses.asdict(one.use)} for one in state.memory],
        "checkpoints": [dataclasses.asdict(kept) for kept in state.checkpoints],
        "peak": dataclasses.asdict(state.peak) if state.peak else None,
    }
    cleaned: dict[str, Any] = finite(whole)
    return cleaned


def written(folder: RunFolder, kind: str) -> Iterator[str]:
    """The text of a run's figures, piece by piece, as "csv" or "json"."""
    state = folder.read_state()
    if kind == "json":
        yield json.dumps(as_json(folder, state), indent=1) + "\n"
    else:
        yield from csv_lines(state)


def _row(step: StepCompleted, found: EvaluationCompleted | None, checkpoint: str | None) -> list[Any]:
    return [*(getattr(step, name) for name in _STEP_FIELDS), *_held_out(found), checkpoint]


def _held_out(found: EvaluationCompleted | None) -> list[Any]:
    return [None if found is None else getattr(found, name) for name in _HELD_OUT_FIELDS]


def _line(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        str(value) if isinstance(value, float) and not math.isfinite(value) else value for value in values
    )
    return text.getvalue()
