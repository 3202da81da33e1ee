"""A run's wait for its turn on a device; light, so that any number of runs can wait."""

import json
import os
import time
from collections.abc import Callable

from core.devices.choose import acceptable_gpus, device_name, gpu_name, lack_of_room
from core.devices.gpu import GpuMonitor, GpuSnapshot
from core.runs import queue
from core.runs.folder import RunFolder
from core.runs.queue import CPU, Ticket

_LOOK_SECONDS = 0.5


class Wait:
    """Call `is_over` often; what the run waits for is told when it changes: its place (1 is next), and words."""

    def __init__(self, folder: RunFolder, wish: str, tell: Callable[[int, str], None]) -> None:
        """Raises SftuiError if there is no such device to wait for."""
        self._run = folder.path
        self._tell = tell
        self._told: tuple[int, str] | None = None
        self._needs_bytes = needed_bytes(folder)
        self._monitor = GpuMonitor()
        self._look_at = 0.0
        gpus = acceptable_gpus(wish, self._monitor.read(), os.environ)
        self._names = {device_name(gpu): gpu_name(gpu) for gpu in gpus} or {CPU: "the CPU"}
        self.device = ""
        """The device that the run has got; empty before."""

    def is_over(self, *, push_in: bool = False) -> bool:
        """Whether the run has its device now; with `push_in` it does not wait for others. Raises OSError."""
        if time.monotonic() < self._look_at and not push_in:
            return False
        self._look_at = time.monotonic() + _LOOK_SECONDS
        place = queue.place_of(self._run, queue.tickets())
        if place is None:
            queue.enter(Ticket(self._run, tuple(self._names)))
            place = queue.place_of(self._run, queue.tickets())
            if place is None:
                return False
        lack = ""
        if place.open or push_in:
            device, lack = self._free_device(tuple(self._names) if push_in else place.open)
            if (push_in or not lack) and queue.claim(self._run, device, push_in=push_in):
                self.device = device
                self._monitor.close()
                return True
        self._say(place.number, lack or self._who_is_before(place))
        return False

    def _free_device(self, among: tuple[str, ...]) -> tuple[str, str]:
        """The device with the most free memory, and what it lacks for the run, if anything."""
        if among == (CPU,):
            return CPU, ""
        gpus = {device_name(gpu): gpu for gpu in self._monitor.read().gpus}
        best = max(among, key=lambda name: _free_bytes(gpus.get(name)))
        gpu = gpus.get(best)
        if gpu is None:
            return best, f"{self._names[best]}, which is not seen now"
        return best, lack_of_room(gpu, self._needs_bytes)

    def _who_is_before(self, place: queue.Place) -> str:
        where = " or ".join(self._names.values())
        return f"{where}, behind {place.behind.name}" if place.behind else where

    def _say(self, number: int, waits_for: str) -> None:
        # How much is free changes all the time: that it is too little is told once.
        key = number, waits_for.partition(", where")[0]
        if key != self._told:
            self._told = key
            self._tell(number, waits_for)


def needed_bytes(folder: RunFolder) -> int | None:
    """The memory that the plan predicts for the run, if it does so for all of it."""
    try:
        memory = json.loads(folder.plan_file.read_bytes())["memory"]
        return int(memory["total_bytes"]) if memory["total_is_complete"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def device_of(wish: str) -> str | None:
    """The device that this process was started for; None where nobody has chosen one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return CPU if wish == "cpu" or visible == "" else visible


def _free_bytes(gpu: GpuSnapshot | None) -> int:
    return -1 if gpu is None or gpu.lost else gpu.free_bytes or 0
