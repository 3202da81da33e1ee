"""The keys that act on the run under the cursor of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from textual import work
from textual.binding import Binding, BindingType
from textual.screen import Screen

from core.text import human_bytes, safe
from tui_app import format as words
from tui_app import messages
from tui_app.background import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from core.runs.delete import Freed
    from core.runs.folder import RunSummary
    from core.runs.queue import Move
    from tui_app.follow import RunsWatch


class ChosenRunKeys(Screen[None]):
    """A screen with a run under its cursor: stop, resume, delete, clone, tag, note, move in the queue."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "Stop", tooltip="Stop the run and save a checkpoint; take it out of the queue"),
        # An ended run is not offered to be stopped; the key answers all the same.
        Binding("s", "refuse_stop", show=False),
        Binding("r", "resume", "Resume", tooltip="Go on with the run from its last checkpoint"),
        Binding("c", "clone", "Clone", tooltip="Set up a new run with this one's settings"),
        Binding("a", "use('ask')", "Ask it", tooltip="Ask what the run has made, beside its base model"),
        Binding("E", "use('export')", "Export", show=False, tooltip="Take what the run has made elsewhere"),
        Binding("D,delete", "delete", "Delete", show=False, tooltip="Delete the run, its checkpoints and its result"),
        Binding("T", "tag", "Tags", show=False, tooltip="Give the run words to find it by"),
        Binding("N", "note", "Note", show=False, tooltip="Write a note to the run"),
        Binding("P", "path", "Path", show=False, tooltip="Copy the path of the run's folder, and show it"),
        Binding("K,shift+up", "move('up')", "Sooner", tooltip="Let the waiting run go before the one before it"),
        Binding("J,shift+down", "move('down')", "Later", tooltip="Let the waiting run go behind the one behind it"),
    ]

    _watch: RunsWatch | None = None

    @property
    def chosen(self) -> RunSummary | None:
        """The run under the cursor."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done with the run under the cursor."""
        run = self.chosen
        if action == "move":
            return run is not None and run.place is not None
        if action == "resume":
            return run is not None and run.state in ("stopped", "failed", "interrupted", "released")
        if action == "use":
            return run is not None and run.state in words.ENDED
        if action == "stop":
            return run is not None and _can_stop(run)
        if action == "refuse_stop":
            return run is not None and not _can_stop(run)
        if action in ("clone", "delete", "tag", "note", "path"):
            return run is not None
        return True

    @work(group="commands")
    async def _do(self, task: Callable[[], object], said: Callable[[object], str] = lambda _: "") -> None:
        """Do something off the event loop, say what came of it, and look at the runs again."""
        from core.errors import SftuiError

        try:
            done = await in_thread(task)
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))
        else:
            if text := said(done):
                self.notify(text)
        if self._watch is not None:
            self._watch.wake()

    def action_move(self, how: Move) -> None:
        """Give the waiting run under the cursor another place."""
        from tui_app.queueing import move

        if (run := self.chosen) is not None:
            self._do(lambda: move(run.path, how), lambda place: f"{run.id} has place {place} in the queue.")

    def action_use(self, use: Literal["ask", "export"]) -> None:
        """Use what the run under the cursor has made."""
        from core.runs.folder import RunFolder

        if (run := self.chosen) is not None:
            self.post_message(messages.ResultWanted(RunFolder(run.path), use))

    def action_stop(self) -> None:
        """Ask whether to stop the run under the cursor."""
        from tui_app.dialogs.confirm import ConfirmDialog
        from tui_app.notes import LEAVE_QUEUE

        run = self.chosen
        if run is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: _send_stop(run.path))

        asked = (
            "Stop this run?",
            f"{safe(run.id)} finishes its step, saves a checkpoint and ends.",
            "Stop and save",
            "Let it run",
        )
        self.app.push_screen(ConfirmDialog(*(asked if run.place is None else LEAVE_QUEUE)), answered)

    def action_refuse_stop(self) -> None:
        """Say why there is nothing to stop."""
        if (run := self.chosen) is not None:
            self.notify(f"{run.id} is not running.")

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        from core.runs.folder import RunFolder
        from tui_app.starting import resume

        if (run := self.chosen) is not None:
            self._do(lambda: resume(RunFolder(run.path)), lambda _: f"{run.id} goes on.")

    def action_clone(self) -> None:
        """Set up a new run with the settings of the one under the cursor."""
        if (run := self.chosen) is not None:
            self.post_message(messages.CloneRequested(run.path))

    @work(group="delete", exclusive=True)
    async def action_delete(self) -> None:
        """Say what deleting frees, and ask."""
        from core.runs.delete import delete_run, size_of
        from core.runs.folder import RunFolder
        from tui_app.dialogs.confirm import ConfirmDialog

        run = self.chosen
        if run is None:
            return
        folder = RunFolder(run.path)
        freed: Freed = await in_thread(lambda: size_of(folder))

        def answered(yes: bool | None) -> None:
            if yes:
                self._do(lambda: delete_run(folder), lambda size: f"{run.id} is gone: {human_bytes(size)} are free.")

        text = f"{safe(run.id)} {freed.words()}. It cannot be taken back."
        if run.place is not None or words.is_live(run.state):
            self.notify(f"{run.id} is running: stop it first.")
        else:
            self.app.push_screen(ConfirmDialog("Delete this run?", text, "Delete it", "Keep it"), answered)

    def action_tag(self) -> None:
        """Ask for the tags of the run under the cursor."""
        from core.errors import SftuiError
        from core.runs.folder import RunFolder
        from core.runs.tags import parse_tags, write_tags
        from tui_app.dialogs.ask_text import AskText

        run = self.chosen
        if run is None:
            return

        def refuse(text: str) -> str:
            try:
                parse_tags(text)
            except SftuiError as error:
                return error.message
            return ""

        def written(text: str | None) -> None:
            if text is not None:
                self._do(lambda: write_tags(RunFolder(run.path), parse_tags(text)))

        explanation = "Words to find it by, apart by spaces. The filter (/) finds them."
        self.app.push_screen(AskText("Tags", explanation, safe(" ".join(run.tags)), refuse), written)

    def action_note(self) -> None:
        """Ask for a note to the run under the cursor."""
        from core.runs.folder import RunFolder
        from core.runs.notes import add_note
        from tui_app.dialogs.ask_text import AskText

        run = self.chosen
        if run is None:
            return

        def written(text: str | None) -> None:
            if text is not None:
                self._do(lambda: add_note(RunFolder(run.path), text), lambda _: "Noted; enter shows it.")

        explanation = "It is kept with the run, and shown beside its choices."
        asked = AskText("Note", explanation, "", lambda text: "" if text.strip() else "Write something.")
        self.app.push_screen(asked, written)

    def action_path(self) -> None:
        """Copy the path of the run's folder, for terminals that let programs do that, and show it."""
        if (run := self.chosen) is not None:
            self.app.copy_to_clipboard(str(run.path))
            self.notify(str(run.path), title="The run's folder")


def _can_stop(run: RunSummary) -> bool:
    return run.place is not None or words.is_live(run.state)


def _send_stop(path: Path) -> None:
    from core.runs.commands import send
    from core.runs.folder import RunFolder

    send(RunFolder(path), "stop")
