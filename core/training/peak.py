"""The most that a run has held: of a GPU's memory, or on a CPU by how much the process has grown."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.devices.choose import visible_gpus
from core.devices.gpu import GpuMonitor, GpuSnapshot
from core.devices.host import process_memory_bytes
from core.runs.events import Event, PeakMeasured

_STATUS = Path("/proc/self/status")
# Lets the kernel count the peak anew: what came before, such as the answers of a warm runner, is not the run's.
_CLEAR, _CLEAR_PEAK = Path("/proc/self/clear_refs"), "5"
# It is told again once it has grown by so much.
_GROWN_SHARE = 0.01


class PeakMeter:
    """Measures from the moment it is made, which is to be just before the model is loaded.

    `gpu` is the run's GPU as it was then, None on a CPU; `predicted_bytes` what the plan says, where it says it all.
    """

    def __init__(self, gpu: GpuSnapshot | None, predicted_bytes: int | None) -> None:
        self._gpu = gpu
        self._predicted_bytes = predicted_bytes
        self._context_bytes = 0
        self._reserved_seen = -1
        self._before = 0
        if gpu is not None:
            if torch.cuda.is_initialized():
                torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_CLEAR_PEAK)
            self._before = process_memory_bytes(os.getpid()) or 0

    def look(self, step: int) -> PeakMeasured:
        """The peak until now, in bytes. Cheap enough for every step."""
        if self._gpu is None:
            return PeakMeasured(step, "host", max(0, _process_peak() - self._before), None, None, self._predicted_bytes)
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        if reserved > self._reserved_seen:
            # Asking the driver takes milliseconds. What lies outside of PyTorch hardly grows without the rest growing.
            self._reserved_seen = reserved
            self._context_bytes = max(self._context_bytes, self._outside_of_torch(self._gpu))
        total = reserved + self._context_bytes
        return PeakMeasured(step, "gpu", total, allocated, reserved, self._predicted_bytes)

    def restart(self) -> None:
        """Forget the peak until now."""
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats()
            self._reserved_seen = -1
        else:
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_CLEAR_PEAK)

    def _outside_of_torch(self, before: GpuSnapshot) -> int:
        """What the process holds on the GPU beside PyTorch's allocator: CUDA's context, libraries, paged memory."""
        monitor = GpuMonitor()
        gpus = visible_gpus(monitor.read().gpus, os.environ)
        monitor.close()
        gpu = next((gpu for gpu in gpus if gpu.uuid == before.uuid), None)
        reserved = torch.cuda.memory_reserved()
        own = own_bytes(gpu) if gpu is not None else None
        if own is None:
            # In a container the driver knows no process of ours; what others held before is taken off instead.
            free, total = torch.cuda.mem_get_info()
            own = int(total - free) - (before.used_bytes or 0)
        return max(0, own - int(reserved))


class PeakCallback(TrainerCallback):  # type: ignore[misc]
    """Tells of the peak when it has grown, and at the end of training."""

    def __init__(self, meter: PeakMeter, emit: Callable[[Event], object]) -> None:
        self._meter = meter
        self._emit = emit
        self._told = -1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is done."""
        self._look(state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All held-out rows are evaluated."""
        self._look(state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Whoever reads the end of a long journal finds it there."""
        self._emit(self._meter.look(state.global_step))

    def _look(self, step: int) -> None:
        peak = self._meter.look(step)
        if peak.bytes > self._told * (1 + _GROWN_SHARE):
            self._told = peak.bytes
            self._emit(peak)


def own_bytes(gpu: GpuSnapshot) -> int | None:
    """What this process holds on a GPU; None where the driver does not tell."""
    own = [process.used_bytes for process in gpu.processes or () if process.pid == os.getpid()]
    return own[0] if own else None


def _process_peak() -> int:
    """The most that this process had in memory, in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return process_memory_bytes(os.getpid()) or 0
