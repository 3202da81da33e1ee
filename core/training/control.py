"""What the runner's main thread asks of its worker thread."""

import threading


class StopRequestedError(Exception):
    """Raised in the worker between phases, when a stop was asked for before there was anything to save."""


class RunControl:
    """Requests from one thread to another; each stays until the worker takes it."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._checkpoint = threading.Event()
        self.stop_reason = ""

    def request_stop(self, reason: str) -> None:
        """Ask for stop-and-save; the first reason is kept."""
        if not self._stop.is_set():
            self.stop_reason = reason
            self._stop.set()

    def request_checkpoint(self) -> None:
        """Ask for a checkpoint after the current step."""
        self._checkpoint.set()

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def take_checkpoint_request(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        requested = self._checkpoint.is_set()
        self._checkpoint.clear()
        return requested

    def check(self) -> None:
        """Raise StopRequestedError if a stop was asked for."""
        if self.stop_requested:
            raise StopRequestedError
