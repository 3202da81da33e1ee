"""Runs on a GPU for the tests of this folder, and what the driver says of it."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from core.devices.gpu import GpuMonitor, GpuReading, GpuSnapshot
from core.runs import events
from core.runs.folder import RunFolder
from core.runs.launch import start_run
from tests.training.runs import events_of, make_run, terminal_events, wait_for_end

MIB = 1 << 20
E = TypeVar("E", bound=events.Event)


def gpus_now() -> GpuReading:
    """What the driver says of all GPUs."""
    with contextlib.closing(GpuMonitor()) as monitor:
        return monitor.read()


def now(gpu: GpuSnapshot) -> GpuSnapshot:
    """The same GPU as it is now."""
    return next(one for one in gpus_now().gpus if one.uuid == gpu.uuid)


def used_bytes(gpu: GpuSnapshot) -> int:
    """What all processes hold on it now."""
    used = now(gpu).used_bytes
    assert used is not None, "the driver does not tell how much memory is used"
    return used


def gpu_run(model: Path, data: Path, **changes: Any) -> RunFolder:
    """A run's folder for three steps of LoRA on the GPU; `changes` are options under TRL's names."""
    sftui = {"device": "auto", "name": "tiny", **changes.pop("sftui", {})}
    return make_run(model, data, **changes, sftui=sftui)


def finish(folder: RunFolder) -> events.TerminalEvent:
    """Run it in a process of its own, and return its end."""
    process = start_run(folder)
    wait_for_end(folder)
    process.wait(60)
    (ended,) = terminal_events(folder)
    return ended


def only(kind: type[E], folder: RunFolder) -> list[E]:
    """The events of one kind."""
    return [event for event in events_of(folder) if isinstance(event, kind)]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait until something holds; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()
