"""One row of a dataset as a conversation, with what the model learns from; left and right move between rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.text import human_count, safe

if TYPE_CHECKING:
    from textual.app import ComposeResult

_ROLES = {"system": "System", "developer": "Developer", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_TRAINED = "+"
_NARROWEST = 20


class RowView(VerticalScroll, can_focus=True):
    """The rows of a preview, one at a time."""

    DEFAULT_CSS = """
    RowView { height: 1fr; min-height: 6; padding: 0 1; border-left: blank; }
    RowView:focus { border-left: outer $accent; }
    RowView > Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l", "move(1)", "Next row", key_display="←→"),
        Binding("left", "move(-1)", "Previous row", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[dict[str, Any]] = ()
        self._total = 0
        self._trained: frozenset[str] = frozenset()
        self.at = 0

    def compose(self) -> ComposeResult:
        """The row."""
        yield Static(markup=False)

    def show(self, rows: Sequence[dict[str, Any]], total: int, trained: frozenset[str]) -> None:
        """Show rows; `trained` are the roles (also "prompt", "completion", "text") that the loss counts."""
        if rows is not self._rows:
            self.at = 0
        self._rows, self._total, self._trained = rows, total, trained
        self._draw()

    def on_resize(self) -> None:
        """Lines wrap anew."""
        self._draw()

    def action_move(self, by: int) -> None:
        """Show the next or the previous row."""
        if self._rows:
            self.at = max(0, min(len(self._rows) - 1, self.at + by))
            self._draw()
            self.scroll_home(animate=False)

    def _draw(self) -> None:
        static = self.query_one(Static)
        if not self._rows:
            static.update("")
            return
        of = f"{human_count(self._total)}" if self._total <= len(self._rows) else f"the first {len(self._rows)}"
        note = f"Row {self.at + 1} of {of}   {_TRAINED} marks what is learnt from"
        lines = [Content.styled(note, "$secondary")]
        width = max(_NARROWEST, self.scrollable_content_region.width - 2)
        for role, text in turns(self._rows[self.at]):
            learnt = role in self._trained
            mark = f"{_TRAINED} " if learnt else "  "
            title = _ROLES.get(role, safe(role).capitalize())
            lines.append(Content.styled(f"{mark}{title}", "bold $accent" if learnt else "bold $secondary"))
            wrapped = [part for line in text.split("\n") for part in Content(safe(line)).wrap(width)]
            # Every line has its mark, so that also the middle of a long turn can be told.
            lines += [Content.assemble((mark, "$accent"), line.rstrip()) for line in wrapped]
        static.update(Content("\n").join(lines))


def turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The row as (role, text) in order; a prompt or completion of messages becomes its messages."""
    found: list[tuple[str, str]] = []
    for name in ("messages", "prompt", "completion", "text"):
        value = row.get(name)
        if isinstance(value, str):
            found.append((name, value))
        elif isinstance(value, list):
            found += [_message(entry) for entry in value]
    return found or [(name, value if isinstance(value, str) else _json(value)) for name, value in row.items()]


def _message(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, dict):
        return "?", _json(entry)
    content = entry.get("content")
    return str(entry.get("role", "?")), content if isinstance(content, str) else _json(content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
