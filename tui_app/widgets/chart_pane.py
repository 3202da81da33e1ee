"""A run's figures as a chart: which one, how smooth, how large, and what it says at the cursor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from core.runs import metrics
from core.runs.metrics import ALL_METRICS, LOSS, MEMORY, Metric
from core.runs.state import RunState
from core.text import shorten
from tui_app.charts.axes import value_label
from tui_app.charts.plot import Picture, extent
from tui_app.charts.run_curves import RunCurves, marks
from tui_app.format import number
from tui_app.widgets.metric_chart import MetricChart

if TYPE_CHECKING:
    from textual.app import ComposeResult

SMOOTHINGS = (None, 0.0, 0.9, 0.99, 0.999)
"""None: as the chart is wide; 0: not at all; else the weight of a moving average."""
_SMOOTHING_WORDS = ("", "not smoothed", "mean of about 10", "mean of about 100", "mean of about 1,000")
_AGAIN_SECONDS = 0.02
_LEAST_WINDOW = 4


class ChartPane(Vertical):
    """One metric over the steps of a run; with the class -full it has the screen, a list of metrics and a cursor."""

    class Closed(Message):
        """The full chart is to be made small again."""

    DEFAULT_CSS = """
    ChartPane { border: round $border-blurred; border-title-color: $foreground; padding: 0 1 0 0; }
    ChartPane #metrics { display: none; width: 30; padding: 0 2 0 1; }
    ChartPane #reading { display: none; height: 1; padding: 0 1; }
    ChartPane.-full { border: round $border; }
    ChartPane.-full #reading { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Cursor", key_display="←→", tooltip="Move the cursor to earlier steps"),
        Binding("right", "move(1)", "Cursor right", show=False, tooltip="Move the cursor to later steps"),
        Binding("shift+left", "pan(-1)", "Earlier", show=False, tooltip="Show earlier steps"),
        Binding("shift+right", "pan(1)", "Later", show=False, tooltip="Show later steps"),
        Binding("left_square_bracket", "pan(-1)", "Earlier", key_display="[", show=False, tooltip="Show earlier steps"),
        Binding("right_square_bracket", "pan(1)", "Later", key_display="]", show=False, tooltip="Show later steps"),
        Binding("plus,equals_sign", "zoom(0.5)", "Zoom", key_display="+-", tooltip="Show half as many steps"),
        Binding("minus", "zoom(2)", "Zoom out", show=False, tooltip="Show twice as many steps"),
        Binding("w", "whole", "Whole", tooltip="Show the whole run"),
        Binding("home", "move_to(0)", "Start", show=False, tooltip="Put the cursor on the first step"),
        Binding("end", "move_to(1)", "End", show=False, tooltip="Put the cursor on the last step"),
        Binding("down,j,x", "metric(1)", "Metric", key_display="↑↓", tooltip="Show the next figure"),
        Binding("up,k,X", "metric(-1)", "Metric before", show=False, tooltip="Show the figure before it"),
        Binding("y", "log_scale", "Log", tooltip="Logarithmic or linear axis"),
        Binding("e", "smooth", "Smooth", tooltip="How many steps the bright line is the mean of"),
        Binding("escape,g", "close", "Close", key_display="g", tooltip="Back to the other panes"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.metric = LOSS
        self._curves = RunCurves()
        self._state = RunState()
        self._predicted: int | None = None
        self._smoothing = 0
        self._log: set[str] = set()
        self._window: tuple[float, float] | None = None
        self._cursor: float | None = None
        self._waits = False
        self._said: tuple[Content, Content] | None = None

    def compose(self) -> ComposeResult:
        """Lay out the list of figures, the chart and the line for the cursor."""
        with Horizontal():
            yield Static(id="metrics", markup=False)
            yield MetricChart()
        yield Static(id="reading", markup=False)

    def on_mount(self) -> None:
        """Say what is shown."""
        self._draw()

    def show(self, state: RunState, predicted_bytes: int | None = None) -> None:
        """Show a run as it is now; `predicted_bytes` is what was planned for its memory."""
        before = self._state.last
        followed = self._window is not None and before is not None and self._window[1] >= before.step
        self._state, self._predicted = state, predicted_bytes
        if followed and self._window is not None and state.last is not None:
            ahead = max(0.0, state.last.step - self._window[1])
            self._window = (self._window[0] + ahead, self._window[1] + ahead)
        self._draw()

    def fill(self, full: bool) -> None:
        """Take the whole screen and the keys, or give them back."""
        self.set_class(full, "-full")
        self.can_focus = full
        self._draw()
        if full:
            self.focus()

    @property
    def is_full(self) -> bool:
        """Whether it has the screen for itself."""
        return self.has_class("-full")

    def _draw(self) -> None:
        weight = SMOOTHINGS[self._smoothing]
        grown, whole = self._curves.grow(self.metric, self._state, weight or 0.0)
        picture = self._picture()
        self.query_one(MetricChart).show(picture, grown=grown)
        self._say(picture)
        if not whole and not self._waits:
            # The rest of a long history, in slices that nobody feels at the keys.
            self._waits = True
            self.set_timer(_AGAIN_SECONDS, self._draw_more)

    def _draw_more(self) -> None:
        self._waits = False
        self._draw()

    def _picture(self) -> Picture:
        held_out = metrics.held_out_points(self.metric, self._state)
        return Picture(
            curves=(self._curves.of(self.metric),),
            window=self._window,
            unit=self.metric.unit,
            log=self.metric.name in self._log,
            averages=SMOOTHINGS[self._smoothing] is None,
            points=tuple((step, value) for step, value in held_out if math.isfinite(value)),
            level=self._predicted if self.metric is MEMORY else None,
            marks=marks(self._state, evaluations=not held_out),
            cursor=self._cursor if self.is_full else None,
            grows=self._state.outcome is None,
        )

    def _say(self, picture: Picture) -> None:
        words = [self.metric.title, _SMOOTHING_WORDS[self._smoothing], "log" if picture.log else ""]
        if self._window is not None:
            words.append(f"steps {number(self._window[0])} to {number(self._window[1])}")
        title = "   ".join(word for word in words if word)
        if self.border_title != title:
            self.border_title = title
        if not self.is_full:
            return
        said = (self._reading(picture), self._list())
        if said != self._said:
            self._said = said
            self.query_one("#reading", Static).update(said[0])
            self.query_one("#metrics", Static).update(said[1])

    def _list(self) -> Content:
        last = self._state.last
        lines = []
        for one in ALL_METRICS:
            value = one.of_step(last) if last else None
            if one is MEMORY and self._state.memory:
                value = metrics.held_bytes(self._state.memory[-1])
            sign, look = ("▸ ", "bold $accent") if one is self.metric else ("  ", "")
            shown = value_label(value, one.unit) if value is None or math.isfinite(value) else "NaN"
            lines.append(Content.assemble((f"{sign}{one.title:<14}", look), (f"{shown:>11}", look or "$secondary")))
        legend = "\n\n● held-out   C checkpoint\nE evaluation\n‖ paused   ▸ went on"
        return Content.assemble(Content("\n").join(lines), (legend, "$secondary"))

    def _reading(self, picture: Picture) -> Content:
        curve = picture.curves[0]
        if self._cursor is None or not len(curve.raw):
            return Content.styled("← → put a cursor on the curve, + zooms in, w shows the whole run", "$secondary")
        at = min(len(curve.raw) - 1, curve.raw.index(self._cursor))
        unit = self.metric.unit
        parts = [
            ("step ", "$secondary"),
            (number(curve.raw.xs[at]), "bold"),
            (f"   {self.metric.title.lower()} ", "$secondary"),
            (value_label(curve.raw.ys[at], unit), "bold"),
        ]
        if curve.weight and at < len(curve.smooth):
            parts += [("   mean ", "$secondary"), (value_label(curve.smooth.ys[at], unit), "")]
        first, last = extent(picture)
        reach = (last - first) / max(1, self.size.width - 10) / 2
        around = curve.raw.fold(curve.raw.index(self._cursor - reach), curve.raw.index(self._cursor + reach))
        if around is not None and around.high > around.low:
            spread = f"{value_label(around.low, unit)} to {value_label(around.high, unit)}"
            parts += [("   here ", "$secondary"), (spread, "")]
        before = [(step, value) for step, value in picture.points if step <= self._cursor]
        if before:
            parts += [
                ("   held-out ", "$secondary"),
                (value_label(before[-1][1], unit), ""),
                (f" at {number(before[-1][0])}", "$secondary"),
            ]
        line = Content.assemble(*parts)
        room = max(20, self.size.width - 4)
        return line if line.cell_length <= room else Content(shorten(line.plain, room))

    # Keys.

    def action_metric(self, by: int) -> None:
        """Show another figure."""
        at = ALL_METRICS.index(self.metric)
        self.choose(ALL_METRICS[(at + by) % len(ALL_METRICS)])

    def choose(self, wanted: Metric) -> None:
        """Show this figure."""
        self.metric = wanted
        self._draw()

    def action_log_scale(self) -> None:
        """Change the axis of this figure between logarithmic and linear."""
        self._log ^= {self.metric.name}
        self._draw()

    def action_smooth(self) -> None:
        """Take the next moving average."""
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self._draw()

    def action_move(self, by: int) -> None:
        """Move the cursor by a cell; it begins at the newest step."""
        first, last = extent(self._picture())
        raw = self._curves.of(self.metric).raw
        if not len(raw):
            return
        cells = max(1, self.query_one(MetricChart).size.width - 8)
        here = last if self._cursor is None else self._cursor + by * (last - first) / cells
        at = min(len(raw) - 1, max(0, raw.index(here)))
        if self._cursor is not None and raw.xs[at] == self._cursor:
            at = min(len(raw) - 1, max(0, at + by))
        elif by < 0 and self._cursor is not None and raw.xs[at] > self._cursor + by and at > 0:
            at -= 1
        self._put_cursor(raw.xs[at])

    def action_move_to(self, end: int) -> None:
        """Put the cursor on the first or last step."""
        raw = self._curves.of(self.metric).raw
        if len(raw):
            self._put_cursor(raw.xs[-1 if end else 0])

    def _put_cursor(self, step: float) -> None:
        self._cursor = step
        if self._window is not None:
            width = self._window[1] - self._window[0]
            start = min(max(self._window[0], step - width), step)
            self._window = (start, start + width)
        self._draw()

    def action_zoom(self, factor: float) -> None:
        """Show fewer or more steps, around the cursor."""
        whole = self._whole()
        first, last = self._window or whole
        width = max(_LEAST_WINDOW, (last - first) * factor)
        if width >= whole[1] - whole[0]:
            return self.action_whole()
        middle = last if self._cursor is None else self._cursor
        share = (middle - first) / ((last - first) or 1.0)
        self._set_window(middle - share * width, width)
        return None

    def action_pan(self, by: int) -> None:
        """Show the stretch before or after."""
        if self._window is not None:
            width = self._window[1] - self._window[0]
            self._set_window(self._window[0] + by * width / 2, width)

    def action_whole(self) -> None:
        """Show the whole run."""
        self._window = None
        self._draw()

    def _set_window(self, start: float, width: float) -> None:
        first, last = self._whole()
        start = max(first, min(start, last - width))
        self._window = (start, start + width)
        if self._cursor is not None:
            self._cursor = min(max(self._cursor, self._window[0]), self._window[1])
        self._draw()

    def _whole(self) -> tuple[float, float]:
        raw = self._curves.of(self.metric).raw
        return (raw.xs[0], raw.xs[-1]) if len(raw) else (0.0, 1.0)

    def action_close(self) -> None:
        """Make it small again."""
        self.post_message(self.Closed())
