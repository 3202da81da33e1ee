"""Reads GPUs and host in the background, at most once a second."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from core.text import human_bytes, safe
from tui_app.messages import ErrorRaised, MachineRead

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot

_PERIOD_SECONDS = 1.0


class MachineWatch:
    """A daemon thread that posts MachineRead to the app: a driver call may block, and must block nobody."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sftui-machine", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current reading; does not wait for a driver that hangs."""
        self._stopped.set()

    def _watch(self) -> None:
        from core.devices.gpu import GpuMonitor
        from core.devices.host import read_host
        from core.paths import runs_home

        monitor = GpuMonitor()
        while not self._stopped.is_set():
            try:
                reading = MachineRead(monitor.read(), read_host(runs_home()))
            except OSError as error:
                self._target.post_message(ErrorRaised(error))
                return
            if self._stopped.is_set():
                return
            self._target.post_message(reading)
            self._stopped.wait(_PERIOD_SECONDS)


def machine_line(gpus: GpuReading, host: HostSnapshot) -> str:
    """This host and its device in a few words: "gpu-box  H100 80GB HBM3"."""
    name = safe(socket.gethostname().split(".")[0])
    if not gpus.gpus:
        return f"{name}  CPU, {human_bytes(host.memory_total_bytes)}"
    first = safe(gpus.gpus[0].name).removeprefix("NVIDIA ")
    others = f" and {len(gpus.gpus) - 1} more" if len(gpus.gpus) > 1 else ""
    return f"{name}  {first}{others}"


def same_memory(before: tuple[GpuReading, HostSnapshot] | None, after: tuple[GpuReading, HostSnapshot]) -> bool:
    """Whether a plan made for `before` still holds: the same devices, with free memory within half a percent."""
    if before is None:
        return False

    def key(reading: GpuReading, host: HostSnapshot) -> list[object]:
        devices = [
            (gpu.uuid, gpu.lost, gpu.total_bytes, _coarse(gpu.free_bytes, gpu.total_bytes)) for gpu in reading.gpus
        ]
        return [*devices, reading.problem, _coarse(host.memory_available_bytes, host.memory_total_bytes)]

    return key(*before) == key(*after)


def _coarse(part: int | None, whole: int | None) -> int | None:
    return None if part is None or not whole else round(part / whole * 200)
