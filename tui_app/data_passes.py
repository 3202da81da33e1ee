"""The pass over the rows that the draft names, in a process of its own: how far it is, what it found, and its stop."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from core.errors import SftuiError
from tui_app.messages import DataMoved, DataRead, ErrorRaised

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from core.data.check_process import CheckProcess
    from core.data.request import CheckRequest

READ_DELAY_SECONDS = 0.15
"""How long typing must pause before what it names is read."""
STOPPED = SftuiError("The reading was stopped", "Nothing is known of these rows yet.", "^r reads them.")


class DataPasses:
    """Checks rows in daemon threads, one pass at a time, and posts DataMoved and DataRead to the app."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._pass: _Pass | None = None

    def check(self, request: CheckRequest) -> None:
        """Check these rows, unless that goes on already; another pass is given up."""
        if self._pass is not None and self._pass.request == request and self._pass.is_alive():
            return
        self.give_up()
        self._pass = _Pass(self._target, request)
        self._pass.start()

    def stop(self) -> None:
        """Stop the pass that goes on, and tell of it."""
        if self._pass is not None and self._pass.is_alive():
            self._pass.stop(told=True)

    def give_up(self) -> None:
        """Stop the pass that goes on; nobody wants to know of it any more."""
        if self._pass is not None and self._pass.is_alive():
            self._pass.stop(told=False)


class _Pass(threading.Thread):
    def __init__(self, target: MessagePump, request: CheckRequest) -> None:
        super().__init__(name="sftui-check", daemon=True)
        self._target = target
        self.request = request
        self._stopped = threading.Event()
        self._told = True
        self._lock = threading.Lock()
        self._process: CheckProcess | None = None

    def stop(self, *, told: bool) -> None:
        """End it soon; returns at once."""
        with self._lock:
            self._told = told
            self._stopped.set()
            process = self._process
        if process is not None:
            threading.Thread(target=process.cancel, name="sftui-check-end", daemon=True).start()

    def run(self) -> None:
        """The thread's body."""
        from core.data.check import StoppedError
        from core.data.check_process import CheckProcess

        if self._stopped.wait(READ_DELAY_SECONDS):
            self._tell(DataRead(self.request, None, STOPPED))
            return
        try:
            process = CheckProcess(self.request)
            with self._lock:
                self._process = process
                stopped = self._stopped.is_set()
            if stopped:
                process.cancel()
            for progress in process:
                self._tell(DataMoved(self.request, progress))
            read = DataRead(self.request, process.facts())
        except StoppedError:
            read = DataRead(self.request, None, STOPPED)
        except SftuiError as error:
            read = DataRead(self.request, None, error)
        except Exception as error:  # noqa: BLE001 - a defect must not leave the screen waiting
            found = SftuiError("The rows cannot be checked", f"{type(error).__name__}: {error}")
            read = DataRead(self.request, None, found)
            self._tell(ErrorRaised(error))
        self._tell(read)

    def _tell(self, message: DataMoved | DataRead | ErrorRaised) -> None:
        # The loop is closed when the app has ended in the meantime.
        if self._told:
            with contextlib.suppress(RuntimeError):
                self._target.post_message(message)
