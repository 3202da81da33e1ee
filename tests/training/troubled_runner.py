"""A runner whose worker hangs after three steps of twenty seconds by its clock, or waits for the file `end`.

python -m tests.training.troubled_runner hang|wait RUN_FOLDER
"""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.runs import events
from core.runs.folder import RunFolder
from core.training import runner, sampler
from core.training.control import RunControl
from core.training.watch import Pulse


class TroubledWorker(threading.Thread):
    """Trains nothing."""

    hangs = False

    def __init__(
        self,
        spec: Any,
        folder: RunFolder,
        emit: Callable[[events.Event], object],
        control: RunControl,
        resume_step: int | None,
    ) -> None:
        super().__init__(daemon=True)
        self.outcome: events.TerminalEvent | None = None
        self._folder, self._emit = folder, emit
        self._resume_step = resume_step
        self._now = 0.0
        control.pulse = self._pulse = Pulse(lambda: self._now)

    def run(self) -> None:
        """Do three steps, then nothing."""
        self._emit(events.ChoiceMade("checkpoint", str(self._resume_step), "as told"))
        for step in (1, 2, 3):
            self._pulse.begin_step()
            self._now += 20.0
            self._pulse.end_step()
            self._pulse.beat()
            self._emit(events.StepCompleted(step, 0.1, 2.0, 1e-4, 0.5, step, 1.0, 20.0))
        self._now += 201.0 if self.hangs else 1.0
        while not (self._folder.path / "end").exists():
            time.sleep(0.02)
        self.outcome = events.RunFinished(3, "adapter", 1.0)
        self._emit(self.outcome)


if __name__ == "__main__":
    TroubledWorker.hangs = sys.argv[1] == "hang"
    setattr(runner, "TrainingWorker", TroubledWorker)  # noqa: B010
    setattr(sampler, "_INTERVAL_SECONDS", 0.0)  # noqa: B010
    sys.exit(runner.Runner(RunFolder(Path(sys.argv[2]))).run())
