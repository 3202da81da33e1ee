"""Starting a runner on a run's folder: a fresh process, or a warm one that has its libraries loaded already."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from core import paths
from core.devices.allocator import allocator_environment
from core.devices.choose import ChosenDevice, choose_device, cuda_environment, device_name
from core.devices.gpu import GpuMonitor
from core.errors import SftuiError
from core.runs.folder import RunFolder, all_runs
from core.runs.queue import needed_bytes, taken, tickets

_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    # The folder that the user happens to be in may hold a torch.py.
    "PYTHONSAFEPATH": "1",
    # NVML counts GPUs in this order; CUDA must agree, or a chosen index means another GPU.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # Whether there is a GPU can be asked of NVML, without starting CUDA.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # A checkpoint's manifest shows damage, not malice: whoever makes a folder makes its checksums too. So nothing that
    # is pickled in it, such as rng_state.pth, may name more than tensors and numbers.
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0",
}
# What the user has set goes first. Threads that spin while they wait make a step ten times slower on a CPU that others
# use too; sleeping ones cost nothing on one that nobody else uses.
_DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # Rows become tokens on all cores; the tokenizers library itself takes care of forks.
    "TOKENIZERS_PARALLELISM": "true",
}

ANSWER_SECONDS = 120.0
"""How long a question may take; a busy machine imports for half a minute before the first answer."""


def start_run(folder: RunFolder, resume_step: int | None = None, *, queue: bool = False) -> "subprocess.Popen[bytes]":
    """Start a runner process and return at once. It has its own session and nothing of the terminal.

    A run with checkpoints goes on from the newest, or from that of `resume_step`; 0 begins anew. With `queue` it waits
    for its turn on a device, and this returns when it stands in line, so that whoever comes later stands behind it.
    """
    # It chooses its device itself, when it can have it: of two that begin together each sees what the other has.
    arguments = ["--queue"] if queue else []
    arguments += [str(folder.path), *([] if resume_step is None else [str(resume_step)])]
    folder.refuse_links()
    told = _size(folder.journal_file)
    with paths.open_log(folder.log_file) as log:
        process = _spawn("core.training.runner", arguments, stdin=subprocess.DEVNULL, output=log)
    deadline = time.monotonic() + QUEUE_SECONDS
    # It stands in line before it says the first word.
    while queue and _size(folder.journal_file) == told and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


QUEUE_SECONDS = 30.0
"""How long a runner may take to stand in line."""


class NoAnswerError(SftuiError):
    """A question that nobody answers now, through no fault of its own."""


class WarmRunner:
    """A process that imports torch and its kin in the background, answers questions that need them, and becomes the
    runner of the next run.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", device: ChosenDevice | None) -> None:
        self._process = process
        self._device = device
        self._has_run = False
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._hearing: dict[int, Callable[[dict[str, Any]], object]] = {}
        self._asked = 0
        threading.Thread(target=self._take_answers, name="sftui-warm-answers", daemon=True).start()

    @classmethod
    def start(cls, wish: str = "auto") -> "WarmRunner":
        """Start the process; returns at once. It sees the GPU that a run with this `sftui.device` would get now."""
        log_folder = paths.state_home()
        log_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        device = _device(wish)
        with paths.open_log(log_folder / "warm.log") as log:
            pipe = subprocess.PIPE
            more = cuda_environment(device) if device else {}
            return cls(_spawn("core.training.warm", [], stdin=pipe, output=pipe, errors=log, more=more), device)

    @property
    def is_idle(self) -> bool:
        """Whether it can take a run or a question."""
        return not self._has_run and self._process.poll() is None

    def run(self, folder: RunFolder) -> bool:
        """Hand a run over; False if the process is gone, has a run already, or does not see the GPU of the run."""
        folder.refuse_links()
        if not self.is_idle or not self._sees_device_of(folder):
            return False
        try:
            with self._lock:
                self._write({"run": str(folder.path)})
                self._input.close()
        except (OSError, ValueError):
            return False
        self._has_run = True
        self._fail_all()
        return True

    def ask(
        self,
        question: Mapping[str, Any],
        timeout: float | None = ANSWER_SECONDS,
        hear: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """The answer to a question; blocks, so for a background thread.

        `hear` is told the parts that a long answer comes in, in a thread of its own. Raises SftuiError if the question
        cannot be answered; NoAnswerError if the process has ended or has a run, or after `timeout` seconds.
        """
        if not self.is_idle:
            raise _no_answer()
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            self._asked += 1
            number = self._asked
            self._waiting[number] = future
            if hear is not None:
                self._hearing[number] = hear
            try:
                self._write({**question, "id": number})
            except (OSError, ValueError) as error:
                del self._waiting[number]
                raise _no_answer() from error
        if not self.is_idle:
            # It may have ended before the question was in the list of those that then fail.
            self._fail_all()
        try:
            return future.result(timeout)
        except TimeoutError as error:
            self._waiting.pop(number, None)
            message = f"There was no answer within {timeout:.0f} seconds."
            raise NoAnswerError("The warm runner is busy", message, "Ask again later.") from error
        finally:
            self._hearing.pop(number, None)

    def cancel(self) -> None:
        """Let the long answers that were asked for until now come to an end, with what there is by then."""
        with contextlib.suppress(OSError, ValueError), self._lock:
            self._write({"cancel": self._asked})

    def close(self) -> None:
        """Let an idle process end; one that has a run goes on."""
        if not self._has_run:
            with contextlib.suppress(OSError):
                self._input.close()

    def wait(self, timeout: float | None = None) -> int:
        """The process' exit status, when it has ended. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _write(self, line: Mapping[str, Any]) -> None:
        self._input.write(json.dumps(line).encode() + b"\n")
        self._input.flush()

    def _take_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                if not line.endswith(b"\n"):
                    # The process died while it answered.
                    break
                told = json.loads(line)
                if "part" in told:
                    self._hear(told["id"], told["part"])
                    continue
                future = self._waiting.pop(told["id"], None)
                if future is None:
                    continue
                if "answer" in told:
                    future.set_result(told["answer"])
                else:
                    future.set_exception(SftuiError(**told["error"]))
        self._fail_all()

    def _hear(self, number: int, part: dict[str, Any]) -> None:
        hear = self._hearing.get(number)
        try:
            if hear is not None:
                hear(part)
        except Exception:  # noqa: BLE001 - whoever hears may have lost its terminal; the answers must go on all the same
            self._hearing.pop(number, None)

    def _fail_all(self) -> None:
        while self._waiting:
            with contextlib.suppress(KeyError):
                self._waiting.popitem()[1].set_exception(_no_answer())

    def _sees_device_of(self, folder: RunFolder) -> bool:
        wish = wished_device(folder)
        if wish == "cpu":
            return True
        if self._device is None:
            return False
        own = device_name(self._device.gpu)
        best = _device(wish, needed_bytes(folder), own)
        return best is not None and device_name(best.gpu) == own


def _no_answer() -> NoAnswerError:
    log = paths.state_home() / "warm.log"
    return NoAnswerError("Nobody can answer now", f"The warm runner has a run, or has ended (see {log}).", "Try again.")


def trains_on_cpu() -> bool:
    """Whether a run has the CPU now, which warming up would slow down."""
    alive = [folder for folder in all_runs() if folder.is_alive()]
    if not alive:
        return False
    device = _device("auto")
    return device is None or device.gpu is None or any(wished_device(folder) == "cpu" for folder in alive)


def wished_device(folder: RunFolder) -> str:
    """`sftui.device` of a run's spec; auto where that cannot be read."""
    try:
        section = folder.spec_values().get("sftui")
    except SftuiError:
        # The runner reads the spec too, and says in the journal what is wrong with it.
        return "auto"
    return str(section.get("device", "auto")) if isinstance(section, dict) else "auto"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _device(wish: str, needs_bytes: int | None = None, preferred: str = "") -> ChosenDevice | None:
    monitor = GpuMonitor()
    try:
        return choose_device(
            wish, monitor.read(), os.environ, needs_bytes=needs_bytes, taken=taken(tickets()), preferred=preferred
        )
    except SftuiError:
        return None
    finally:
        monitor.close()


def runner_environment(more: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of a process that has the libraries: ours, the user's, and what must be."""
    return {**_DEFAULTS, **os.environ, **allocator_environment(os.environ), **_ENVIRONMENT, **more}


def _spawn(
    module: str,
    arguments: list[str],
    *,
    stdin: int,
    output: int | IO[bytes],
    errors: IO[bytes] | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env=runner_environment(more),
        start_new_session=True,
        stdin=stdin,
        stdout=output,
        stderr=errors if errors is not None else output,
    )
