"""Whether a model has room beside what is in memory already. Light."""

import os
from pathlib import Path

from core.devices.choose import visible_gpus
from core.devices.gpu import GpuMonitor
from core.devices.host import read_host
from core.text import human_bytes

_ROOM = 0.8
"""The share of the free memory that weights may take; the rest is for working with them."""


def lack_of_room(size: int, device: str) -> str:
    """What it would take and what is free, to go on with "the model …"; empty where so many bytes have room."""
    if device == "cpu":
        free = read_host(Path("/")).memory_available_bytes
    else:
        monitor = GpuMonitor()
        gpus = visible_gpus(monitor.read().gpus, os.environ)
        monitor.close()
        # The process sees the one that it was given.
        free = max((gpu.free_bytes or 0 for gpu in gpus), default=0)
    if size <= free * _ROOM:
        return ""
    return f"takes {human_bytes(size)} of memory, and {human_bytes(free)} are free"
