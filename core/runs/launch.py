"""Starting a runner on a run's folder: a fresh process, or a warm one that has its libraries loaded already."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from core import paths
from core.errors import SftuiError
from core.runs.folder import RunFolder

RUNNER_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # NVML counts GPUs in this order; CUDA must agree, or a chosen index means another GPU.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


def start_run(folder: RunFolder) -> None:
    """Start a runner process and return at once. It has its own session and nothing of the terminal."""
    with _append(folder.log_file) as log:
        _spawn("core.training.runner", [str(folder.path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait_until_alive(folder: RunFolder, seconds: float = 30.0) -> None:
    """Wait for the runner to take the lock or to have ended. Raises SftuiError if it does neither."""
    deadline = time.monotonic() + seconds
    while not folder.is_alive() and folder.read_state().outcome is None:
        if time.monotonic() > deadline:
            raise SftuiError("The runner did not start", f"See {folder.log_file}.")
        time.sleep(0.02)


class WarmRunner:
    """A process that imports torch and its kin in the background, and becomes the runner of the next run."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._has_run = False

    @classmethod
    def start(cls) -> "WarmRunner":
        """Start the process; returns at once."""
        log_folder = paths.state_home()
        log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _append(log_folder / "warm.log") as log:
            return cls(_spawn("core.training.warm", [], stdin=subprocess.PIPE, stdout=log, stderr=log))

    def run(self, folder: RunFolder) -> bool:
        """Hand a run over; False if the process is gone or has a run already."""
        if self._has_run or self._process.poll() is not None or self._process.stdin is None:
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


def _spawn(module: str, arguments: list[str], **streams: object) -> "subprocess.Popen[bytes]":
    root = Path(__file__).parents[2]
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        **RUNNER_ENVIRONMENT,
        # The run goes on where the user's own folder may hold a module called torch: only our root is added.
        "PYTHONPATH": os.pathsep.join([str(root), inherited] if inherited else [str(root)]),
        "PYTHONSAFEPATH": "1",
    }
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", module, *arguments],
        env=environment,
        start_new_session=True,
        close_fds=True,
        **streams,
    )


def _append(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")
