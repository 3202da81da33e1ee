"""Asks for one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult


class AskText(ModalScreen[str | None]):
    """A line of text, or None after escape. The title and the explanation must be safe to show.

    `refuse` says what is wrong with a text, or "" for a good one.
    """

    DEFAULT_CSS = """
    AskText { align: center middle; background: $background 60%; }
    AskText > Vertical {
        width: 64; max-width: 90%; height: auto; max-height: 90%; padding: 1 2;
        background: $surface; border: round $border;
    }
    AskText .title { text-style: bold; margin-bottom: 1; }
    AskText Input { margin-top: 1; }
    AskText #wrong { color: $error; height: auto; }
    """
    BINDINGS = [Binding("escape", "leave", "Leave it", show=False)]

    def __init__(self, title: str, explanation: str, text: str, refuse: Callable[[str], str]) -> None:
        super().__init__()
        self._title, self._explanation, self._text, self._refuse = title, explanation, text, refuse

    def compose(self) -> ComposeResult:
        """Lay out the question and the field."""
        with Vertical():
            yield Static(self._title, classes="title", markup=False)
            yield Static(self._explanation, markup=False)
            yield Input(self._text, compact=True)
            yield Static("", id="wrong", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was wrong may be right by now."""
        self.query_one("#wrong", Static).update("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take a good text, say what is wrong with another."""
        event.stop()
        wrong = self._refuse(event.value)
        if wrong:
            self.query_one("#wrong", Static).update(wrong)
        else:
            self.dismiss(event.value)

    def action_leave(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)
