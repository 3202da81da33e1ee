"""Which device a run gets: a GPU by index, UUID or free memory, or the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.choice import Choice
from core.devices.gpu import GpuReading, GpuSnapshot
from core.errors import SftuiError


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """The device and why; `gpu` is None for the CPU."""

    gpu: GpuSnapshot | None
    choice: Choice


def choose_device(wish: str, reading: GpuReading, environ: Mapping[str, str]) -> ChosenDevice:
    """The device that `sftui.device` means: auto, cpu, an NVML index or a UUID.

    GPUs that CUDA_VISIBLE_DEVICES hides are not considered. Raises SftuiError if the wish cannot be met.
    """
    if wish == "cpu":
        return ChosenDevice(None, Choice("device", "cpu", "as asked for"))
    gpus = [gpu for gpu in _visible(reading.gpus, environ) if not gpu.lost]
    if wish == "auto":
        if not gpus:
            return ChosenDevice(None, Choice("device", "cpu", _why_none(reading)))
        gpu = max(gpus, key=lambda gpu: gpu.free_bytes or 0)
        only = "the only GPU" if len(reading.gpus) == 1 else "the only GPU that is visible and working"
        reason = only if len(gpus) == 1 else f"most free memory of {len(gpus)} GPUs"
        return ChosenDevice(gpu, Choice("device", _name(gpu), reason))
    for gpu in gpus:
        if wish in (str(gpu.index), gpu.uuid):
            return ChosenDevice(gpu, Choice("device", _name(gpu), "as asked for"))
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or f"none ({_why_none(reading)})"
    raise SftuiError("No such device", f"sftui.device is {wish!r}; GPUs here: {there}.", "Use auto, cpu or an index.")


def cuda_environment(device: ChosenDevice) -> dict[str, str]:
    """What a process must have in its environment before CUDA starts, so that it sees the chosen GPU alone."""
    if device.gpu is None:
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {"CUDA_VISIBLE_DEVICES": device.gpu.uuid or str(device.gpu.index)}


def _visible(gpus: tuple[GpuSnapshot, ...], environ: Mapping[str, str]) -> list[GpuSnapshot]:
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return list(gpus)
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return [gpu for gpu in gpus if str(gpu.index) in names or _matches_uuid(gpu.uuid, names)]


def _matches_uuid(uuid: str | None, names: list[str]) -> bool:
    # CUDA accepts any unambiguous beginning of a UUID.
    return uuid is not None and any(name.startswith("GPU-") and uuid.startswith(name) for name in names)


def _why_none(reading: GpuReading) -> str:
    if not reading.gpus:
        return reading.problem or "no GPU was found"
    if all(gpu.lost for gpu in reading.gpus):
        return "every GPU is lost to the driver until it is reset"
    return "CUDA_VISIBLE_DEVICES hides every GPU that works"


def _name(gpu: GpuSnapshot) -> str:
    return f"GPU {gpu.index} {gpu.name}"
