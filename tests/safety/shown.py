"""The app as a program of its own, with what a test gives it: python -m tests.safety.shown SCREEN WORDS_AS_JSON.

SCREEN is a step of a set-up, of the draft in WORDS, or the monitor of its run.
"""

import itertools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.results.asking import HeldOutPrompt, Opened
from core.runs.folder import RunFolder
from core.runs.launch import WarmRunner
from tui_app.app import SftuiApp
from tui_app.dialogs.error import ErrorDialog


class Shown(SftuiApp):
    """The app, which also shows dialogs and messages of the words it is given, or ends with a defect of such words."""

    def on_mount(self) -> None:
        """Show what lies over the screen."""
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        for text in WORDS.get("errors", []):
            self.push_screen(ErrorDialog.of(SftuiError(text, text, text)))
            self.push_screen(ErrorDialog.of(ValueError(text)))
            self.push_screen(ErrorDialog.of(OSError(2, text, text)))
            self.notify(text, title=text)
        if "defect" in WORDS:
            secret = WORDS["secret"]
            raise ValueError(WORDS["defect"], len(secret))


class Answers:
    """Stands for the process that holds a model: all that it says are the words of the test."""

    is_idle = True

    def __init__(self) -> None:
        self._texts = itertools.cycle(WORDS["answers"])

    def ask(
        self, question: Mapping[str, Any], timeout: float | None, hear: Callable[[dict[str, Any]], object]
    ) -> dict[str, Any]:
        """Answer."""
        text = self._texts.__next__
        match question["ask"]:
            case "open_result":
                hear({"name": text(), "done": 1, "total": 2})
                prompts = tuple(HeldOutPrompt(text(), text() + text(), text()) for _ in range(60))
                sides = ("base", f"result {text()}")
                notices = ((text(), text()), (text(), text()))
                return Opened(sides, text(), text(), text(), False, prompts, 60, notices).to_json()
            case "chat":
                hear({"text": text()})
                said = "\n".join([*(text() for _ in range(150)), "the end of an answer"])
                return {"text": said, "tokens": 1, "seconds": 1.0, "end": text()}
            case _:
                hear({"side": text(), "what": text(), "done": 1, "total": 2})
                figures = {"rows": 1, "trained_tokens": 1, "loss": 1.0, "perplexity": 1.0, "token_accuracy": 1.0}
                return {text(): {**figures, "prompts": 1, "exact": 1, "whole": True} for _ in range(3)}

    def cancel(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """There is no process."""


WORDS: dict[str, Any] = json.loads(sys.argv[2])

if __name__ == "__main__":
    if "answers" in WORDS:
        setattr(WarmRunner, "start", Answers)  # noqa: B010
    watched = RunFolder(Path(WORDS["run"])) if "run" in WORDS else None
    app = Shown(open_screen=sys.argv[1], draft_values=WORDS.get("draft"), run=watched, warm=False)
    app.run()
    sys.exit(app.return_code)
