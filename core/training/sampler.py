"""What the runner, its host and its GPUs hold, as an event, at most once a second and only when it moved."""

import os
import time
from pathlib import Path

from core.devices.choose import visible_gpus
from core.devices.gpu import GpuMonitor, GpuReading, GpuSnapshot
from core.devices.host import HostSnapshot, process_memory_bytes, read_host
from core.runs.events import GpuUse, MemorySampled
from core.training.watch import GpuHealth, MachineFacts

_INTERVAL_SECONDS = 1.0
_AT_LEAST_EVERY_SECONDS = 10.0
_MOVED_SHARE = 0.01


class MemorySampler:
    """Call `sample` often; it answers when there is something new to tell."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._monitor = GpuMonitor(watches_errors=True)
        self._next_at = 0.0
        self._told_at = 0.0
        self._told: MemorySampled | None = None
        self._seen: tuple[HostSnapshot, GpuReading] | None = None

    def sample(self) -> MemorySampled | None:
        """What is held now; None if a second has not passed, or if nothing moved by 1 % for less than ten seconds."""
        now = time.monotonic()
        if now < self._next_at:
            return None
        self._next_at = now + _INTERVAL_SECONDS
        read = self._read()
        if now - self._told_at < _AT_LEAST_EVERY_SECONDS and self._told and not _moved(self._told, read):
            return None
        self._told, self._told_at = read, now
        return read

    def take_facts(self, checkpoint_bytes: int) -> MachineFacts | None:
        """How the machine is, for a watch, with what the last checkpoint took; None if nothing was read since."""
        if self._seen is None:
            return None
        (host, reading), self._seen = self._seen, None
        return MachineFacts(
            memory_available_bytes=host.memory_available_bytes,
            memory_total_bytes=host.memory_total_bytes,
            disk=str(self._folder),
            disk_free_bytes=host.disk_free_bytes,
            checkpoint_bytes=checkpoint_bytes,
            gpus=tuple(_health(gpu) for gpu in visible_gpus(reading.gpus, os.environ)),
        )

    def _read(self) -> MemorySampled:
        host, reading = self._seen = read_host(self._folder), self._monitor.read()
        return MemorySampled(
            process_bytes=process_memory_bytes(os.getpid()) or 0,
            host_used_bytes=host.memory_used_bytes,
            host_total_bytes=host.memory_total_bytes,
            cpu_percent=host.cpu_percent,
            gpus=tuple(_use(gpu) for gpu in reading.gpus if gpu.total_bytes and gpu.used_bytes is not None),
        )


def _health(gpu: GpuSnapshot) -> GpuHealth:
    return GpuHealth(
        name=f"GPU {gpu.index}",
        lost=gpu.lost,
        slowed_by=gpu.slowed_by or (),
        temperature_celsius=gpu.temperature_celsius,
        memory_errors=gpu.memory_errors,
        errors=gpu.errors,
    )


def _use(gpu: GpuSnapshot) -> GpuUse:
    own = [process.used_bytes for process in gpu.processes or () if process.pid == os.getpid()]
    return GpuUse(
        index=gpu.index,
        name=gpu.name,
        total_bytes=gpu.total_bytes or 0,
        used_bytes=gpu.used_bytes or 0,
        own_bytes=own[0] if own else None,
        utilization_percent=gpu.utilization_percent,
        temperature_celsius=gpu.temperature_celsius,
        power_watts=gpu.power_watts,
        power_limit_watts=gpu.power_limit_watts,
        clock_mhz=gpu.clock_mhz,
        highest_clock_mhz=gpu.highest_clock_mhz,
        slowed_by=gpu.slowed_by or (),
    )


def _moved(before: MemorySampled, now: MemorySampled) -> bool:
    if len(before.gpus) != len(now.gpus):
        return True
    pairs = [(before.process_bytes, now.process_bytes)]
    pairs += [(old.used_bytes, new.used_bytes) for old, new in zip(before.gpus, now.gpus, strict=True)]
    return any(abs(new - old) > _MOVED_SHARE * max(old, 1) for old, new in pairs)
