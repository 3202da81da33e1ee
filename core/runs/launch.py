"""Starting a runner on a run's folder: a fresh process, or a warm one that has its libraries loaded already."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from core import paths
from core.devices.choose import ChosenDevice, choose_device, cuda_environment
from core.devices.gpu import GpuMonitor
from core.errors import SftuiError
from core.runs.folder import RunFolder

RUNNER_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # The folder that the user happens to be in may hold a torch.py.
    "PYTHONSAFEPATH": "1",
    # NVML counts GPUs in this order; CUDA must agree, or a chosen index means another GPU.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Whether there is a GPU can be asked of NVML, without starting CUDA.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
# What the user has set goes first. Threads that spin while they wait make a step ten times slower on a CPU that others
# use too; sleeping ones cost nothing on one that nobody else uses.
RUNNER_DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE"}


def start_run(folder: RunFolder) -> "subprocess.Popen[bytes]":
    """Start a runner process and return at once. It has its own session and nothing of the terminal."""
    device = _device(_wish(folder))
    with _append(folder.log_file) as log:
        return _spawn("core.training.runner", [str(folder.path)], device, stdin=subprocess.DEVNULL, output=log)


class WarmRunner:
    """A process that imports torch and its kin in the background, and becomes the runner of the next run."""

    def __init__(self, process: "subprocess.Popen[bytes]", device: ChosenDevice | None) -> None:
        self._process = process
        self._device = device
        self._has_run = False

    @classmethod
    def start(cls) -> "WarmRunner":
        """Start the process; returns at once. It sees the GPU that a run with `device: auto` would get now."""
        log_folder = paths.state_home()
        log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        device = _device("auto")
        with _append(log_folder / "warm.log") as log:
            return cls(_spawn("core.training.warm", [], device, stdin=subprocess.PIPE, output=log), device)

    def run(self, folder: RunFolder) -> bool:
        """Hand a run over; False if the process is gone, has a run already, or cannot see the run's GPU."""
        if self._has_run or self._process.poll() is not None or self._process.stdin is None:
            return False
        if not self._sees(_wish(folder)):
            return False
        try:
            self._process.stdin.write(json.dumps({"run": str(folder.path)}).encode() + b"\n")
            self._process.stdin.close()
        except OSError:
            return False
        self._has_run = True
        return True

    def close(self) -> None:
        """Let an idle process end; one that has a run goes on."""
        if not self._has_run and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                return

    def wait(self, timeout: float | None = None) -> int:
        """The process' exit status, when it has ended. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def _sees(self, wish: str) -> bool:
        gpu = self._device.gpu if self._device else None
        return wish in ("auto", "cpu") or (gpu is not None and wish in (str(gpu.index), gpu.uuid))


def _wish(folder: RunFolder) -> str:
    try:
        section = folder.spec_values().get("sftui")
    except SftuiError:
        # The runner reads the spec too, and says in the journal what is wrong with it.
        return "auto"
    return str(section.get("device", "auto")) if isinstance(section, dict) else "auto"


def _device(wish: str) -> ChosenDevice | None:
    monitor = GpuMonitor()
    try:
        return choose_device(wish, monitor.read(), os.environ)
    except SftuiError:
        return None
    finally:
        monitor.close()


def _spawn(
    module: str, arguments: list[str], device: ChosenDevice | None, *, stdin: int, output: IO[bytes]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**RUNNER_DEFAULTS, **os.environ, **RUNNER_ENVIRONMENT, **(cuda_environment(device) if device else {})},
        start_new_session=True,
        stdin=stdin,
        stdout=output,
        stderr=output,
    )


def _append(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")
