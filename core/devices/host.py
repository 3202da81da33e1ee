"""The machine itself: processors, memory, disk, with the limits of a container where they are lower."""

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class HostSnapshot:
    """The machine, or the container that we run in, at one moment."""

    cpu_count: int
    """Logical processors that this process may use."""
    cpu_percent: float
    """Load of all processors since the last snapshot, 0 to 100; 0 in the first one."""
    memory_total_bytes: int
    memory_used_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int | None
    """Free for this user where the path lies; None when no folder above it can be read."""
    cpu_name: str


def read_host(path: Path) -> HostSnapshot:
    """Return the state of the machine, with the free space of the disk that `path` lies or would lie on."""
    memory = psutil.virtual_memory()
    total, used, available = memory.total, memory.total - memory.available, memory.available
    limit, charged = _cgroup_memory(_CGROUPS, _read(Path("/proc/self/cgroup")))
    if limit is not None and limit < total:
        # The machine as a whole can run out before the container's own limit is reached.
        available = min(available, max(limit - charged, 0))
        total, used = limit, limit - available
    return HostSnapshot(
        cpu_count=len(os.sched_getaffinity(0)),
        cpu_percent=psutil.cpu_percent(),
        memory_total_bytes=total,
        memory_used_bytes=used,
        memory_available_bytes=available,
        disk_free_bytes=_disk_free(path),
        cpu_name=_cpu_name(Path("/proc/cpuinfo")),
    )


def process_memory_bytes(pid: int) -> int | None:
    """Return the resident memory of one process in bytes; None when it is gone or not ours to see."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, ValueError):
        return None


def out_of_memory_kills() -> tuple[Path, int] | None:
    """Return the file in which the kernel counts those that it killed in our cgroup for lack of memory, and the count.

    None where it does not count, as with cgroups of the first version.
    """
    own = next((line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), None)
    if own is None:
        return None
    file = _CGROUPS / own.lstrip("/") / "memory.events"
    count = kills_counted(file)
    return None if count is None else (file, count)


def kills_counted(file: Path) -> int | None:
    """Return the count in such a file; None where it is gone."""
    counts = dict(line.split() for line in _read(file).splitlines() if len(line.split()) == 2)
    kills = counts.get("oom_kill", "")
    return int(kills) if kills.isdecimal() else None


def boot_id() -> str:
    """Return what tells one boot of the machine from the next; empty where the system does not say."""
    return _read(Path("/proc/sys/kernel/random/boot_id")).strip()


def _cgroup_memory(root: Path, membership: str) -> tuple[int | None, int]:
    """Return the lowest memory limit from our cgroup (v2) upwards and the bytes charged there, or None, 0."""
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    relative = PurePosixPath(own.lstrip("/"))
    limit: int | None = None
    charged = 0
    for folder in (relative, *relative.parents):
        text = _read(root / folder / "memory.max").strip()
        if text.isdecimal() and (limit is None or int(text) < limit):
            limit = int(text)
            charged = _charged(root / folder)
    return limit, charged


def _charged(folder: Path) -> int:
    current = _read(folder / "memory.current").strip()
    # Cached file pages count as used but are dropped on demand, as with the machine's own "available".
    cache = [line.split()[1] for line in _read(folder / "memory.stat").splitlines() if line[:14] == "inactive_file "]
    return max(int(current or 0) - int(cache[0] if cache else 0), 0)


def _disk_free(path: Path) -> int | None:
    for folder in (path.absolute(), *path.absolute().parents):
        try:
            return int(psutil.disk_usage(str(folder)).free)
        except OSError:
            continue
    return None


@functools.cache
def _cpu_name(cpuinfo: Path) -> str:
    for line in _read(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return platform.processor() or platform.machine()


@functools.cache
def has_bfloat16_matrices(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 matrices in a unit of their own (AMX)."""
    return any(
        "amx_bf16" in line.split() for line in _read(cpuinfo).splitlines() if line.partition(":")[0].strip() == "flags"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
