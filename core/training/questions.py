"""Answers questions that need torch and its kin, in order, on a thread of the warm runner."""

import contextlib
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from core.diagnosis import diagnose
from core.errors import SftuiError
from core.training.libraries import libraries_to_oneself
from core.training.simulations import Simulations

IN_PARTS = ("open_result", "add_result", "chat", "measure")
"""Questions whose answers come in parts."""


class Talk:
    """What the answer to one question is told through, piece by piece, before it is whole."""

    def __init__(self, say: Callable[[dict[str, Any]], object], is_over: Callable[[], bool]) -> None:
        self.say = say
        """Tell a part of the answer."""
        self.is_over = is_over
        """Whether nobody wants to hear more."""


class Answerer(threading.Thread):
    """Writes an answer for each question to a pipe, of which it is the owner: JSON lines, {"id", "answer"|"error"}.

    Before them, a long answer may have lines of its parts, {"id", "part"}. A question that is under way when it is
    stopped goes on to its end, which a long one comes to soon; those behind it are dropped. Simulations go beside: they
    keep nobody waiting, a new one ends the one before, and stopping ends it at once.
    """

    def __init__(self, pipe: int) -> None:
        super().__init__(name="sftui-answers", daemon=True)
        self._pipe: IO[bytes] = os.fdopen(pipe, "wb", buffering=0)
        self._writing = threading.Lock()
        self._simulations = Simulations()
        self._questions: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._stopped = False
        self._cancelled_up_to = 0

    def ask(self, question: Mapping[str, Any]) -> None:
        """Take a question; returns at once."""
        if question.get("ask") == "simulate":
            self._simulations.ask(question, partial(self._write, question["id"]))
        else:
            self._questions.put(question)

    def cancel(self, up_to: int) -> None:
        """Let long answers to questions up to this number come to an end; returns at once."""
        self._cancelled_up_to = up_to

    def stop(self) -> None:
        """Answer nothing more; returns at once."""
        self._stopped = True
        self._simulations.stop()
        self._questions.put(None)

    def run(self) -> None:
        """The thread's body; start it with `start`."""
        while (question := self._questions.get()) is not None:
            write = partial(self._write, question["id"])
            if (told := self._told(question, write)) is None:
                break
            write(told)
        with self._writing:
            self._pipe.close()

    def _write(self, number: int, told: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps({"id": number, **told}).encode() + b"\n")
        # Whoever asked may be gone, or the pipe closed: there is nobody to tell then.
        with self._writing, contextlib.suppress(OSError, ValueError):
            while line:
                line = line[self._pipe.write(line) :]

    def _told(self, question: Mapping[str, Any], write: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """The answer, or why there is none, such as a library that cannot be imported; None once it is stopped."""
        number = question["id"]
        talk = Talk(lambda part: write({"part": part}), lambda: self._stopped or number <= self._cancelled_up_to)
        try:
            with libraries_to_oneself():
                if self._stopped:
                    return None
                if question.get("ask") in IN_PARTS:
                    return {"answer": answer_in_parts(question, talk)}
                return {"answer": answer(question)}
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever asked must hear of it
            if not isinstance(error, SftuiError):
                traceback.print_exception(error)
            found = diagnose(error)
            return {"error": {"title": found.title, "message": found.message, "hint": found.hint}}


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one question. Raises SftuiError.

    {"ask": "inventory", "folder", "auto_class"}                             an Inventory
    {"ask": "layers", "folder", "auto_class", "on_gpu"}                      LayerTraces
    {"ask": "row", "store", "index", "folder", "options"}                    a SeenRow
    {"ask": "lengths", "store", "start", "stop", "folder", "options"}        what TokenCounts.add takes

    {"ask": "simulate", "task"}, a SimulationTask, has a Simulation for an answer; it is core.training.simulations'.
    """
    match question.get("ask"):
        case "inventory":
            from core.models.inventory import build_inventory

            return build_inventory(Path(question["folder"]), question["auto_class"]).to_json()
        case "layers":
            from core.memory.layer_tracing import trace_layers

            return trace_layers(Path(question["folder"]), question["auto_class"], on_gpu=question["on_gpu"]).to_json()
        case "row":
            from core.training.row_questions import answer_row

            return answer_row(question)
        case "lengths":
            from core.training.row_questions import answer_lengths

            return answer_lengths(question)
        case other:
            raise SftuiError("Not a question", f"The warm runner has no answer to {other!r}.")


def answer_in_parts(question: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """The answer to one question about a run's result, told in parts on the way. Raises SftuiError.

    {"ask": "open_result", "of", "step", "device", "all"}                    an Opened; parts are Phases
    {"ask": "add_result", "of", "step"}                                      an Opened; parts are Phases
    {"ask": "chat", "side", "turns", "sampling"}                             a Said; parts are {"text"}
    {"ask": "measure", "sides", "rows"}                                      by side a Measured; parts are Progress
    """
    from core.results import answering

    match question["ask"]:
        case "open_result":
            return answering.open_result(question, talk.say, talk.is_over)
        case "add_result":
            return answering.add_result(question, talk.say, talk.is_over)
        case "chat":
            return answering.chat(question, talk.say, talk.is_over)
        case _:
            return answering.measure(question, talk.say, talk.is_over)
