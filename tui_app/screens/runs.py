"""Home: every run, and how to begin one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual import work
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from core.text import safe
from tui_app import format as words
from tui_app import messages
from tui_app.alerts import call_for
from tui_app.background import in_thread
from tui_app.chosen_run import ChosenRunKeys
from tui_app.run_order import ORDERS, counted, listed
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.run_table import BELOW_FROM, COLUMNS, SIDE_FROM, RunTable, cells, fitting
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot
    from core.runs.folder import RunSummary
    from tui_app.follow import RunsWatch
    from tui_app.widgets.gpu_panel import GpuPanel

MOST_COMPARED = 6
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


class RunsScreen(ChosenRunKeys):
    """The list of runs, live."""

    HELP = (
        "Every run on this machine; a run goes on when you leave. Peak is the most memory it held, against the plan. "
        "Mark two to six (◆) and press v to compare them."
    )
    AUTO_FOCUS = "#runs"
    BINDINGS = [
        Binding("n", "new", "New run", tooltip="Set up a run"),
        Binding("t", "starter", "Starter", tooltip="Train the built-in model: a minute, no GPU, no network"),
        Binding(
            "slash", "filter", "Filter", key_display="/", tooltip="Show runs with these words in what is known of them"
        ),
        Binding("escape", "show_all", "All runs", show=False, tooltip="Show all runs again"),
        Binding(
            "o", "order", "Order", show=False, tooltip="Sort by age, state, loss, held-out loss, time, memory or model"
        ),
        Binding("space", "mark", "Mark", tooltip="Mark this run, to compare it with others"),
        Binding("v", "compare", "Compare", tooltip="Compare the marked runs: curves, settings, figures"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, RunSummary] = {}
        self._cells: dict[str, dict[str, Text]] = {}
        self._columns: dict[str, int] = {}
        self._devices: tuple[GpuReading, HostSnapshot] | None = None
        self._said: str | None = None
        self._watch: RunsWatch | None = None
        self._all: tuple[RunSummary, ...] = ()
        self._wanted = ""
        self._order = "newest"
        self._marked: set[str] = set()

    def compose(self) -> ComposeResult:
        """Lay out table and machine."""
        yield StepHeader(title="Runs")
        yield Static("", id="summary", markup=False)
        yield Input(placeholder="model, data, state, tag …", id="filter", compact=True)
        with Horizontal(id="body"):
            yield Static(WELCOME, id="welcome", markup=False)
            yield RunTable(cursor_type="row", id="runs")
        yield KeyFooter()

    @property
    def table(self) -> RunTable:
        """The table of runs."""
        return self.query_one(RunTable)

    def on_mount(self) -> None:
        """Begin to follow the runs and the machine."""
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
        self.call_after_refresh(self._leave_hidden_filter)

    def on_screen_suspend(self) -> None:
        """Rest while another screen is shown."""
        if self._watch is not None:
            self._watch.pause()

    def on_resize(self) -> None:
        """Show as many columns as there is room for, and the machine beside them."""
        width, height = self.size
        beside, below = width >= SIDE_FROM, height >= BELOW_FROM[1] and width >= BELOW_FROM[0]
        self.set_class(beside, "-side")
        self.set_class(below and not beside, "-below")
        if (beside or below) and not self.query("#side"):
            self._mount_machine()
        self._lay_columns()

    def _mount_machine(self) -> None:
        from tui_app.widgets.gpu_panel import GpuPanel

        self.query_one("#body").mount(VerticalScroll(GpuPanel(), id="side", can_focus=False))
        self.call_after_refresh(lambda: self._show_machine(self._devices))

    def on_runs_listed(self, message: messages.RunsListed) -> None:
        """Show the runs; only cells that changed are drawn again."""
        known = {run.id: run for run in self._all}
        for run in message.runs:
            before = known.get(run.id, run).state
            if said := call_for(run.id, before, run.state, run.failure or ""):
                self.post_message(messages.AttentionWanted((run.id, run.state, run.step), said))
        self._all = message.runs
        self._marked &= {run.id for run in message.runs}
        self._list()
        if any(run.id in known and known[run.id].state != run.state for run in message.runs):
            # What has ended can be asked, and no longer waits.
            self.refresh_bindings()

    def _list(self) -> None:
        runs = {run.id: run for run in listed(self._all, self._wanted, self._order)}
        reordered = list(runs) != list(self._runs)
        self._runs = runs
        self._summarize()
        if reordered:
            self._fill()
            return
        for name, run in runs.items():
            for column, cell in cells(run, marked=name in self._marked).items():
                if column in self._columns and self._cells[name][column] != cell:
                    self._cells[name][column] = cell
                    self.table.update_cell(name, column, cell)

    def _summarize(self) -> None:
        summary = counted(self._all)
        if self._wanted:
            summary += f", {words.number(len(self._runs))} with “{safe(self._wanted)}”"
        if self._order != "newest":
            summary += f", by {self._order}"
        if self._marked:
            summary += f", {len(self._marked)} marked"
        if summary == self._said:
            return
        self._said = summary
        self.query_one("#summary", Static).update(summary)
        self.set_class(not self._all, "-empty")
        self.call_after_refresh(self._leave_hidden_filter)
        self.refresh_bindings()

    def _leave_hidden_filter(self) -> None:
        # While there are no runs, there is no table to be on; keys must not go into a field that nobody sees.
        if not self.has_class("-filtering") and self._all:
            self.table.focus()

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
        self._cells = {name: cells(run, marked=name in self._marked) for name, run in self._runs.items()}
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
        if not self._cells:
            return None
        rows = list(self._cells)
        row = self.table.cursor_row
        return self._runs.get(rows[row]) if 0 <= row < len(rows) else None

    def on_data_table_row_selected(self) -> None:
        """Watch the run under the cursor."""
        from core.runs.folder import RunFolder

        if self.chosen is not None:
            self.post_message(messages.MonitorRequested(RunFolder(self.chosen.path)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        if action in ("filter", "order", "mark"):
            return bool(self._all)
        if action == "show_all":
            return self.has_class("-filtering")
        if action == "compare":
            return len(self._marked) > 1
        return super().check_action(action, parameters)

    def on_data_table_row_highlighted(self) -> None:
        """Offer what can be done with the run under the cursor."""
        self.refresh_bindings()

    def action_new(self) -> None:
        """Set up a run."""
        self.post_message(messages.StepRequested("model"))

    def action_starter(self) -> None:
        """Set up the built-in example."""
        self.post_message(messages.StarterRequested())

    def action_filter(self) -> None:
        """Ask which runs to show."""
        self.add_class("-filtering")
        self.refresh_bindings()
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the runs with these words, at every letter."""
        self._wanted = event.value.strip()
        self._list()

    def on_input_submitted(self) -> None:
        """Go to the runs that were found."""
        self._leave_filter()

    def action_show_all(self) -> None:
        """Leave the filter: all runs are shown again."""
        self.query_one(Input).value = ""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.set_class(bool(self._wanted), "-filtering")
        self.refresh_bindings()
        self.table.focus()

    def action_order(self) -> None:
        """Sort by the next thing."""
        names = list(ORDERS)
        self._order = names[(names.index(self._order) + 1) % len(names)]
        self._list()

    def action_mark(self) -> None:
        """Mark the run under the cursor, or take its mark away; go to the next one."""
        if (run := self.chosen) is None:
            return
        if run.id not in self._marked and len(self._marked) == MOST_COMPARED:
            self.notify(f"At most {MOST_COMPARED} runs are compared.")
            return
        self._marked ^= {run.id}
        self._list()
        self.table.action_cursor_down()

    def action_compare(self) -> None:
        """Compare the marked runs, the oldest first."""
        chosen = [run.path for run in reversed(self._all) if run.id in self._marked]
        self.post_message(messages.ComparisonRequested(tuple(chosen)))
