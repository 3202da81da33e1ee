"""What a run held over time, on each of its machine's GPUs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tui_app.charts.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.runs.state import MemorySample


class MemoryHistory:
    """Grown with the samples of a run; bytes over the seconds since the first one."""

    def __init__(self) -> None:
        self.taken = 0
        self.run = Pyramid()
        """Of the runner's process, in the host's memory."""
        self.gpus: defaultdict[int, tuple[Pyramid, Pyramid]] = defaultdict(lambda: (Pyramid(), Pyramid()))
        """By the GPU's index: what the run holds of it, where that is known, and what all hold."""
        self._began = 0.0

    def take(self, samples: Sequence[MemorySample]) -> None:
        """Add those that are new."""
        if samples and not self.taken:
            self._began = samples[0].time
        new = samples[self.taken :]
        self.taken = len(samples)
        self.run.extend((one.time - self._began, one.use.process_bytes) for one in new)
        for index in {gpu.index for one in new for gpu in one.use.gpus}:
            own, used = self.gpus[index]
            here = [(one.time - self._began, gpu) for one in new for gpu in one.use.gpus if gpu.index == index]
            own.extend((when, gpu.own_bytes) for when, gpu in here if gpu.own_bytes is not None)
            used.extend((when, gpu.used_bytes) for when, gpu in here)
