"""What the screens know of the queue, and change in it; all of it for a background thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.devices.gpu import GpuReading
    from core.runs.queue import Move


def move(run: Path, how: Move) -> int:
    """Let a waiting run go before or behind another; returns its new place. Raises SftuiError or OSError."""
    from core.runs import queue

    return queue.move(run, how).number


def before_a_new_run(wish: str, gpus: GpuReading, needs_bytes: int | None) -> str:
    """The run that a new one would wait for on its device; empty if none is there."""
    from core.devices.choose import acceptable_gpus, device_name
    from core.errors import SftuiError
    from core.runs.queue import CPU, Ticket, place_of, tickets

    try:
        devices = tuple(device_name(gpu) for gpu in acceptable_gpus(wish, gpus, os.environ, needs_bytes))
    except SftuiError:
        return ""
    new = Ticket(Path(), devices or (CPU,))
    place = place_of(new.run, (*tickets(), new))
    return place.behind.name if place is not None and place.behind is not None and not place.open else ""
