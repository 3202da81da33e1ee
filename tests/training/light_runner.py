"""A runner whose worker trains nothing: it ends as the file `end` in its folder says, or when it is told to stop."""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from core.runs import events
from core.runs.folder import RunFolder
from core.training import runner
from core.training.control import RunControl


class LightWorker(threading.Thread):
    """Tells which device it sees, and waits for its end."""

    def __init__(
        self, spec: Any, folder: RunFolder, emit: Callable[[events.Event], object], control: RunControl, *_: Any
    ) -> None:
        super().__init__(daemon=True)
        self.outcome: events.TerminalEvent | None = None
        self._folder, self._emit, self._control = folder, emit, control

    def run(self) -> None:
        """Wait, end."""
        self._emit(events.ChoiceMade("device", os.environ.get("CUDA_VISIBLE_DEVICES", "none chosen"), "as seen"))
        end = self._folder.path / "end"
        while not end.exists() and not self._control.stop_requested:
            time.sleep(0.02)
        if self._control.stop_requested:
            self.outcome = events.RunStopped(0, None, self._control.stop_reason, 1.0)
        elif "fail" in end.read_text():
            self.outcome = events.RunFailed("Broken", "It broke", "As it was told to.", "", None, 0, 1.0)
        else:
            self.outcome = events.RunFinished(0, "adapter", 1.0)
        self._emit(self.outcome)


if __name__ == "__main__":
    setattr(runner, "TrainingWorker", LightWorker)  # noqa: B010
    sys.exit(runner.main())
