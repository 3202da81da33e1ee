"""Home: every run, and how to begin one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual import work
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from core.text import safe
from tui_app import format as words
from tui_app import messages
from tui_app.alerts import call_for
from tui_app.background import in_thread
from tui_app.widgets.run_table import COLUMNS, SIDE_FROM, RunTable, cells, fitting
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult

    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot
    from core.runs.folder import RunSummary
    from core.runs.queue import Move
    from tui_app.follow import RunsWatch
    from tui_app.widgets.gpu_panel import GpuPanel

WELCOME = Content.assemble(
    ("No runs yet.\n\n", "bold"),
    ("t", "bold $accent"),
    "  try the built-in model: about a minute, no GPU, no network\n",
    ("n", "bold $accent"),
    "  set up a run: choose a model, your data, and see what it costs before it starts\n\n",
    ("?", "bold $accent"),
    "  the keys of this screen      ",
    ("ctrl+p", "bold $accent"),
    "  find any action\n\n",
    (
        "A run belongs to no terminal: close this window or lose the connection, and it goes on.",
        "$secondary",
    ),
)


class RunsScreen(Screen[None]):
    """The list of runs, live."""

    HELP = "Every run on this machine. Live ones move by themselves; a run goes on when you leave."
    BINDINGS = [
        Binding("n", "new", "New run", tooltip="Set up a run"),
        Binding("t", "starter", "Try the starter", tooltip="Train the built-in model: a minute, no GPU, no network"),
        Binding("s", "stop", "Stop", tooltip="Stop the run and save a checkpoint; take it out of the queue"),
        Binding("K,shift+up", "move('up')", "Sooner", tooltip="Let the waiting run go before the one before it"),
        Binding("J,shift+down", "move('down')", "Later", tooltip="Let the waiting run go behind the one behind it"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, RunSummary] = {}
        self._cells: dict[str, dict[str, Text]] = {}
        self._columns: dict[str, int] = {}
        self._devices: tuple[GpuReading, HostSnapshot] | None = None
        self._said: str | None = None
        self._watch: RunsWatch | None = None

    def compose(self) -> ComposeResult:
        """Lay out table and machine."""
        yield StepHeader(title="Runs")
        yield Static("", id="summary", markup=False)
        with Horizontal(id="body"):
            yield Static(WELCOME, id="welcome", markup=False)
            yield RunTable(cursor_type="row", id="runs")
        yield Footer()

    @property
    def table(self) -> RunTable:
        """The table of runs."""
        return self.query_one(RunTable)

    def on_mount(self) -> None:
        """Begin to follow the runs and the machine."""
        self.table.focus()
        self.watch(self.app, "devices_read", self._show_machine)
        # The first frame comes before the first reading, and before the import of what reads.
        self.call_after_refresh(self._follow)

    @work(group="follow")
    async def _follow(self) -> None:
        def load() -> type[RunsWatch]:
            from tui_app.follow import RunsWatch

            return RunsWatch

        self._watch = (await in_thread(load))(self)
        if self.app.screen is not self:
            self._watch.pause()
        self._watch.start()

    def on_unmount(self) -> None:
        """Stop following."""
        if self._watch is not None:
            self._watch.stop()

    def on_screen_resume(self) -> None:
        """Look at once when one comes home."""
        if self._watch is not None:
            self._watch.wake()
        self._show_machine(self._devices)

    def on_screen_suspend(self) -> None:
        """Rest while another screen is shown."""
        if self._watch is not None:
            self._watch.pause()

    def on_resize(self) -> None:
        """Show as many columns as there is room for, and the machine beside them."""
        wide = self.size.width >= SIDE_FROM
        self.set_class(wide, "-side")
        if wide and not self.query("#side"):
            self._mount_machine()
        self._lay_columns()

    def _mount_machine(self) -> None:
        from tui_app.widgets.gpu_panel import GpuPanel

        self.query_one("#body").mount(VerticalScroll(GpuPanel(), id="side", can_focus=False))
        self.call_after_refresh(lambda: self._show_machine(self._devices))

    def on_runs_listed(self, message: messages.RunsListed) -> None:
        """Show the runs; only cells that changed are drawn again."""
        runs = {run.id: run for run in message.runs}
        reordered = list(runs) != list(self._runs)
        for name, run in runs.items():
            before = self._runs.get(name, run).state
            if words := call_for(name, before, run.state, run.failure or ""):
                self.post_message(messages.AttentionWanted((name, run.state, run.step), words))
        self._runs = runs
        self._summarize(message.runs)
        if reordered:
            self._fill()
            return
        for name, run in runs.items():
            for column, cell in cells(run).items():
                if column in self._columns and self._cells[name][column] != cell:
                    self._cells[name][column] = cell
                    self.table.update_cell(name, column, cell)

    def _summarize(self, runs: tuple[RunSummary, ...]) -> None:
        summary = _summary(runs)
        if summary == self._said:
            return
        self._said = summary
        self.query_one("#summary", Static).update(summary)
        self.set_class(not runs, "-empty")
        self.refresh_bindings()

    def _lay_columns(self) -> None:
        columns = fitting(self.size.width)
        if columns != self._columns:
            self._columns = columns
            self._fill()

    def _fill(self) -> None:
        table = self.table
        chosen = self.chosen
        table.clear(columns=True)
        for column in COLUMNS:
            if column.name in self._columns:
                title = Text(column.title, justify="right" if column.right else "left")
                table.add_column(title, key=column.name, width=self._columns[column.name])
        self._cells = {name: cells(run) for name, run in self._runs.items()}
        for name, found in self._cells.items():
            table.add_row(*(found[column] for column in self._columns), key=name)
        if chosen is not None and chosen.id in self._runs:
            table.move_cursor(row=table.get_row_index(chosen.id))

    def _show_machine(self, devices: tuple[GpuReading, HostSnapshot] | None) -> None:
        self._devices = devices
        if devices is not None and self.app.screen is self:
            for panel in self.query("GpuPanel").results():
                cast("GpuPanel", panel).show_machine(*devices)

    @property
    def chosen(self) -> RunSummary | None:
        """The run under the cursor."""
        rows = list(self._cells)
        row = self.table.cursor_row
        return self._runs.get(rows[row]) if 0 <= row < len(rows) else None

    def on_data_table_row_selected(self) -> None:
        """Watch the run under the cursor."""
        from core.runs.folder import RunFolder

        if self.chosen is not None:
            self.post_message(messages.MonitorRequested(RunFolder(self.chosen.path)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to stop only where there is a run, and another place only to one that waits."""
        if action == "move":
            return self.chosen is not None and self.chosen.place is not None
        return bool(self._runs) if action == "stop" else True

    def on_data_table_row_highlighted(self) -> None:
        """Offer what can be done with the run under the cursor."""
        self.refresh_bindings()

    @work(group="commands")
    async def action_move(self, how: Move) -> None:
        """Give the waiting run under the cursor another place."""
        from core.errors import SftuiError
        from tui_app.queueing import move

        run = self.chosen
        if run is None:
            return
        try:
            place = await in_thread(lambda: move(run.path, how))
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))
        else:
            self.notify(f"{safe(run.id)} has place {place} in the queue.", markup=False)

    def action_new(self) -> None:
        """Set up a run."""
        self.post_message(messages.StepRequested("model"))

    def action_starter(self) -> None:
        """Set up the built-in example."""
        self.post_message(messages.StarterRequested())

    def action_stop(self) -> None:
        """Ask whether to stop the run under the cursor."""
        from tui_app.dialogs.confirm import ConfirmDialog
        from tui_app.notes import LEAVE_QUEUE

        run = self.chosen
        if run is None:
            return
        if run.place is None and not words.is_live(run.state):
            self.notify(f"{safe(run.id)} is not running.", markup=False)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._stop(run.path)

        asked = (
            "Stop this run?",
            f"{safe(run.id)} finishes its step, saves a checkpoint and ends.",
            "Stop and save",
            "Let it run",
        )
        self.app.push_screen(ConfirmDialog(*(asked if run.place is None else LEAVE_QUEUE)), answered)

    @work(group="commands")
    async def _stop(self, path: Path) -> None:
        from core.errors import SftuiError
        from core.runs.commands import send
        from core.runs.folder import RunFolder

        try:
            await in_thread(lambda: send(RunFolder(path), "stop"))
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))


def _summary(runs: tuple[RunSummary, ...]) -> str:
    live = sum(words.is_live(run.state) for run in runs)
    if not runs:
        return ""
    count = "1 run" if len(runs) == 1 else f"{words.number(len(runs))} runs"
    waiting = sum(run.place is not None for run in runs)
    return f"{count}, {live or 'none'} live" + (f", {waiting} queued" if waiting else "")
