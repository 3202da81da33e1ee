"""Which runs are listed, and in what order: pure functions over their lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tui_app.format import is_live, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from core.runs.folder import RunSummary

_STATES = ("training", "paused", "queued", "interrupted", "failed", "released", "stopped", "finished")


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.inf


ORDERS: dict[str, Callable[[RunSummary], object]] = {
    "newest": lambda _: 0,
    "state": lambda run: _STATES.index(run.state) if run.state in _STATES else -1,
    "loss": lambda run: _number(run.loss),
    "held-out loss": lambda run: _number(run.held_out),
    "time": lambda run: -(run.seconds or 0.0),
    "memory": lambda run: -(run.peak.bytes if run.peak else 0),
    "model": lambda run: (run.model.rpartition("/")[2].lower(), run.method),
}
"""By what runs can be sorted; those that are equal stay in the order of their age."""


def listed(runs: Iterable[RunSummary], wanted: str, order: str) -> list[RunSummary]:
    """The runs that have all wanted words somewhere in what is known of them, in an order."""
    words = wanted.lower().split()
    found = [run for run in runs if all(word in _text(run) for word in words)]
    return sorted(found, key=ORDERS[order])  # type: ignore[arg-type]


def _text(run: RunSummary) -> str:
    return " ".join((run.id, run.state, run.model, run.method, run.data, *run.tags)).lower()


def counted(runs: Sequence[RunSummary]) -> str:
    """How many there are, and how many of them run or wait."""
    if not runs:
        return ""
    live = sum(is_live(run.state) for run in runs)
    count = "1 run" if len(runs) == 1 else f"{number(len(runs))} runs"
    waiting = sum(run.place is not None for run in runs)
    return f"{count}, {live or 'none'} live" + (f", {waiting} queued" if waiting else "")
