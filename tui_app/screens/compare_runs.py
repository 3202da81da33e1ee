"""Two to six runs beside each other: their curves in one chart, what came of them, what differs between them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from core.runs.compare_runs import differences, figures
from core.runs.metrics import COMPARED, HELD_OUT, MEMORY, X_UNITS, XAxis
from core.text import safe, shorten
from tui_app import messages
from tui_app.background import in_thread
from tui_app.charts.axes import value_label
from tui_app.charts.plot import COLOURS, SIGNS, Picture
from tui_app.charts.several import SeveralRuns
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.metric_chart import MetricChart
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from core.runs.compare_runs import Difference, Figure
    from core.runs.folder import RunFolder
    from tui_app.charts.curve import Curve

_LOOK_SECONDS = 2.0
_WEIGHTS = (0.9, 0.99, 0.0)
_WEIGHT_WORDS = {0.9: "mean of about 10", 0.99: "mean of about 100", 0.0: ""}
_AXES: dict[XAxis, str] = {"step": "over steps", "tokens": "over tokens", "time": "over time of training"}
_NAME_WIDTH = 22


class CompareRunsScreen(Screen[None]):
    """Runs beside each other; live ones move."""

    CSS_PATH = "compare_runs.tcss"
    HELP = (
        "Runs beside each other: one curve each, told apart by its sign and its colour. Below stand the figures of "
        "each, the best marked with ★, and then only what differs in settings, data and environment."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "metric(1)", "Figure", tooltip="Show the next figure in the chart"),
        Binding("X", "metric(-1)", "Figure before", show=False, tooltip="Show the figure before it"),
        Binding("a", "axis", "Axis", tooltip="Draw over steps, tokens or time of training"),
        Binding("y", "log_scale", "Log", tooltip="Logarithmic or linear axis"),
        Binding("e", "smooth", "Smooth", tooltip="How many steps a curve is the mean of"),
        Binding("g", "large", "Chart", tooltip="Give the chart the whole screen, or show the figures again"),
        Binding("j,down", "scroll(1)", "Down", show=False, tooltip="Scroll the figures down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, tooltip="Scroll the figures up"),
        Binding("escape", "leave", "Back", tooltip="Back to the list of runs"),
    ]

    def __init__(self, folders: tuple[RunFolder, ...]) -> None:
        super().__init__()
        self._runs = SeveralRuns(folders)
        self._metric = COMPARED[0]
        self._axis: XAxis = "step"
        self._log = False
        self._weight = _WEIGHTS[0]
        self._curves: tuple[Curve, ...] = ()
        self._table: tuple[tuple[Figure, ...], tuple[Difference, ...]] = ((), ())

    def compose(self) -> ComposeResult:
        """Lay out the chart, its legend, and the table."""
        yield StepHeader(title=f"Compare   {len(self._runs.folders)} runs")
        with Vertical(id="chart-pane"):
            yield MetricChart(waiting="Reading the runs …")
            yield Static(self._legend(), id="legend", markup=False)
        with VerticalScroll(id="table-pane", can_focus=False):
            yield Static(id="table", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Read the runs, time and again."""
        self._read(first=True)
        self.set_interval(_LOOK_SECONDS, self._read)

    @work(group="read")
    async def _read(self, *, first: bool = False) -> None:
        if not self.is_current and not first:
            return
        if await in_thread(self._look):
            self._draw()
            self._lay_table()
        elif first:
            self.query_one(MetricChart).show(Picture(()))

    @property
    def _metric_weight(self) -> float:
        """Evaluations are few, and memory has nothing to smooth."""
        return 0.0 if self._metric in (HELD_OUT, MEMORY) else self._weight

    def _look(self) -> bool:
        if not self._runs.read():
            return False
        self._curves = self._runs.curves(self._metric, self._axis, self._metric_weight)
        self._table = figures(self._runs.states), differences(self._runs.folders, self._runs.states)
        return True

    @work(group="curves", exclusive=True)
    async def _redraw(self) -> None:
        self._curves = await in_thread(partial(self._runs.curves, self._metric, self._axis, self._metric_weight))
        self._draw()

    def _draw(self) -> None:
        words = [self._metric.title, _AXES[self._axis]]
        words += [_WEIGHT_WORDS[self._metric_weight], "log" if self._log else ""]
        pane = self.query_one("#chart-pane")
        pane.border_title = "   ".join(word for word in words if word)
        picture = Picture(
            curves=self._curves,
            unit=self._metric.unit,
            x_name=self._axis,
            x_unit=X_UNITS[self._axis],
            log=self._log,
            averages=False,
            grows=any(state.outcome is None for state in self._runs.states),
        )
        self.query_one(MetricChart).show(picture, grown=True)

    def _legend(self) -> Content:
        width = max(14, 100 // len(self._runs.folders))
        parts: list[tuple[str, str]] = []
        for number, folder in enumerate(self._runs.folders):
            parts.append((f"{SIGNS[number]} {shorten(safe(folder.id), width)}   ", COLOURS[number]))
        return Content.assemble(*parts)

    # The table.

    def on_resize(self) -> None:
        """Give each run as much room as there is."""
        self._lay_table()

    def _lay_table(self) -> None:
        if self._table[0]:
            width = max(8, (self.size.width - _NAME_WIDTH - 4) // len(self._runs.folders) - 2)
            self.query_one("#table", Static).update(table(self._runs.folders, *self._table, min(44, width)))

    # Keys.

    def action_metric(self, by: int) -> None:
        """Show another figure."""
        self._metric = COMPARED[(COMPARED.index(self._metric) + by) % len(COMPARED)]
        self._redraw()

    def action_axis(self) -> None:
        """Draw over something else."""
        axes = list(_AXES)
        self._axis = axes[(axes.index(self._axis) + 1) % len(axes)]
        self._redraw()

    def action_log_scale(self) -> None:
        """Change between a logarithmic and a linear axis."""
        self._log = not self._log
        self._draw()

    def action_smooth(self) -> None:
        """Smooth more, or not at all."""
        self._weight = _WEIGHTS[(_WEIGHTS.index(self._weight) + 1) % len(_WEIGHTS)]
        self._redraw()

    def action_large(self) -> None:
        """Give the chart the whole screen, or take it back."""
        self.toggle_class("-large")

    def action_scroll(self, by: int) -> None:
        """Scroll the table."""
        self.query_one("#table-pane").scroll_relative(y=2 * by, animate=False)

    def action_leave(self) -> None:
        """Go home."""
        self.post_message(messages.HomeRequested())


def table(
    folders: Sequence[RunFolder], found: Sequence[Figure], differing: Sequence[Difference], width: int
) -> Content:
    """The figures of each run and what differs between them, a column a run."""
    names = [_end(safe(folder.id), width - 2) for folder in folders]
    heads = [(f"{sign} {name}", colour) for sign, name, colour in zip(SIGNS, names, COLOURS, strict=False)]
    lines = [_line("", heads, width)]
    for figure in found:
        if any(value is not None for value in figure.values):
            cells = [
                (value_label(value, figure.unit) + (" ★" if figure.best == index else ""), "")
                for index, value in enumerate(figure.values)
            ]
            lines.append(_line(figure.name, cells, width))
    section = ""
    for one in differing:
        if one.section != section:
            section = one.section
            lines += [Content(""), Content.styled(f"Other {section}", "bold")]
        cells = [("–" if value is None else safe(str(value)), "$accent") for value in one.values]
        lines.append(_line(one.name.replace("_", " ").removeprefix("sftui."), cells, width))
    if not differing:
        lines += [Content(""), Content.styled("Settings, data and environment are the same.", "$secondary")]
    return Content("\n").join(lines)


def _line(name: str, cells: Sequence[tuple[str, str]], width: int) -> Content:
    return Content.assemble(
        (f"{shorten(safe(name), _NAME_WIDTH):<{_NAME_WIDTH}}", "$secondary"),
        *((f"{shorten(text, width):<{width}}  ", look) for text, look in cells),
    )


def _end(text: str, width: int) -> str:
    """The end of an id, where ids differ."""
    return text if len(text) <= width else f"…{text[1 - width :]}"
