"""The curves of several runs in one chart; for a background thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.runs import metrics
from core.runs.journal import JournalReader
from core.runs.state import RunState, reduce_all
from tui_app.charts.curve import Curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.runs.folder import RunFolder
    from core.runs.metrics import Metric, XAxis

_BATCH_BYTES = 1 << 20


class SeveralRuns:
    """Reads the journals of runs as they grow."""

    def __init__(self, folders: Sequence[RunFolder]) -> None:
        self.folders = tuple(folders)
        self.states = [RunState() for _ in folders]
        self._journals = [JournalReader(folder.journal_file) for folder in folders]

    def read(self) -> bool:
        """Read what is new; whether there was anything."""
        before = [state.last_seq for state in self.states]
        for index, journal in enumerate(self._journals):
            while entries := journal.read_new(_BATCH_BYTES):
                self.states[index] = reduce_all(self.states[index], entries)
        return before != [state.last_seq for state in self.states]

    def curves(self, metric: Metric, axis: XAxis, weight: float) -> tuple[Curve, ...]:
        """A curve for each run, smoothed, in the order of the runs."""
        return tuple(
            _curve(folder.id, state, metric, axis, weight)
            for folder, state in zip(self.folders, self.states, strict=True)
        )


def _curve(name: str, state: RunState, metric: Metric, axis: XAxis, weight: float) -> Curve:
    curve = Curve(name, weight)
    places = metrics.along(axis, state.steps)
    if metric in (metrics.MEMORY, metrics.HELD_OUT):
        by_step: dict[float, float] = dict(zip((step.step for step in state.steps), places, strict=True))
        held = metrics.held_out_points(metric, state)
        found = metrics.memory_points(state.memory) if metric is metrics.MEMORY else held
        points = [(by_step[step], value) for step, value in found if step in by_step]
    else:
        values = ((place, metric.of_step(step)) for place, step in zip(places, state.steps, strict=True))
        points = [(place, value) for place, value in values if value is not None]
    curve.extend(points)
    while not curve.catch_up():
        pass
    return curve
