"""The app: it wires screens, draft, runs and signals together, and decides nothing else."""

from __future__ import annotations

import asyncio
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work
from textual.binding import Binding
from textual.reactive import var

from core.errors import SftuiError
from core.text import safe
from tui_app import alerts, downloads, messages, starting
from tui_app.background import in_thread
from tui_app.drafting import DraftingApp
from tui_app.machine import MachineWatch
from tui_app.steps import SCREENS, STEPS
from tui_app.terminal import leave_for_certain, terminal_is_gone
from tui_app.theme import SFTUI_DARK

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from core.memory.plan import Plan
    from core.runs.folder import RunFolder
    from core.runs.launch import WarmRunner
    from core.spec.run_spec import RunSpec
    from tui_app.downloads import DownloadState

_HERE = Path(__file__).parent
TERMINAL_CHECK_SECONDS = 2.0


def _command_provider() -> type[Any]:
    from tui_app.commands import ActionProvider

    return ActionProvider


class SftuiApp(DraftingApp):
    """The terminal application.

    Screens are imported when they are first shown, so that the first frame pays for the list of runs alone. The
    set-up screens post DraftChanged and watch `draft`; they never hold what was typed themselves.
    """

    TITLE = "sftui"
    # The first screen's styles are read with the app's: Textual reads those of later screens as they come.
    CSS_PATH = [_HERE / "app.tcss", _HERE / "screens" / "runs.tcss"]
    COMMANDS = {_command_provider}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (160, "-very-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]
    SCREENS = SCREENS
    BINDINGS = [
        *(
            Binding(
                str(number),
                f"step('{step}')",
                step.title(),
                show=False,
                tooltip="The steps of the set-up: model, data, precision, training, review",
            )
            for number, step in enumerate(STEPS, 1)
        ),
        Binding("h", "home", "Runs", show=False, tooltip="All runs"),
        Binding("escape", "go_back", "Back", show=False, tooltip="Back to where you came from"),
        Binding("question_mark", "explain", "Help", key_display="?", tooltip="The keys of this screen"),
        Binding("q", "quit", "Quit", tooltip="Leave; runs go on"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="Leave; runs go on"),
    ]

    download: var[DownloadState | None] = var(None)
    """The download that is going on, or the last one."""

    def __init__(
        self,
        *,
        draft_values: dict[str, Any] | None = None,
        open_screen: str = "runs",
        run: RunFolder | None = None,
        warm: bool = True,
    ) -> None:
        super().__init__(draft_values)
        self._open_screen = open_screen
        self._run = run
        self._wants_warm = warm
        self._keeps_warm = False
        self._warming = False
        self._starting = False
        self._machine_watch = MachineWatch(self)
        self._called: tuple[str, str, int] | None = None
        self.downloads = downloads.Downloads(self)
        self.register_theme(SFTUI_DARK)
        self.theme = SFTUI_DARK.name

    def get_default_screen(self) -> Screen[Any]:
        """Start with the list of runs."""
        from tui_app.screens.runs import RunsScreen

        return RunsScreen()

    def on_mount(self) -> None:
        """Open the wanted screen, then start what is slow."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave_on_signal, number)
        if self._open_screen == "monitor" and self._run is not None:
            self.open_monitor(self._run)
        elif self._open_screen in STEPS:
            self.action_step(self._open_screen)
        self.call_after_refresh(self._after_first_frame)

    def on_unmount(self) -> None:
        """Stop the threads and let an idle warm runner end."""
        self._machine_watch.stop()
        self.downloads.cancel()
        self.data_passes.give_up()
        self.token_passes.stop()
        if self.warm is not None:
            self.warm.close()

    def _after_first_frame(self) -> None:
        if not self.is_headless:
            self.set_interval(TERMINAL_CHECK_SECONDS, self._leave_without_terminal)
        self._machine_watch.start()
        self._keeps_warm = self._wants_warm
        self._keep_warm()

    def _keep_warm(self) -> None:
        ready = self.warm is not None and self.warm.is_idle
        if self._keeps_warm and not ready and not self._warming:
            self._warming = True
            self._start_warm()

    @work(group="warm")
    async def _start_warm(self) -> None:
        try:
            self.warm = await in_thread(starting.start_warm)
        finally:
            self._warming = False

    def _leave_on_signal(self, number: signal.Signals) -> None:
        leave_for_certain(128 + number)
        self.exit(return_code=128 + number)

    def _leave_without_terminal(self) -> None:
        if terminal_is_gone():
            self._leave_on_signal(signal.SIGHUP)

    # Moving between screens.

    def action_step(self, step: str) -> None:
        """Go to a step of the set-up."""
        self._ensure_draft()
        # A run may have taken the warm runner there was.
        self._keep_warm()
        if len(self.screen_stack) > 1:
            self.switch_screen(step)
        else:
            self.push_screen(step)

    def action_home(self) -> None:
        """Go to the list of runs."""
        while len(self.screen_stack) > 1:
            self.pop_screen()

    def action_go_back(self) -> None:
        """Go one step back, from the first one home."""
        made = self._installed_screens
        step = next((name for name in STEPS if made.get(name) is self.screen), STEPS[0])
        if step == STEPS[0]:
            self.action_home()
        else:
            self.action_step(STEPS[STEPS.index(step) - 1])

    def open_monitor(self, folder: RunFolder) -> None:
        """Watch a run."""
        from tui_app.screens.monitor import MonitorScreen

        screen = MonitorScreen(folder)
        if len(self.screen_stack) > 1:
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def action_explain(self) -> None:
        """Explain the screen one is on."""
        from tui_app.dialogs.command_help import CommandHelp

        self.push_screen(CommandHelp(self.screen))

    async def action_quit(self) -> None:
        """Leave; runs go on by themselves."""
        self.exit(return_code=0)

    def on_download_moved(self, message: messages.DownloadMoved) -> None:
        """Show how far the download is; read the model when it is here."""
        self.download = message.state
        if message.state.phase == "done":
            self.post_message(messages.ModelChanged(message.state.model_id))
        if not message.state.is_active and self.screen is not self._installed_screens.get("model"):
            self.notify(downloads.in_words(message.state), markup=False)

    # What screens ask for.

    def on_step_requested(self, message: messages.StepRequested) -> None:
        """Go where a screen wants to go."""
        self.action_step(message.step)

    def on_monitor_requested(self, message: messages.MonitorRequested) -> None:
        """Watch a run."""
        self.open_monitor(message.folder)

    def on_home_requested(self) -> None:
        """Go to the list of runs."""
        self.action_home()

    def on_starter_requested(self) -> None:
        """Set up the built-in example."""
        self.action_starter()

    def action_starter(self) -> None:
        """Fill the draft from the built-in model and show it for review."""
        from core.spec.presets import PRESETS
        from tui_app.draft import Draft

        self._set_draft(Draft.of(PRESETS["starter"].values))
        self.action_step("review")

    def on_clone_requested(self, message: messages.CloneRequested) -> None:
        """Fill the draft from a run and show it for review; its name stays its own."""
        from core.runs.folder import RunFolder
        from tui_app.draft import Draft

        try:
            values = RunFolder(message.path).spec_values()
        except (SftuiError, OSError) as error:
            self.show_error(error)
            return
        self._set_draft(Draft.of(values))
        self.action_step("review")

    def on_comparison_requested(self, message: messages.ComparisonRequested) -> None:
        """Show runs beside each other."""
        from core.runs.folder import RunFolder
        from tui_app.screens.compare_runs import CompareRunsScreen

        self.push_screen(CompareRunsScreen(tuple(RunFolder(path) for path in message.paths)))

    def on_result_wanted(self, message: messages.ResultWanted) -> None:
        """Ask what a run has made, or export it, over the screen one is on."""
        if message.use == "export":
            from tui_app.screens.export import ExportScreen

            self.push_screen(ExportScreen(message.folder))
        else:
            from tui_app.screens.compare import CompareScreen

            self.push_screen(CompareScreen(message.folder))

    def take_warm(self) -> WarmRunner | None:
        """Give away the warm runner, as to a run; the next set-up starts another. None if there is none."""
        warm, self.warm = self.warm, None
        return warm if warm is not None and warm.is_idle else None

    def on_attention_wanted(self, message: messages.AttentionWanted) -> None:
        """Call somebody back, once however many screens have seen it."""
        if message.run != self._called:
            self._called = message.run
            alerts.ring(self, message.words)

    def on_error_raised(self, message: messages.ErrorRaised) -> None:
        """Show an error to read."""
        self.show_error(message.error)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a message for a while; all of them may hold foreign words, which are made safe and are never markup."""
        message, title = safe(message, keep_newlines=True), safe(title)
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def _fatal_error(self) -> None:
        # Textual would print all local variables: foreign texts as they are, and what must be written nowhere.
        from rich.text import Text

        from tui_app.dialogs.error import defect

        error = sys.exc_info()[1]
        self.panic(Text("\n".join(defect(error)) if error else "sftui ended without a reason."))

    def show_error(self, error: BaseException) -> None:
        """Show an error in words, over the screen it happened on."""
        from tui_app.dialogs.error import ErrorDialog

        self.push_screen(ErrorDialog.of(error))

    def on_start_requested(self, message: messages.StartRequested) -> None:
        """Start a run, once however often the key was pressed."""
        if self._starting:
            return
        self._starting = True
        self._start(message.spec, message.plan, queue=message.queue)

    @work(group="start")
    async def _start(self, spec: RunSpec, plan: Plan | None, *, queue: bool) -> None:
        warm = self.warm
        try:
            folder = await in_thread(partial(starting.start, spec, plan, warm, queue=queue))
        except (SftuiError, OSError) as error:
            self.show_error(error)
        else:
            if self.warm is warm and not queue:
                self.warm = None
            self.action_home()
            self.open_monitor(folder)
        finally:
            self._starting = False
