"""NVIDIA GPUs as NVML sees them: memory, load, heat and who uses them. The only module that imports pynvml.

NVML's index is not CUDA's: match devices by UUID.
"""

import ctypes
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

_RETRY_SECONDS = 10.0
_MOST_ERRORS = 64
_INTERPRETER = re.compile(r"(python|pypy)[\d.]*|bash|sh|node|ruby|perl")


@dataclass(frozen=True)
class GpuProcess:
    """One process on a GPU; None where the driver, a container or the system does not tell."""

    pid: int
    used_bytes: int | None
    user: str | None
    command: str | None
    """The program and its script, "python train.py"; not its arguments, which may hold secrets. Foreign."""


@dataclass(frozen=True)
class GpuSnapshot:
    """One GPU at one moment; None where the GPU or the driver does not support a question or refuses it."""

    index: int
    uuid: str | None
    name: str
    total_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    utilization_percent: int | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None
    compute_capability: tuple[int, int] | None
    processes: tuple[GpuProcess, ...] | None
    """By memory, largest first; None when they are unknown, empty when there are none."""
    slowed_by: tuple[str, ...] | None = None
    """Why its clocks are held down, in words; not for being idle, nor for its power limit, where a busy GPU works."""
    memory_errors: int | None = None
    """That could not be corrected, since the driver was loaded; None without ECC."""
    errors: tuple[int, ...] = ()
    """Numbers of the driver's errors (Xid) since the reading before; only where a monitor watches for them."""
    clock_mhz: int | None = None
    """Of its processors now; the next one is as high as it may go."""
    highest_clock_mhz: int | None = None
    divided: bool = False
    """Into parts (MIG): what holds for one of them is not told here."""
    lost: bool = False
    """Fallen off the bus, or waiting for a reset: only the index, UUID and name are known, from before."""


@dataclass(frozen=True)
class GpuReading:
    """All GPUs at one moment, or in words why there are none."""

    gpus: tuple[GpuSnapshot, ...]
    driver_version: str | None
    problem: str | None


class GpuMonitor:
    """Reads all GPUs through NVML, which it starts at the first reading and keeps open.

    The driver can block: call `read` off the event loop, from one thread at a time. With `watches_errors`, each reading
    also has the driver's errors since the one before, where the driver tells them.
    """

    def __init__(self, *, watches_errors: bool = False) -> None:
        self._watches_errors = watches_errors
        self._events: Any = None
        # The GPUs that report errors: address of the handle → index.
        self._reporting: dict[int | None, int] = {}
        self._nvml: ModuleType | None = None
        self._problem = ""
        self._retry_at = 0.0
        # What was known of a GPU before it was lost: index → (UUID, name).
        self._known: dict[int, tuple[str | None, str]] = {}

    def read(self) -> GpuReading:
        """Return what NVML says now; never raises. What cannot be read is None, and `problem` says why."""
        if self._nvml is None and time.monotonic() >= self._retry_at:
            self._start()
        if self._nvml is None:
            return GpuReading((), None, self._problem)
        query = _Query(self._nvml)
        version = query(self._nvml.nvmlSystemGetDriverVersion)
        count = query(self._nvml.nvmlDeviceGetCount)
        if count is None:
            self._stop("the driver has stopped answering")
            return GpuReading((), None, self._problem)
        errors = self._new_errors(self._nvml) if self._events is not None else {}
        gpus = tuple(self._read_gpu(self._nvml, index, errors.get(index, ())) for index in range(count))
        return GpuReading(gpus, version, None if gpus else "the NVIDIA driver is loaded, but it sees no GPU")

    def close(self) -> None:
        """Close NVML; a later reading opens it again."""
        if self._nvml is not None:
            self._stop("")
            self._retry_at = 0.0

    def _start(self) -> None:
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        try:
            import pynvml
        except ImportError as error:
            self._problem = f"the Python package nvidia-ml-py cannot be imported: {error}"
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._problem = _explain(pynvml, error)
        else:
            self._nvml = pynvml
            if self._watches_errors:
                self._listen(pynvml)

    def _listen(self, nvml: ModuleType) -> None:
        """Let the driver put errors into a list of ours; GPUs and containers where it cannot are left out."""
        self._events, self._reporting = _Query(nvml)(nvml.nvmlEventSetCreate), {}
        for index in range(_Query(nvml)(nvml.nvmlDeviceGetCount) or 0):
            query = _Query(nvml)
            handle = query(nvml.nvmlDeviceGetHandleByIndex, index)
            query(nvml.nvmlDeviceRegisterEvents, handle, nvml.nvmlEventTypeXidCriticalError, self._events)
            if handle is not None:
                self._reporting[_address(handle)] = index

    def _new_errors(self, nvml: ModuleType) -> dict[int, tuple[int, ...]]:
        """The errors of each GPU by its index, without waiting for any."""
        found: dict[int, tuple[int, ...]] = {}
        query = _Query(nvml)
        for _ in range(_MOST_ERRORS):
            event = query(nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                break
            index = self._reporting.get(_address(event.device))
            if index is not None and int(event.eventData) not in found.get(index, ()):
                found[index] = (*found.get(index, ()), int(event.eventData))
        return found

    def _stop(self, problem: str) -> None:
        if self._nvml is not None:
            query = _Query(self._nvml)
            query(self._nvml.nvmlEventSetFree, self._events)
            query(self._nvml.nvmlShutdown)
        self._events = None
        self._nvml = None
        self._problem = problem
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _read_gpu(self, nvml: ModuleType, index: int, driver_errors: tuple[int, ...]) -> GpuSnapshot:
        query = _Query(nvml)
        handle = query(nvml.nvmlDeviceGetHandleByIndex, index)
        name = query(nvml.nvmlDeviceGetName, handle)
        uuid = query(nvml.nvmlDeviceGetUUID, handle)
        memory = query(nvml.nvmlDeviceGetMemoryInfo, handle)
        utilization = query(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = query(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = query(nvml.nvmlDeviceGetPowerUsage, handle)
        limit = query(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        capability = query(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        processes = _processes(nvml, query, handle)
        slowed_by = _slowed_by(nvml, query, handle)
        errors = query(
            nvml.nvmlDeviceGetTotalEccErrors, handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        )
        clock = query(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)
        highest = query(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
        mode = query(nvml.nvmlDeviceGetMigMode, handle)
        if query.lost:
            uuid, name = self._known.get(index, (uuid, name or f"GPU {index}"))
            return _lost_gpu(index, uuid, name, driver_errors)
        self._known[index] = (uuid, name or f"GPU {index}")
        return GpuSnapshot(
            index=index,
            uuid=uuid,
            name=name or f"GPU {index}",
            total_bytes=memory and memory.total,
            used_bytes=memory and memory.used,
            free_bytes=memory and memory.free,
            utilization_percent=utilization and utilization.gpu,
            temperature_celsius=temperature,
            power_watts=None if milliwatts is None else milliwatts / 1000,
            power_limit_watts=None if limit is None else limit / 1000,
            compute_capability=capability,
            processes=processes,
            slowed_by=slowed_by,
            memory_errors=errors,
            errors=driver_errors,
            clock_mhz=clock,
            highest_clock_mhz=highest,
            divided=mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        )


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _lost_gpu(index: int, uuid: str | None, name: str, errors: tuple[int, ...]) -> GpuSnapshot:
    return GpuSnapshot(
        index=index,
        uuid=uuid,
        name=name,
        total_bytes=None,
        used_bytes=None,
        free_bytes=None,
        utilization_percent=None,
        temperature_celsius=None,
        power_watts=None,
        power_limit_watts=None,
        compute_capability=None,
        processes=None,
        errors=errors,
        lost=True,
    )


class _Query:
    """The one way to ask NVML: an answer, or None where it has none; `lost` is set once the GPU is gone."""

    def __init__(self, nvml: ModuleType) -> None:
        self._error = nvml.NVMLError
        self._gone = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)
        self.lost = False

    def __call__(self, function: Callable[..., T], *args: Any) -> T | None:
        if self.lost or None in args:
            return None
        try:
            return function(*args)
        except self._error as error:
            self.lost = error.value in self._gone
        except UnicodeDecodeError:
            pass
        return None


def _slowed_by(nvml: ModuleType, query: _Query, handle: Any) -> tuple[str, ...] | None:
    reasons = query(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:
        # By its name before driver 535.
        reasons = query(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    if reasons is None:
        return None
    words = {
        nvml.nvmlClocksEventReasonSwThermalSlowdown: "heat",
        nvml.nvmlClocksThrottleReasonHwThermalSlowdown: "heat, by the hardware",
        nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "the power supply's brake",
    }
    found = tuple(word for bit, word in words.items() if reasons & bit)
    # The general reason comes with the special ones, or alone where the hardware does not tell them apart.
    general = bool(reasons & nvml.nvmlClocksThrottleReasonHwSlowdown) and not found
    return ("a slowdown by the hardware",) if general else found


def _processes(nvml: ModuleType, query: _Query, handle: Any) -> tuple[GpuProcess, ...] | None:
    lists = [
        query(nvml.nvmlDeviceGetComputeRunningProcesses, handle),
        query(nvml.nvmlDeviceGetGraphicsRunningProcesses, handle),
    ]
    if lists == [None, None]:
        return None
    # A process that computes and draws is in both lists, with the same memory.
    used: dict[int, int | None] = {}
    for process in (process for found in lists for process in found or ()):
        used[process.pid] = process.usedGpuMemory
    largest_first = sorted(used.items(), key=lambda item: -(item[1] or 0))
    return tuple(GpuProcess(pid, memory, *_owner(pid)) for pid, memory in largest_first)


def _owner(pid: int) -> tuple[str | None, str | None]:
    import psutil

    # A process may vanish between two lines, or belong to another user.
    gone = (psutil.Error, OSError, ValueError)
    user = command = None
    try:
        process = psutil.Process(pid)
        command = _command(process.cmdline()) or process.name()
    except gone:
        return None, None
    try:
        user = process.username()
    except gone:
        return None, command
    return user, command


def _command(arguments: list[str]) -> str:
    """Return the program's name, with its script or module where the program is an interpreter."""
    if not arguments:
        return ""
    program = PurePath(arguments[0]).name
    if _INTERPRETER.fullmatch(program) is None:
        return program
    for position, argument in enumerate(arguments[1:], start=1):
        if argument == "-m":
            return " ".join([program, "-m", *arguments[position + 1 : position + 2]])
        if argument == "-c":
            return f"{program} -c"
        if not argument.startswith("-"):
            return f"{program} {PurePath(argument).name}"
    return program


def _explain(nvml: ModuleType, error: Exception) -> str:
    code = error.value  # type: ignore[attr-defined]
    known = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver: libnvidia-ml.so.1 was not found",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed, but not loaded",
        nvml.NVML_ERROR_NO_PERMISSION: "no permission to use the NVIDIA driver (/dev/nvidia*)",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the NVIDIA driver was updated since the machine started: its library and kernel module differ"
        ),
        nvml.NVML_ERROR_GPU_IS_LOST: "a GPU has fallen off the bus",
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the NVIDIA driver is too old: its library lacks a function",
    }
    return known.get(code, f"the NVIDIA driver cannot be used: {error} (NVML error {code})")
