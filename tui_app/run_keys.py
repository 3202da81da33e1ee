"""The keys by which a run is asked for something, and what is asked back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.screen import Screen

from core.errors import SftuiError
from core.runs.checkpoints import DamagedCheckpointError
from core.runs.commands import parse_length, send
from core.runs.mending import mends_of
from core.runs.notes import add_note
from core.runs.state import RunState, status
from core.text import safe
from tui_app import messages
from tui_app.background import in_thread
from tui_app.dialogs.ask_text import AskText
from tui_app.dialogs.confirm import ConfirmDialog
from tui_app.follow import RunFollower
from tui_app.notes import LEAVE_QUEUE, Sent
from tui_app.starting import mend, resume

if TYPE_CHECKING:
    from core.runs.events import Command, Mend
    from core.runs.folder import RunFolder
    from core.runs.notes import Note


class RunKeys(Screen[None]):
    """A screen on one run: checkpoint, pause, stop, resume by keys, as far as the run's state allows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "checkpoint", "Checkpoint", tooltip="Write a checkpoint now"),
        Binding("p", "pause", "Pause", tooltip="Rest after this step, keeping the device; p again goes on"),
        Binding("P", "release", "Pause and free", show=False, tooltip="Save, end and free the device; p goes on later"),
        Binding("p", "go_on", "Go on", tooltip="Go on from here"),
        Binding("p", "push_in", "Start now", tooltip="Wait no longer: start beside whatever runs there"),
        Binding("r", "resume", "Resume", tooltip="Go on from the last checkpoint"),
        Binding("f", "mend", "Mend and go on", tooltip="Make the first change that saves memory, and go on from there"),
        Binding("n", "note", "Note", tooltip="Write a note to this run"),
        Binding("m", "length", "Length", show=False, tooltip="Train longer or shorter than was planned"),
        Binding("s", "stop", "Stop and save", tooltip="Stop after this step and save; twice: stop at once"),
    ]

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.state = RunState()
        self.alive = False
        self.notes: tuple[Note, ...] = ()
        self._sent: Sent | None = None
        self._follower = RunFollower(self, folder)

    def _tick(self) -> None:
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        live = self.alive and self.state.outcome is None
        current = status(self.state, alive=self.alive)
        if action == "stop":
            return live
        if action in ("checkpoint", "release", "length"):
            return live and current != "queued"
        if action == "pause":
            return live and current not in ("paused", "queued")
        if action == "push_in":
            return current == "queued"
        if action == "go_on":
            return current in ("paused", "released")
        if action == "mend":
            return bool(mends_of(self.state)) and not self.alive
        if action == "resume":
            return current in ("stopped", "failed", "interrupted") and not self.alive
        return True

    def action_checkpoint(self) -> None:
        """Ask for a checkpoint now."""
        self._send("checkpoint")

    def action_note(self) -> None:
        """Ask for a note."""

        def written(text: str | None) -> None:
            if text is not None:
                self._note(text)

        explanation = "It is kept with the run, and shown beside its choices."
        self.app.push_screen(
            AskText("Note", explanation, "", lambda text: "" if text.strip() else "Write something."), written
        )

    @work(group="notes")
    async def _note(self, text: str) -> None:
        try:
            await in_thread(lambda: add_note(self.folder, text))
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))
        self._tick()

    def action_length(self) -> None:
        """Ask how long the run is to be."""
        steps = self.state.max_steps

        def answered(text: str | None) -> None:
            length = parse_length(text) if text is not None else None
            if length is not None:
                self._send(*length)

        explanation = "It saves a checkpoint, and goes on from there with the schedule of the new length."
        dialog = AskText(
            "How long is it to train?",
            explanation,
            f"{steps or ''} steps",
            lambda text: "" if parse_length(text) else "Write “600 steps” or “2 epochs”.",
        )
        self.app.push_screen(dialog, answered)

    def action_pause(self) -> None:
        """Ask for a rest after this step."""
        self._send("pause")

    def action_release(self) -> None:
        """Ask to save, end and free the device for a while."""
        self._send("release")

    def action_go_on(self) -> None:
        """End the rest."""
        if self.alive:
            self._send("continue")
        else:
            self._resume()

    def action_push_in(self) -> None:
        """Ask whether to start the waiting run at once."""
        waits_for = self.state.queued.waits_for if self.state.queued else ""
        dialog = ConfirmDialog(
            "Start this run now?",
            f"It waits for {safe(waits_for)}. Both may run out of memory, or be slow.",
            "Start now",
            "Let it wait",
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._send("continue")

        self.app.push_screen(dialog, answered)

    def action_resume(self) -> None:
        """Go on from the last checkpoint."""
        self._resume()

    def action_mend(self) -> None:
        """Go on with the first mend; where that begins anew, ask before."""
        mends = mends_of(self.state)
        if not mends:
            return
        if not (mends[0].begins_anew and self.state.checkpoints):
            self._mend(mends[0])
            return
        dialog = ConfirmDialog(
            f"{safe(mends[0].title)}: begin anew?",
            "The checkpoints of this run do not go together with this change: they are deleted, and it starts over.",
            "Begin anew",
            "Leave it",
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._mend(mends[0])

        self.app.push_screen(dialog, answered)

    @work(group="commands", exclusive=True)
    async def _mend(self, change: Mend) -> None:
        try:
            await in_thread(lambda: mend(self.folder, change))
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))
        self._follower.wake()

    @work(group="commands", exclusive=True)
    async def _resume(self, step: int | None = None) -> None:
        try:
            await in_thread(lambda: resume(self.folder, step))
        except DamagedCheckpointError as error:
            self._offer_older(error)
        except (SftuiError, OSError) as error:
            self.post_message(messages.ErrorRaised(error))
        self._follower.wake()

    def _offer_older(self, error: DamagedCheckpointError) -> None:
        older = f"from step {error.good_step:,}" if error.good_step else "from the beginning"
        words = f"{safe(error.message)} The newest whole checkpoint is of step {error.good_step:,}."
        if not error.good_step:
            words = f"{safe(error.message)} No other checkpoint is whole."
        dialog = ConfirmDialog(f"{error.title}: go on {older}?", words, f"Go on {older}", "Leave it")

        def answered(yes: bool | None) -> None:
            if yes:
                self._resume(error.good_step)

        self.app.push_screen(dialog, answered)

    def action_stop(self) -> None:
        """Ask whether to stop; while it is stopping, whether to stop at once."""
        stopping = self.state.stop_requested or (self._sent is not None and self._sent.command == "stop")
        if stopping:
            dialog = ConfirmDialog(
                "Stop at once?",
                "The run is already stopping and saving. Stopping at once saves nothing more: what was learned since "
                "the last checkpoint is lost.",
                "Stop at once",
                "Let it save",
            )
        elif self.state.queued is not None:
            dialog = ConfirmDialog(*LEAVE_QUEUE)
        else:
            dialog = ConfirmDialog(
                "Stop this run?",
                "It finishes its step, saves a checkpoint and ends.",
                "Stop and save",
                "Let it run",
            )
        command: Command = "stop_now" if stopping else "stop"

        def answered(yes: bool | None) -> None:
            if yes:
                self._send(command)

        self.app.push_screen(dialog, answered)

    def _send(self, command: Command, value: float | None = None) -> None:
        self._sent = Sent(command, len(self.state.checkpoints))
        self._tick()
        self._deliver(self._sent, value)

    @work(group="commands")
    async def _deliver(self, sent: Sent, value: float | None) -> None:
        try:
            sent.id = await in_thread(lambda: send(self.folder, sent.command, value))
        except (SftuiError, OSError) as error:
            self._sent = None
            self.post_message(messages.ErrorRaised(error))
        self._tick()
