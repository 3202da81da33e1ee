"""The pass over a dataset in a process of its own, so that the app never feels it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from core import paths
from core.data.check import Stop, StoppedError, Tell, kept_facts
from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest
from core.errors import SftuiError

_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The folder that the user happens to be in may hold a json.py.
    "PYTHONSAFEPATH": "1",
}


def check_apart(request: CheckRequest, progress: Tell = lambda _: None, stop: Stop = lambda: False) -> DataFacts:
    """What `check` finds, by a process of its own: a library that dies of a damaged file does not take ours along.

    What is known already is told at once. Raises SftuiError for sources that cannot be read; StoppedError soon after
    `stop()` is true.
    """
    facts = kept_facts(request, progress, stop)
    if facts is not None:
        return facts
    process = CheckProcess(request)
    try:
        for at in process:
            progress(at)
            if stop():
                process.cancel()
        return process.facts()
    finally:
        process.cancel()


class CheckProcess:
    """A running check. One thread reads how far it is and what it found; any thread may cancel it."""

    def __init__(self, request: CheckRequest) -> None:
        """Start the process; returns at once. Raises OSError if there is no room for a process or its log."""
        folder = paths.state_home()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with paths.open_log(folder / "data.log") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.data.checking"],
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._log = folder / "data.log"
        self._facts: DataFacts | None = None
        self._error: SftuiError | None = None
        self._cancelled = False
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request.to_json()).encode() + b"\n")
            self._process.stdin.flush()

    def __iter__(self) -> Iterator[Progress]:
        """How far it is, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                # The process died while it answered.
                break
            told = json.loads(line)
            if "progress" in told:
                yield Progress(**told["progress"])
            elif "facts" in told:
                self._facts = DataFacts.from_json(told["facts"])
            else:
                self._error = SftuiError(**told["error"])
        self._process.stdout.close()
        self._close_input()
        self._process.wait()

    def facts(self) -> DataFacts:
        """What it found; waits for its end. Raises SftuiError if the data cannot be read; StoppedError if cancelled."""
        if self._process.returncode is None:
            for _ in self:
                pass
        if self._facts is not None:
            return self._facts
        if self._cancelled:
            raise StoppedError
        if self._error is not None:
            raise self._error
        raise SftuiError("The data could not be read", self._last_words(), f"{self._log} says more.")

    def cancel(self) -> None:
        """End it; at once, and leaving nothing half done. Does nothing to one that has ended."""
        self._cancelled = True
        self._close_input()

    def _last_words(self) -> str:
        status = self._process.returncode
        if status >= 0:
            return f"The process that reads it ended with status {status}."
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            if -status == signal.SIGKILL:
                return f"The process that reads it was killed ({name}): by hand, or because memory ran out."
            return f"The process that reads it died ({name}): a library fails on this file, which may be damaged."
        return f"The process that reads it died of signal {-status}."

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
