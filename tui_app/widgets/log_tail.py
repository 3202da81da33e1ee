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

    def __init__(self, title: str = "Log", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = self._title = title
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._wanted = ""
        self._text = Static("Nothing so far.", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield self._text

    def append(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        self._lines.extend(lines)
        self._draw()

    def replace(self, lines: Sequence[str]) -> None:
        """Show these lines instead."""
        if list(lines)[-_MOST_LINES:] != list(self._lines):
            self._lines.clear()
            self.append(lines)

    def search(self, wanted: str) -> None:
        """Show only lines with these words, whatever their case; all of them for none."""
        self._wanted = wanted.strip().lower()
        self._draw()

    def _draw(self) -> None:
        at_end = self.scroll_y >= self.max_scroll_y - 1
        found = [line for line in self._lines if self._wanted in line.lower()]
        title = f"{self._title}   {len(found)} of {len(self._lines)} lines with “{self._wanted}”"
        self.border_title = Content(title if self._wanted else self._title)
        self._text.update(Content("\n".join(found)))
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)
