"""The end of a run's log."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

_MOST_LINES = 500


class LogTail(VerticalScroll):
    """The last 500 lines, which must be safe to show already; stays at the end unless scrolled up."""

    DEFAULT_CSS = """
    LogTail { border: round $border-blurred; border-title-color: $foreground; padding: 0 1; height: 1fr; }
    LogTail:focus { border: round $border; }
    LogTail > Static { height: auto; color: $secondary; }
    """
    BINDINGS = [
        Binding("j", "scroll_down", "Down", show=False, tooltip="Scroll down (or ↓)"),
        Binding("k", "scroll_up", "Up", show=False, tooltip="Scroll up (or ↑)"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Log"
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._text = Static("The log is empty so far.", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield self._text

    def append(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        at_end = self.scroll_y >= self.max_scroll_y - 1
        self._lines.extend(lines)
        self._text.update(Content("\n".join(self._lines)))
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)
