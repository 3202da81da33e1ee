"""How a run gets its device: at once, or when its turn has come; light, so that any number of runs can wait."""

import os
import time
from collections.abc import Callable, Collection

from core.devices.choose import acceptable_gpus, choose_device, device_name, gpu_name, lack_of_room
from core.devices.gpu import GpuMonitor, GpuSnapshot
from core.runs import queue
from core.runs.folder import RunFolder
from core.runs.queue import CPU, Ticket, needed_bytes

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
        gpus = acceptable_gpus(wish, self._monitor.read(), os.environ, self._needs_bytes)
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
        """The device with room, or the most free memory, and what it lacks for the run, if anything."""
        if among == (CPU,):
            return CPU, ""
        gpus = {device_name(gpu): gpu for gpu in self._monitor.read().gpus}
        lacks = {name: self._lack(name, gpus.get(name)) for name in among}
        best = max(among, key=lambda name: (not lacks[name], _free_bytes(gpus.get(name))))
        return best, lacks[best]

    def _lack(self, name: str, gpu: GpuSnapshot | None) -> str:
        return f"{self._names[name]}, which is not seen now" if gpu is None else lack_of_room(gpu, self._needs_bytes)

    def _who_is_before(self, place: queue.Place) -> str:
        where = " or ".join(self._names.values())
        return f"{where}, behind {place.behind.name}" if place.behind else where

    def _say(self, number: int, waits_for: str) -> None:
        # How much is free changes all the time: that it is too little is told once.
        key = number, waits_for.partition(", where")[0]
        if key != self._told:
            self._told = key
            self._tell(number, waits_for)


def take_device(folder: RunFolder, wish: str) -> str:
    """Take the device for a run that does not wait, so that those who do know of it. Raises SftuiError."""
    monitor = GpuMonitor()
    reading = monitor.read()
    monitor.close()

    def choose(taken: Collection[str]) -> str:
        needs_bytes = needed_bytes(folder)
        return device_name(choose_device(wish, reading, os.environ, needs_bytes=needs_bytes, taken=taken).gpu)

    try:
        return queue.take(folder.path, choose)
    except OSError:
        # A full disk keeps nobody from training.
        return choose(())


def _free_bytes(gpu: GpuSnapshot | None) -> int:
    return -1 if gpu is None or gpu.lost else gpu.free_bytes or 0
