"""Facts as titles and values in two columns, with values that wrap within theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import Static

from core.text import cell_width, safe

_NARROWEST = 16
# With less room than this beside the titles, notes go below, over the whole width.
_ROOM_FOR_NOTES = 36


@dataclass(frozen=True, slots=True)
class Fact:
    """One line; without a title, the value takes the whole width."""

    title: str
    value: Content | str = ""
    note: str = ""
    """In grey after the value: why it is so."""


def heading(text: str) -> Fact:
    """A heading between facts."""
    return Fact("", Content.styled(text, "$accent bold"))


BLANK = Fact("")


class FactList(Static):
    """Lines of facts."""

    DEFAULT_CSS = """
    FactList { height: auto; padding: 0 1; }
    """

    def __init__(self, title_width: int = 18, *, id: str | None = None) -> None:
        super().__init__(markup=False, id=id)
        self._title_width = title_width
        self._facts: tuple[Fact, ...] = ()
        self._drawn: tuple[int, tuple[Fact, ...]] | None = None

    def show(self, facts: Sequence[Fact]) -> None:
        """Show other facts."""
        self._facts = tuple(facts)
        self._draw()

    def on_resize(self) -> None:
        """Values wrap anew."""
        self._draw()

    def _draw(self) -> None:
        width = self.content_size.width
        if (width, self._facts) == self._drawn:
            return
        self._drawn = (width, self._facts)
        lines = [line for fact in self._facts for line in self._lines(fact, max(width, _NARROWEST + self._title_width))]
        self.update(Content("\n").join(lines))

    def _lines(self, fact: Fact, width: int) -> list[Content]:
        value = Content(safe(fact.value)) if isinstance(fact.value, str) else fact.value
        below: list[Content] = []
        if fact.note and fact.title and width - self._title_width < _ROOM_FOR_NOTES:
            note = Content.styled(safe(fact.note), "$secondary")
            below = [Content("    ") + line.rstrip() for line in note.wrap(width - 4)]
        elif fact.note:
            gap = "  " if value.plain else ""
            value = Content.assemble(value, (gap + safe(fact.note), "$secondary"))
        if not fact.title:
            return value.wrap(width) if value.plain else [value]
        title = safe(fact.title)
        padding = " " * max(1, self._title_width - cell_width(title))
        head = Content.assemble((title + padding, "$secondary"))
        indent = Content(" " * self._title_width)
        wrapped = value.wrap(width - self._title_width) or [Content("")]
        lines = [(head if number == 0 else indent) + line.rstrip() for number, line in enumerate(wrapped)]
        return lines + below
