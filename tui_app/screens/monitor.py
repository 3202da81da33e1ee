"""Watch a run: how far it is, how it learns, what it holds, what it answers, and how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.runs.state import RunState, status
from tui_app import messages
from tui_app.alerts import call_for
from tui_app.format import ENDED
from tui_app.log_keys import LogKeys
from tui_app.notes import note_lines, notice, why_now
from tui_app.widgets.chart_pane import ChartPane
from tui_app.widgets.gpu_panel import GpuPanel
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.log_tail import LogTail
from tui_app.widgets.outcome_panel import OutcomePanel
from tui_app.widgets.progress_panel import ProgressPanel
from tui_app.widgets.samples_panel import SamplesPanel
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot
    from core.runs.folder import RunFolder

VIEWS = (
    ("chart", "Loss"),
    ("machine", "Machine"),
    ("answers", "Answers"),
    ("notes", "Choices"),
    ("log", "Log"),
    ("events", "Events"),
)
# Where all panes fit beside and below each other.
ROOMY = (100, 30)
_DRAW_SECONDS = 1.0


class MonitorScreen(LogKeys):
    """One run, live or ended. It only reads; the run does not notice."""

    CSS_PATH = "monitor.tcss"
    HELP = (
        "One run, as its journal tells it. Leaving does not touch it: the run belongs to no terminal.\n"
        "● in the chart is a held-out loss; on its axis C is a checkpoint, ‖ a pause and ▸ where it went on. The dim "
        "band is the spread of the steps, the bright line their mean. g gives the chart the whole screen: every "
        "figure, a cursor that reads values, zoom."
    )
    BINDINGS = [
        Binding("g", "charts", "Charts", tooltip="The chart on the whole screen: every figure, cursor, zoom"),
        Binding("x", "figure(1)", "Figure", show=False, tooltip="Show the next figure in the chart"),
        Binding("X", "figure(-1)", "Figure before", show=False, tooltip="Show the figure before it"),
        Binding("y", "log_scale", "Log axis", show=False, tooltip="Logarithmic or linear axis"),
        Binding("e", "smooth", "Smooth", show=False, tooltip="How many steps the bright line is the mean of"),
        Binding("A", "sample", "Answer now", show=False, tooltip="Let the model answer the sample prompts now"),
        Binding(
            "left_square_bracket",
            "answers(-1)",
            "Earlier answers",
            key_display="[",
            show=False,
            tooltip="Show what the model answered at an earlier step",
        ),
        Binding(
            "right_square_bracket",
            "answers(1)",
            "Later answers",
            key_display="]",
            show=False,
            tooltip="Show what the model answered at a later step",
        ),
        Binding("v", "view(1)", "Next view", tooltip="Show the next view (small terminals)"),
        Binding("right", "view(1)", "Next view", show=False),
        Binding("left", "view(-1)", "Previous view", show=False),
        Binding("a", "use('ask')", "Ask it", tooltip="Ask what the run has made, beside its base model"),
        Binding("E", "use('export')", "Export", tooltip="Take what the run has made elsewhere"),
        Binding("N", "new", "New run", show=False, tooltip="Set up another run"),
        Binding("d", "detach", "Detach", tooltip="Go home; the run goes on"),
    ]

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.view = "chart"
        self._dirty = False
        self._machine: GpuReading | None = None
        self._notes: list[Content] = []

    def compose(self) -> ComposeResult:
        """Lay out the panes; which of them show depends on the room."""
        yield StepHeader(title=f"Monitor   {self.folder.id}")
        yield ProgressPanel()
        yield OutcomePanel()
        yield Static("", id="views", markup=False)
        with Vertical(id="body"):
            with Horizontal(id="upper"):
                yield ChartPane(id="chart-pane")
                with VerticalScroll(id="machine-pane"):
                    yield GpuPanel()
            with Horizontal(id="lower"):
                yield SamplesPanel(id="answers")
                yield LogTail(id="log")
                yield LogTail("Events", id="events")
                with VerticalScroll(id="notes-pane") as notes:
                    notes.border_title = "Choices"
                    yield Static("Nothing was decided yet.", id="notes", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Begin to follow."""
        self._show_view("chart")
        self._follower.start()
        self.set_interval(_DRAW_SECONDS, self._draw)
        self.watch(self.app, "devices_read", self._see_machine)

    def on_unmount(self) -> None:
        """Stop following; the run goes on."""
        self._follower.stop()

    def on_resize(self) -> None:
        """Show all panes where there is room, else one at a time."""
        width, height = self.size
        self.set_class(width < ROOMY[0] or height < ROOMY[1], "-compact")
        self._dirty = True
        self.refresh_bindings()

    # What the follower tells.

    def on_run_updated(self, message: messages.RunUpdated) -> None:
        """Keep the state; it is drawn at the next second, the first one and the end at once."""
        first = self.state.last_seq == 0
        before = status(self.state, alive=self.alive)
        self.state, self.alive, self.notes = message.state, message.alive, message.notes
        self._dirty = True
        now = status(self.state, alive=self.alive)
        if first or before != now:
            self._draw()
            self.refresh_bindings()
        if not first and (words := call_for(self.folder.id, before, now, why_now(self.state))):
            self.post_message(messages.AttentionWanted((self.folder.id, now, self.state.step), words))

    def on_log_read(self, message: messages.LogRead) -> None:
        """Show what the log has new."""
        self.query_one("#log", LogTail).append(message.lines)

    def _see_machine(self, devices: tuple[GpuReading, HostSnapshot] | None) -> None:
        """Who is on the GPUs, for as long as the run is."""
        reading = devices[0] if devices is not None and devices[0].gpus and self.alive else None
        if reading != self._machine:
            self._machine = reading
            self._dirty = True

    def _tick(self) -> None:
        """Let the clocks go on."""
        state = self.state
        self.query_one(ProgressPanel).show(
            state, time.time(), alive=self.alive, notice=notice(state, self._sent, alive=self.alive)
        )

    def _draw(self) -> None:
        if not self.is_current:
            return
        self._tick()
        if not self._dirty:
            return
        self._dirty = False
        state = self.state
        current = status(state, alive=self.alive)
        predicted = state.peak.predicted_bytes if state.peak and state.peak.device == "gpu" else None
        self.query_one(ChartPane).show(state, predicted)
        self.query_one(GpuPanel).show_run(state.memory, predicted, self._machine)
        self.query_one(SamplesPanel).show(state.base_samples, state.samples)
        if self._shows_events:
            self._read_events()
        self.query_one(OutcomePanel).show(self.folder, state, current)
        self._show_notes(state)

    def _show_notes(self, state: RunState) -> None:
        lines = note_lines(state, self.notes)
        if lines == self._notes:
            return
        self._notes = lines
        problems = len(state.problems) + len(state.troubles)
        title = "Choices" if not problems else f"Choices and {problems} problem{'s' if problems > 1 else ''}"
        self.query_one("#notes-pane").border_title = title
        if lines:
            self.query_one("#notes", Static).update(Content("\n").join(lines))

    # Keys.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        if action == "view":
            return self.compact
        if action == "answers":
            return len(self.state.samples) > 1
        if action == "sample":
            return self.alive and self.state.phase == "training"
        if action == "use":
            return status(self.state, alive=self.alive) in ENDED and not self.alive
        return super().check_action(action, parameters)

    def action_view(self, by: int) -> None:
        """Show the next or previous view."""
        names = [name for name, _ in VIEWS]
        self._show_view(names[(names.index(self.view) + by) % len(names)])

    def action_answers(self, by: int) -> None:
        """Show what was answered at another step."""
        self.query_one(SamplesPanel).go(by)

    def action_sample(self) -> None:
        """Ask for answers now."""
        self._send("sample")

    def action_charts(self) -> None:
        """Give the chart the whole screen."""
        self.add_class("-charts")
        self.query_one(ChartPane).fill(True)

    def on_chart_pane_closed(self) -> None:
        """Show the other panes again."""
        self.remove_class("-charts")
        self.query_one(ChartPane).fill(False)
        self._show_view(self.view)

    def action_figure(self, by: int) -> None:
        """Show another figure in the chart."""
        self.query_one(ChartPane).action_metric(by)

    def action_log_scale(self) -> None:
        """Change the chart's axis between logarithmic and linear."""
        self.query_one(ChartPane).action_log_scale()

    def action_smooth(self) -> None:
        """Smooth the chart more, or not at all."""
        self.query_one(ChartPane).action_smooth()

    def _show_view(self, view: str) -> None:
        self.view = view
        for name, _ in VIEWS:
            self.set_class(name == view, f"-view-{name}")
        if view == "events":
            self._read_events()
        if view == "log":
            self._follower.follow_log()
        self.query_one("#views", Static).update(
            Content.assemble(
                *(
                    (f"[{title}] " if name == view else f" {title}  ", "bold" if name == view else "")
                    for name, title in VIEWS
                )
            )
        )
        if view in ("answers", "log", "events") and self.compact:
            self.query_one(f"#{view}").focus()
        elif view in ("notes", "machine") and self.compact:
            self.query_one(f"#{view}-pane").focus()
        else:
            self.set_focus(None)

    def action_use(self, use: Literal["ask", "export"]) -> None:
        """Use what the run has made."""
        self.post_message(messages.ResultWanted(self.folder, use))

    def action_detach(self) -> None:
        """Go home."""
        self.post_message(messages.HomeRequested())

    def action_new(self) -> None:
        """Set up another run."""
        self.post_message(messages.StepRequested("model"))
