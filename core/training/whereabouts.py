"""What the worker was at, for whoever has to say why it failed. Light: it is made before torch is imported."""

from dataclasses import dataclass
from typing import Protocol

from core.devices.gpu import GpuSnapshot
from core.runs.events import PeakMeasured


class Meter(Protocol):
    """Measures what the run holds."""

    def look(self, step: int) -> PeakMeasured:
        """The peak until now."""


@dataclass(slots=True)
class Whereabouts:
    """Written by the worker's thread as it gets on."""

    phase: str = "preparing"
    step: int = 0
    steps_done: int = 0
    """Since this start."""
    peak: PeakMeasured | None = None
    """As it was last told."""
    batch_rows: int | None = None
    """Of the batch that is worked on, as the model sees it; its tokens with their padding."""
    batch_tokens: int | None = None
    gpu: GpuSnapshot | None = None
    """The run's GPU as it was before the run put anything on it; None on a CPU."""
    driver: str | None = None
    """Its version."""
    meter: Meter | None = None
    """From the moment that the model is loaded."""
    longest_tokens: int | None = None
    """Of the longest row, or packed sequence, of the training data."""
