"""What the time of a training step goes into."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Of one step, in seconds."""

    data: float | None
    """Waited for its batches, before it began; None for the first one, which builds the whole pipeline."""
    total: float
    """From the first forward pass to the end of the optimizer's work."""
    optimizer: float


class StepClock:
    """Stopped and started by the trainer's callbacks. `settle` waits until the device has done what it was told."""

    def __init__(self, settle: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._settle = settle
        self._clock = clock
        self._waits_since: float | None = None
        self._data: float | None = None
        self._began = 0.0
        self._optimizer_began = 0.0
        self._optimizer = 0.0
        self._total = 0.0

    def wait(self) -> None:
        """From here on the next batch is waited for; the last call before a step counts."""
        self._waits_since = self._clock()

    def begin(self) -> None:
        """The batches are here."""
        self._began = self._clock()
        self._data = None if self._waits_since is None else self._began - self._waits_since
        self._waits_since = None

    def begin_optimizer(self) -> None:
        """Forward and backward passes are done."""
        self._settle()
        self._optimizer_began = self._clock()

    def end_optimizer(self) -> None:
        """The weights are new."""
        self._settle()
        self._optimizer = self._clock() - self._optimizer_began

    def end(self) -> None:
        """The step is done; what evaluating and saving take is not its own."""
        self._total = self._clock() - self._began

    @property
    def times(self) -> StepTimes:
        """Of the last step."""
        return StepTimes(self._data, self._total, self._optimizer)
