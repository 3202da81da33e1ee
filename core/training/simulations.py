"""Simulates training in a child process of the warm runner: it has all libraries, and can be ended at once."""

import contextlib
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from core.diagnosis import diagnose
from core.errors import SftuiError
from core.training.libraries import libraries_to_oneself

Tell = Callable[[Mapping[str, Any]], object]
_GENTLE = 10
"""How far a child stands behind whatever else wants the processor."""


class Simulations:
    """One simulation at a time, each on a thread that waits for its child; a new one ends the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: _Simulation | None = None

    def ask(self, question: Mapping[str, Any], tell: Tell) -> None:
        """Begin to simulate, and have `tell` get {"answer"} or {"error"}; returns at once."""
        with self._lock:
            if self._newest is not None:
                self._newest.end()
            self._newest = _Simulation(question, tell)
            self._newest.start()

    def stop(self) -> None:
        """End the one that is under way."""
        with self._lock:
            if self._newest is not None:
                self._newest.end()


class _Simulation(threading.Thread):
    def __init__(self, question: Mapping[str, Any], tell: Tell) -> None:
        super().__init__(name="sftui-simulation", daemon=True)
        self._question = question
        self._tell = tell
        self._lock = threading.Lock()
        self._child: int | None = None
        self._ended = False

    def end(self) -> None:
        """End it at once."""
        with self._lock:
            self._ended = True
            if self._child is not None:
                os.kill(self._child, signal.SIGKILL)

    def run(self) -> None:
        """The thread's body."""
        try:
            told = self._told()
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever asked must hear of it
            told = {"error": _words(error)}
        self._tell(told)

    def _told(self) -> Mapping[str, Any]:
        reading = self._begin()
        told = b""
        if reading is not None:
            with os.fdopen(reading, "rb") as answers:
                told = answers.read()
            with self._lock:
                assert self._child is not None
                os.waitpid(self._child, 0)
                self._child = None
        if told:
            answer: Mapping[str, Any] = json.loads(told)
            return answer
        if self._ended:
            raise SftuiError("No longer simulated", "Something else is simulated, or a run has begun.")
        raise SftuiError("The simulation died", "Its process ended without a word, as one does that lacks memory.")

    def _begin(self) -> int | None:
        """Start the child and return the pipe to read its answer from; None when it is not wanted any more."""
        # While this thread has the libraries to itself nobody else is in them, and the child finds them whole.
        with libraries_to_oneself():
            import torch

            if torch.cuda.is_initialized():
                # A child would find a GPU that it cannot use.
                raise SftuiError("Not simulated now", "This runner has used the GPU, which a child of it cannot share.")
            with self._lock:
                if self._ended:
                    return None
                reading, writing = os.pipe()
                child = os.fork()
                if child == 0:
                    os.close(reading)
                    _simulate(self._question, writing)
                os.close(writing)
                self._child = child
                return reading


def _simulate(question: Mapping[str, Any], writing: int) -> None:
    """The child's life: it never returns."""
    try:
        # Our parent's pipes must not stay open because of us.
        os.closerange(3, writing)
        os.closerange(writing + 1, 1024)
        os.close(0)
        os.nice(_GENTLE)
        # Autograd starts a thread for each GPU that it sees, and none of them is needed.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import torch

        # The threads of the parent are not here, and nothing is computed.
        torch.set_num_threads(1)
        from core.memory.simulate import simulate_task
        from core.memory.simulated import SimulationTask

        told: Mapping[str, Any] = {"answer": simulate_task(SimulationTask.from_json(question["task"])).to_json()}
    except BaseException as error:  # noqa: BLE001 - whatever it was, whoever asked must hear of it
        if not isinstance(error, SftuiError):
            traceback.print_exception(error)
        told = {"error": _words(error)}
    with contextlib.suppress(OSError), os.fdopen(writing, "wb") as answers:
        answers.write(json.dumps(told).encode())
    os._exit(0)


def _words(error: BaseException) -> dict[str, str]:
    found = diagnose(error)
    return {"title": found.title, "message": found.message, "hint": found.hint}
