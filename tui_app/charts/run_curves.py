"""The curves of one run, grown with its state, one metric at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.runs import metrics
from core.runs.events import RunPaused, TrainingStarted
from tui_app.charts.curve import SLICE, Curve

if TYPE_CHECKING:
    from core.runs.metrics import Metric
    from core.runs.state import RunState


class RunCurves:
    """A curve for each metric that was looked at. What is not looked at costs nothing."""

    def __init__(self) -> None:
        self._curves: dict[str, Curve] = {}
        self._taken: dict[str, int] = {}
        self._first_step = 0
        self._steps = 0

    def of(self, metric: Metric) -> Curve:
        """The metric's curve, as far as it was grown."""
        return self._curves.setdefault(metric.name, Curve(metric.title))

    def grow(self, metric: Metric, state: RunState, weight: float) -> tuple[bool, bool]:
        """Take what the state has new. Returns whether the curve changed, and whether it is whole now."""
        # A resumed run does the steps after its checkpoint anew.
        if state.first_step != self._first_step or len(state.steps) < self._steps:
            self._curves.clear()
            self._taken.clear()
        self._first_step, self._steps = state.first_step, len(state.steps)
        curve = self.of(metric)
        taken = self._taken.get(metric.name, 0)
        before = (len(curve.raw), len(curve.smooth), curve.weight)
        if metric is metrics.MEMORY:
            source = len(state.memory)
            curve.extend(metrics.memory_points(state.memory[taken : taken + SLICE]))
        else:
            source = len(state.steps)
            curve.extend(metrics.points(metric, state.steps[taken : taken + SLICE]))
        self._taken[metric.name] = min(source, taken + SLICE)
        curve.smooth_by(weight)
        whole = curve.catch_up() and self._taken[metric.name] == source
        return before != (len(curve.raw), len(curve.smooth), curve.weight), whole


def marks(state: RunState, *, evaluations: bool) -> dict[float, str]:
    """The signs on the step axis: E evaluation, C checkpoint, ‖ pause, ▸ going on."""
    found: dict[float, str] = {one.step: "E" for one in state.evaluations} if evaluations else {}
    found |= {kept.step: "C" for kept in state.checkpoints}
    for rest in state.rests:
        step = rest.first_step if isinstance(rest, TrainingStarted) else rest.step
        found[step] = "‖" if isinstance(rest, RunPaused) else "▸"
    return found
