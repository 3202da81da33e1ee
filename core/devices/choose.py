"""Which device a run gets: a GPU by index, UUID or free memory, or the CPU."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core.choice import Choice
from core.devices.gpu import GpuReading, GpuSnapshot
from core.errors import SftuiError
from core.text import human_bytes

# Shares of a GPU's memory: what must be free for a run whose need is not known, and what is never asked to be free,
# as the driver and a display hold a little of it always.
_FREE_ENOUGH, _NEVER_MORE = 0.85, 0.95


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """The device and why; `gpu` is None for the CPU."""

    gpu: GpuSnapshot | None
    choice: Choice


def choose_device(
    wish: str,
    reading: GpuReading,
    environ: Mapping[str, str],
    *,
    needs_bytes: int | None = None,
    taken: Collection[str] = (),
    preferred: str = "",
) -> ChosenDevice:
    """The device that `sftui.device` means: auto, cpu, an NVML index or a UUID.

    GPUs that CUDA_VISIBLE_DEVICES hides are not considered. auto leaves those alone that are `taken`, if another has
    room, and takes the `preferred` one before freer ones; both are names as `device_name` gives them. Raises SftuiError
    if the wish cannot be met.
    """
    gpus = acceptable_gpus(wish, reading, environ, needs_bytes)
    if not gpus:
        why = "as asked for" if wish == "cpu" else _why_none(reading, environ)
        return ChosenDevice(None, Choice("device", "cpu", why))
    others = [gpu for gpu in gpus if device_name(gpu) not in taken and not lack_of_room(gpu, needs_bytes)]
    # A run that has just begun holds no memory yet: how much is free does not show it.
    among = others if taken and others else gpus
    gpu = max(among, key=lambda gpu: (gpu in others and device_name(gpu) == preferred, gpu.free_bytes or 0))
    if wish != "auto":
        return ChosenDevice(gpu, Choice("device", gpu_name(gpu), "as asked for"))
    only = "the only GPU" if len(reading.gpus) == 1 else "the only GPU that is visible and working"
    reason = only if len(gpus) == 1 else f"most free memory of {len(gpus)} GPUs"
    return ChosenDevice(gpu, Choice("device", gpu_name(gpu), reason))


def acceptable_gpus(
    wish: str, reading: GpuReading, environ: Mapping[str, str], needs_bytes: int | None = None
) -> tuple[GpuSnapshot, ...]:
    """The GPUs of which `sftui.device` means any; none for the CPU. Raises SftuiError if the wish cannot be met.

    auto means none that is smaller than what the run needs, if there is a larger one.
    """
    if wish == "cpu":
        return ()
    gpus = tuple(gpu for gpu in visible_gpus(reading.gpus, environ) if not gpu.lost)
    if wish == "auto":
        large = tuple(gpu for gpu in gpus if (gpu.total_bytes or sys.maxsize) >= (needs_bytes or 0))
        return large or gpus
    for gpu in gpus:
        if wish in (str(gpu.index), gpu.uuid):
            return (gpu,)
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or f"none ({_why_none(reading, environ)})"
    raise SftuiError("No such device", f"sftui.device is {wish!r}; GPUs here: {there}.", "Use auto, cpu or an index.")


def lack_of_room(gpu: GpuSnapshot, needs_bytes: int | None) -> str:
    """What a run that needs so many bytes still waits for on a GPU that no run has; empty if there is room for it."""
    if gpu.lost:
        return f"{gpu_name(gpu)}, which is lost to the driver until it is reset"
    if gpu.total_bytes is None or gpu.free_bytes is None:
        return ""
    needed = gpu.total_bytes * _FREE_ENOUGH
    if needs_bytes is not None:
        needed = min(needs_bytes, gpu.total_bytes * _NEVER_MORE)
    if gpu.free_bytes >= needed:
        return ""
    return f"{human_bytes(int(needed))} free on {gpu_name(gpu)}, where {human_bytes(gpu.free_bytes)} are free now"


def device_name(gpu: GpuSnapshot | None) -> str:
    """What a device is called where it has to be told from all others: the GPU's UUID, its index, or "cpu"."""
    return "cpu" if gpu is None else gpu.uuid or str(gpu.index)


def cuda_environment(device: ChosenDevice) -> dict[str, str]:
    """What a process must have in its environment before CUDA starts, so that it sees the chosen GPU alone."""
    return {"CUDA_VISIBLE_DEVICES": "" if device.gpu is None else device_name(device.gpu)}


def visible_gpus(gpus: tuple[GpuSnapshot, ...], environ: Mapping[str, str]) -> list[GpuSnapshot]:
    """Those that CUDA_VISIBLE_DEVICES does not hide."""
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(gpus)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return [gpu for gpu in gpus if str(gpu.index) in names or _matches_uuid(gpu.uuid, names)]


def _matches_uuid(uuid: str | None, names: list[str]) -> bool:
    # CUDA accepts any unambiguous beginning of a UUID.
    return uuid is not None and any(name.startswith("GPU-") and uuid.startswith(name) for name in names)


def _why_none(reading: GpuReading, environ: Mapping[str, str]) -> str:
    if not reading.gpus:
        return reading.problem or "no GPU was found"
    if all(gpu.lost for gpu in reading.gpus):
        return "every GPU is lost to the driver until it is reset"
    if "MIG-" in environ.get("CUDA_VISIBLE_DEVICES", ""):
        return "CUDA_VISIBLE_DEVICES names a part of a GPU (MIG), which sftui cannot use: name a whole one"
    return "CUDA_VISIBLE_DEVICES hides every GPU that works"


def gpu_name(gpu: GpuSnapshot) -> str:
    """A GPU in words: GPU 0 NVIDIA H100. Foreign."""
    return f"GPU {gpu.index} {gpu.name}"
