"""What is installed, what works, and what to do about the rest. Nothing heavy is imported to find out."""

import importlib.util
import locale
import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from core import paths
from core.devices.gpu import GpuMonitor, GpuReading
from core.logout import Logout, read_logout
from core.models.attention import attention_choices
from core.models.checkpoint_files import hub_cache
from core.text import human_bytes

Level = Literal["ok", "warning", "missing"]

_LITTLE_DISK_BYTES = 10 * 10**9
_LITTLE_SHARED_BYTES = 10**9
_FEW_FILES = 1024
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\s*(?P<bounds>[^;]*)(?P<marker>;.*)?")
_BOUND = re.compile(r"(?P<sign>>=|<=|==|<|>)\s*(?P<version>[\d.]+)")
_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"](?P<version>[\d.]+)['\"]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: Level
    """missing: sftui cannot do without; warning: something will not work, or not well."""
    found: str
    """Foreign."""
    advice: str = ""
    """What to do; empty where nothing is to be done."""


def examine(environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Look at everything; takes a second at most, but where a driver or a network disk hangs."""
    monitor = GpuMonitor()
    gpus = monitor.read()
    monitor.close()
    cuda = torch_cuda()
    return (
        Finding("system", "ok", f"{platform.platform()}, Python {platform.python_version()}"),
        *_packages(),
        *_gpus(gpus),
        _cuda_build(gpus, cuda),
        _quantization(gpus, cuda, _folder_of("bitsandbytes")),
        *_attention(gpus),
        *_places(),
        _login(environ),
        _shared_memory(),
        _open_files(),
        *terminal_findings(environ, locale.getencoding()),
        logout_finding(read_logout()),
    )


def _packages() -> Iterator[Finding]:
    try:
        wanted = metadata.requires("sftui") or []
    except metadata.PackageNotFoundError:
        words = "runs from its source, and is not installed: the versions of what it needs are not looked at"
        yield Finding("sftui", "warning", words, "pip install . in the folder of its source")
        return
    for line in wanted:
        parts = _REQUIREMENT.match(line)
        if parts is None or parts["marker"]:
            # What only tests or development need.
            continue
        name, bounds = parts["name"], parts["bounds"].strip()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", "not installed", f"pip install '{name}{bounds}'")
            continue
        if satisfies(version, bounds):
            yield Finding(name, "ok", version)
        else:
            yield Finding(
                name, "warning", f"{version}, while sftui is made for {bounds}", f"pip install '{name}{bounds}'"
            )


def satisfies(version: str, bounds: str) -> bool:
    """Whether a version is within bounds such as ">=1.16,<1.17"; what follows its numbers does not count."""
    own = _numbers(version)
    for bound in _BOUND.finditer(bounds):
        other = _numbers(bound["version"])
        width = max(len(own), len(other))
        left, right = (numbers + (0,) * (width - len(numbers)) for numbers in (own, other))
        holds = {">=": left >= right, "<=": left <= right, "==": left == right, "<": left < right, ">": left > right}
        if not holds[bound["sign"]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def _gpus(gpus: GpuReading) -> Iterator[Finding]:
    if not gpus.gpus:
        advice = "Runs train on the CPU. `nvidia-smi` shows whether the driver works."
        yield Finding("GPU", "warning", gpus.problem or "none", advice)
        return
    yield Finding("driver", "ok", f"NVIDIA {gpus.driver_version or 'of unknown version'}")
    for gpu in gpus.gpus:
        name = f"GPU {gpu.index}"
        if gpu.lost:
            yield Finding(
                name, "warning", f"{gpu.name}, lost to the driver", "Have it reset (nvidia-smi -r), or restart."
            )
            continue
        free = f"{human_bytes(gpu.free_bytes)} of {human_bytes(gpu.total_bytes)} free"
        capability = "" if gpu.compute_capability is None else ", capability {}.{}".format(*gpu.compute_capability)
        yield Finding(name, "ok", f"{gpu.name}, {free}{capability}")


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for, as "12.8"; None for one without, or without torch."""
    folder = _folder_of("torch")
    try:
        found = _CUDA.search((folder / "version.py").read_text()) if folder else None
    except OSError:
        return None
    return found["version"] if found else None


def _folder_of(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found is not None and found.origin else None


def _cuda_build(gpus: GpuReading, cuda: str | None) -> Finding:
    if cuda is not None:
        return Finding("CUDA of torch", "ok", cuda)
    if not gpus.gpus:
        return Finding("CUDA of torch", "ok", "built for the CPU alone, as there is no GPU")
    advice = "Install a build with CUDA: see https://pytorch.org/get-started/locally"
    return Finding("CUDA of torch", "warning", "built for the CPU alone: no run will use the GPU", advice)


def _quantization(gpus: GpuReading, cuda: str | None, folder: Path | None) -> Finding:
    on_gpu = bool(gpus.gpus) and cuda is not None
    name = "4-bit and 8-bit on the " + ("GPU" if on_gpu else "CPU")
    if folder is None:
        return Finding(name, "warning", "bitsandbytes is not installed", "pip install bitsandbytes")
    wanted = f"cuda{(cuda or '').partition('.')[0]}" if on_gpu else "cpu"
    # As bitsandbytes chooses: any of the same major version of CUDA will do.
    libraries = sorted(path.name for path in folder.glob(f"libbitsandbytes_{wanted}*.so"))
    exact = f"libbitsandbytes_cuda{(cuda or '').replace('.', '')}.so"
    if libraries:
        return Finding(name, "ok", exact if on_gpu and exact in libraries else libraries[-1])
    there = "bitsandbytes has no binary for " + (f"CUDA {cuda}" if on_gpu else "the CPU")
    return Finding(name, "warning", there, "pip install --upgrade bitsandbytes, or a torch for a CUDA that it has")


def _attention(gpus: GpuReading) -> Iterator[Finding]:
    gpu = next((gpu for gpu in gpus.gpus if not gpu.lost), None)
    for option in attention_choices(gpu, None):
        if option.name.startswith("flash_attention"):
            yield Finding(option.name, "ok", option.reason, "" if option.available else option.how_to_get)
    try:
        yield Finding("kernels", "ok", metadata.version("kernels"))
    except metadata.PackageNotFoundError:
        yield Finding(
            "kernels", "ok", "not installed; only attention kernels of the hub need it", "pip install kernels"
        )


def _places() -> Iterator[Finding]:
    for name, place in (("runs", paths.runs_home()), ("Hugging Face cache", hub_cache())):
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        if not os.access(there, os.W_OK | os.X_OK):
            variable = "XDG_DATA_HOME" if name == "runs" else "HF_HUB_CACHE"
            level: Level = "missing" if name == "runs" else "warning"
            yield Finding(name, level, f"{place} cannot be written", f"Let {variable} name a folder of yours.")
            continue
        free = shutil.disk_usage(there).free
        little = free < _LITTLE_DISK_BYTES
        advice = "Models and checkpoints take gigabytes: make some room." if little else ""
        yield Finding(name, "warning" if little else "ok", f"{place}, {human_bytes(free)} free", advice)


def _login(environ: Mapping[str, str]) -> Finding:
    # Whether there is a token; nobody reads which.
    if any(environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return Finding("Hugging Face login", "ok", "by a token in the environment")
    file = paths.expand(environ.get("HF_TOKEN_PATH") or hub_cache().parent / "token")
    if file.is_file():
        return Finding("Hugging Face login", "ok", "logged in")
    return Finding("Hugging Face login", "ok", "not logged in; only gated and private models need it", "hf auth login")


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Finding("/dev/shm", "warning", "not there", "Loading data in several processes needs it.")
    little = size < _LITTLE_SHARED_BYTES
    advice = "Keep dataloader_num_workers at 0, or start the container with --shm-size=8g." if little else ""
    return Finding("/dev/shm", "warning" if little else "ok", human_bytes(size), advice)


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    few = soft < _FEW_FILES
    return Finding("open files", "warning" if few else "ok", f"at most {soft:,}", "ulimit -n 4096" if few else "")


def terminal_findings(environ: Mapping[str, str], encoding: str) -> Iterator[Finding]:
    """What the terminal can show."""
    utf8 = encoding.lower().replace("-", "") == "utf8"
    advice = "" if utf8 else "export LC_ALL=C.UTF-8: without it lines and marks are garbled."
    yield Finding("character set", "ok" if utf8 else "warning", encoding, advice)
    terminal = environ.get("TERM", "")
    if environ.get("NO_COLOR"):
        yield Finding("colours", "ok", "none, as NO_COLOR is set")
    elif environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        yield Finding("colours", "ok", f"16 million ({terminal})")
    elif "256color" in terminal:
        yield Finding("colours", "ok", f"256 ({terminal})", "export COLORTERM=truecolor, if the terminal can do more")
    else:
        advice = "export TERM=xterm-256color, if the terminal can do it"
        yield Finding("colours", "warning", f"few ({terminal or 'TERM is not set'})", advice)


def logout_finding(logout: Logout) -> Finding:
    """What becomes of runs at logout."""
    name = "runs after logout"
    if logout.kills is None:
        advice = "If runs end with your logins: loginctl enable-linger, and start with systemd-run --user --scope sftui"
        return Finding(name, "ok", "go on, as far as can be told", advice)
    if not logout.kills:
        return Finding(name, "ok", "go on")
    start = "start sftui in a scope of your own services: systemd-run --user --scope sftui"
    if logout.lingers:
        return Finding(name, "warning", "are ended by logind, but in a scope of your own services", start.capitalize())
    advice = f"Once: loginctl enable-linger. Then {start}"
    return Finding(name, "warning", "are ended by logind (KillUserProcesses)", advice)
