"""Answers questions that need torch and its kin, in order, on a thread of the warm runner."""

import contextlib
import json
import os
import queue
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.diagnosis import diagnose
from core.errors import SftuiError
from core.training.libraries import libraries_to_oneself


class Answerer(threading.Thread):
    """Writes an answer for each question to a pipe, of which it is the owner: one JSON line, {"id", "answer"|"error"}.

    A question that is under way when it is stopped goes on to its end; those behind it are dropped.
    """

    def __init__(self, pipe: int) -> None:
        super().__init__(name="sftui-answers", daemon=True)
        self._pipe = pipe
        self._questions: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._stopped = False

    def ask(self, question: Mapping[str, Any]) -> None:
        """Take a question; returns at once."""
        self._questions.put(question)

    def stop(self) -> None:
        """Answer nothing more; returns at once."""
        self._stopped = True
        self._questions.put(None)

    def run(self) -> None:
        """The thread's body; start it with `start`."""
        # Whoever asked may be gone: there is nobody to tell then.
        with contextlib.suppress(OSError), os.fdopen(self._pipe, "wb", buffering=0) as pipe:
            while (question := self._questions.get()) is not None:
                told = self._told(question)
                if told is None:
                    return
                line = memoryview(json.dumps({"id": question["id"], **told}).encode() + b"\n")
                while line:
                    line = line[pipe.write(line) :]

    def _told(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer, or why there is none, such as a library that cannot be imported; None once it is stopped."""
        try:
            with libraries_to_oneself():
                return None if self._stopped else {"answer": answer(question)}
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever asked must hear of it
            if not isinstance(error, SftuiError):
                traceback.print_exception(error)
            found = diagnose(error)
            return {"error": {"title": found.title, "message": found.message, "hint": found.hint}}


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one question. Raises SftuiError.

    {"ask": "inventory", "folder", "auto_class"}                             an Inventory
    {"ask": "row", "store", "index", "folder", "options"}                    a SeenRow
    {"ask": "lengths", "store", "start", "stop", "folder", "options"}        what TokenCounts.add takes
    """
    match question.get("ask"):
        case "inventory":
            from core.models.inventory import build_inventory

            return build_inventory(Path(question["folder"]), question["auto_class"]).to_json()
        case "row":
            from core.training.row_questions import answer_row

            return answer_row(question)
        case "lengths":
            from core.training.row_questions import answer_lengths

            return answer_lengths(question)
        case other:
            raise SftuiError("Not a question", f"The warm runner has no answer to {other!r}.")
