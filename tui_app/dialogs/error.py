"""An error in words: what happened and what to do."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from core.errors import SftuiError
from core.paths import state_home, write_atomically
from core.text import safe

if TYPE_CHECKING:
    from textual.app import ComposeResult


class ErrorDialog(ModalScreen[None]):
    """Shows an error until it is closed; the screen beneath stays as it was."""

    DEFAULT_CSS = """
    ErrorDialog { align: center middle; background: $background 60%; }
    ErrorDialog > Vertical {
        width: 76; max-width: 94%; height: auto; max-height: 90%; padding: 1 2;
        background: $surface; border: round $error;
    }
    ErrorDialog .title { text-style: bold; color: $error; margin-bottom: 1; }
    ErrorDialog VerticalScroll { height: auto; max-height: 14; }
    ErrorDialog .hint { margin-top: 1; }
    ErrorDialog Horizontal { height: auto; margin-top: 1; align-horizontal: right; }
    """
    BINDINGS = [Binding("escape,q", "dismiss(None)", "Close", show=False)]

    def __init__(self, title: str, message: str, hint: str = "") -> None:
        super().__init__()
        self._title, self._message, self._hint = safe(title), message, hint

    @classmethod
    def of(cls, error: BaseException) -> ErrorDialog:
        """The dialog for an error; a defect's traceback goes into a file that the dialog names."""
        if isinstance(error, SftuiError):
            return cls(error.title, error.message, error.hint)
        if isinstance(error, OSError):
            return cls("The system refused", str(error))
        return cls(*defect(error))

    def compose(self) -> ComposeResult:
        """Lay out the words."""
        with Vertical():
            yield Static(f"✗ {self._title}", classes="title", markup=False)
            with VerticalScroll():
                yield Static(safe(self._message, keep_newlines=True), markup=False)
                if self._hint:
                    yield Static(safe(self._hint, keep_newlines=True), classes="hint", markup=False)
            with Horizontal():
                yield Button("Close (escape)", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Let enter close it."""
        self.query_one(Button).focus()

    def on_button_pressed(self) -> None:
        """Close."""
        self.dismiss(None)


def defect(error: BaseException) -> tuple[str, str, str]:
    """A title, what happened and where the traceback is kept, all of it safe to show."""
    return "A defect in sftui", safe(f"{type(error).__name__}: {error}", keep_newlines=True), safe(_kept(error))


def _kept(error: BaseException) -> str:
    file = state_home() / f"error-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(file, "".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f"Its traceback is in {file}."
