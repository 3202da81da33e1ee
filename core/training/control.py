"""What the runner's main thread asks of its worker thread."""


class StopRequestedError(Exception):
    """Raised in the worker between phases, when a stop was asked for before there was anything to save."""


class RunControl:
    """Requests from one thread to another; each stays until the worker takes it.

    Plain values and no lock: a signal handler asks too, and would wait forever for a lock that its own thread holds.
    """

    def __init__(self) -> None:
        self._stop = False
        self._checkpoint = False
        self.stop_reason = ""

    def request_stop(self, reason: str) -> None:
        """Ask for stop-and-save; the first reason is kept."""
        if not self._stop:
            self.stop_reason = reason
            self._stop = True

    def request_checkpoint(self) -> None:
        """Ask for a checkpoint after the current step."""
        self._checkpoint = True

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop

    def take_checkpoint_request(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        if not self._checkpoint:
            return False
        self._checkpoint = False
        return True

    def check(self) -> None:
        """Raise StopRequestedError if a stop was asked for."""
        if self.stop_requested:
            raise StopRequestedError
