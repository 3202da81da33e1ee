"""Following a run from a plain program, to its end; Ctrl-C asks it to stop and save."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from core.errors import SftuiError
from core.runs import events
from core.runs.commands import send
from core.runs.events import Entry
from core.runs.folder import RunFolder
from core.runs.journal import JournalReader
from core.runs.state import RunState, reduce

_POLL_SECONDS = 0.1
_START_SECONDS = 60.0


class Interruption:
    """Signals to this process, turned into requests to the run."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._pending: list[events.Command] = []

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The first asks for stop-and-save, a second for an end at once."""
        self._pending.append("stop" if self.signal is None else "stop_now")
        self.signal = number

    def pass_on(self, folder: RunFolder) -> None:
        """Send what is pending; kept for later while the runner has not taken its lock yet."""
        while self._pending:
            try:
                send(folder, self._pending[0])
            except SftuiError:
                return
            self._pending.pop(0)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """SIGINT and SIGTERM go to the Interruption for as long as this lasts; a hang-up leaves the run alone."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(
    folder: RunFolder,
    tell: Callable[[Entry, RunState], None],
    interruption: Interruption,
    *,
    past: int = 0,
) -> RunState:
    """Tell every entry until the run has ended. A runner that dies without a word leaves a state without an outcome.

    `past` is the last entry of an earlier runner on the folder: it is known already, and that runner's end is not ours.
    """
    reader = JournalReader(folder.journal_file)
    state = RunState()
    seen_alive = False
    deadline = time.monotonic() + _START_SECONDS
    while state.outcome is None:
        alive = folder.is_alive()
        seen_alive = seen_alive or alive
        for entry in reader.read_new():
            state = reduce(state, entry)
            if entry.seq <= past:
                state = replace(state, outcome=None)
            else:
                tell(entry, state)
        if state.outcome is None and not alive:
            # Asked before reading: what a runner wrote before it let go of the lock has been read.
            if seen_alive or state.last_seq > past:
                return state
            if time.monotonic() > deadline:
                raise SftuiError(
                    "The runner did not start", f"Nothing was written for {_START_SECONDS:.0f} s.", _see(folder)
                )
        interruption.pass_on(folder)
        time.sleep(_POLL_SECONDS)
    return state


def exit_status(state: RunState, interruption: Interruption) -> int:
    """0 done or stopped by a command, 1 failed or interrupted, 128 + signal when a signal to us stopped it."""
    match state.outcome:
        case events.RunFinished():
            return 0
        case events.RunStopped():
            return 0 if interruption.signal is None else 128 + interruption.signal
        case _:
            return 1


def _see(folder: RunFolder) -> str:
    return f"See {folder.log_file}."
