"""What the runner's main thread asks of its worker thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from core.training.watch import Pulse

_WAIT_SECONDS = 0.05


class StopRequestedError(Exception):
    """Raised in the worker between phases, when a stop was asked for before there was anything to save."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is to be: by steps, or by epochs."""

    max_steps: int | None
    epochs: float | None


class RunControl:
    """Requests from one thread to another; each stays until the worker takes it.

    Plain values and no lock: a signal handler asks too, and would wait forever for a lock that its own thread holds.
    """

    def __init__(self) -> None:
        self._stop = False
        self._checkpoint = False
        self._sample = False
        self._pause = False
        self._try_again = False
        self._release = False
        self._length: Length | None = None
        self._good_step: int | None = None
        self.pulse = Pulse()
        self.stop_reason = ""
        self.pause_reason = ("", "")

    def request_stop(self, reason: str, *, release: bool = False) -> None:
        """Ask for stop-and-save; the first reason is kept. `release` says that the run is to go on later."""
        if not self._stop:
            self.stop_reason = reason
            self._release = release
            self._stop = True

    def request_checkpoint(self) -> None:
        """Ask for a checkpoint after the current step."""
        self._checkpoint = True

    def request_sample(self) -> None:
        """Ask for answers to the sample prompts after the current step."""
        self._sample = True

    def take_sample_request(self) -> bool:
        """Whether answers were asked for since the last call."""
        asked, self._sample = self._sample, False
        return asked

    def request_length(self, length: Length) -> None:
        """Ask for a longer or shorter run; the last word counts."""
        self._length = length

    @property
    def length_requested(self) -> bool:
        """Whether another length was asked for."""
        return self._length is not None

    def take_length(self) -> Length | None:
        """The length that was asked for since the last call."""
        length, self._length = self._length, None
        return length

    def forbid_saving(self, good_step: int) -> None:
        """Let nothing more be saved: the weights of all steps after `good_step` are in doubt."""
        self._good_step = good_step if self._good_step is None else min(good_step, self._good_step)

    def request_pause(self, reason: str = "by request", message: str = "") -> None:
        """Ask for a rest after the current step; the process and all that it holds stay. The first reason is kept."""
        if not self._pause:
            self.pause_reason = (reason, message)
            self._pause = True

    def request_continue(self) -> None:
        """Ask to go on after a rest, and to try again what the worker waits for."""
        self._pause = False
        self._try_again = True

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop

    @property
    def may_save(self) -> bool:
        """Whether the weights are worth keeping."""
        return self._good_step is None

    @property
    def good_step(self) -> int | None:
        """The last step whose weights are beyond doubt; None while all are."""
        return self._good_step

    @property
    def pause_requested(self) -> bool:
        """Whether a rest was asked for, and no going on since."""
        return self._pause and not self._stop

    @property
    def releases(self) -> bool:
        """Whether the stop that was asked for only frees the device for a while."""
        return self._release

    def take_checkpoint_request(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        if not self._checkpoint:
            return False
        self._checkpoint = False
        return True

    def rest(self) -> None:
        """Return when the pause is over, or a stop is asked for."""
        self.pulse.rest()
        while self.pause_requested:
            time.sleep(_WAIT_SECONDS)
        self.pulse.beat()

    def wait_for(self, is_ready: Callable[[], bool], seconds: float) -> bool:
        """Return True as soon as `is_ready` says so, when told to try again, or after `seconds`; False for a stop."""
        self._try_again = False
        end = time.monotonic() + seconds
        while not self._stop:
            if self._try_again or time.monotonic() >= end or is_ready():
                return True
            time.sleep(_WAIT_SECONDS)
        return False

    def check(self) -> None:
        """Raise StopRequestedError if a stop was asked for."""
        if self.stop_requested:
            raise StopRequestedError
