"""A list of models in columns, which moves by arrows and by vi keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from core.text import cell_width, safe, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

Item = TypeVar("Item")
Cell = tuple[str, int, str]
"""Text, width (negative: right-aligned), style."""
_NARROWEST, NARROWEST_NAME = 24, 26


class FoundList(OptionList, Generic[Item], can_focus=True):
    """Models, one a line; subclasses say what stands in a line."""

    DEFAULT_CSS = """
    FoundList {
        background: $background; border: none; height: 1fr; padding: 0;
        scrollbar-gutter: stable; scrollbar-size-vertical: 1;
    }
    FoundList:focus { border: none; }
    FoundList > .option-list--option-highlighted, FoundList:focus > .option-list--option-highlighted {
        text-style: bold underline;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "first", "First", show=False),
        Binding("G", "last", "Last", show=False),
    ]

    class Changed(Message):
        """More was found, or all."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.listed: tuple[Item, ...] = ()
        self._drawn: object = None

    @property
    def current(self) -> Item | None:
        """What one is on."""
        return self.listed[self.highlighted] if self.highlighted is not None else None

    def line(self, item: Item, width: int) -> Content:
        """One line of the list."""
        raise NotImplementedError

    def about(self) -> Content:
        """More about what one is on."""
        raise NotImplementedError

    def on_resize(self) -> None:
        """Columns follow the width."""
        if self._drawn is not None:
            self._draw(self.highlighted)

    def put(self, items: Sequence[Item], at: int | None, marks: object) -> None:
        """List these, one highlighted; `marks` is what lines depend on besides the items."""
        listed = tuple(items)
        if (listed, marks) != (self.listed, self._drawn):
            self.listed, self._drawn = listed, marks
            self._draw(at)
        elif at is not None or self.highlighted is None:
            self.highlighted = at

    def _draw(self, at: int | None) -> None:
        width = max(_NARROWEST, self.scrollable_content_region.width - 1)
        self.set_options([Option(self.line(item, width)) for item in self.listed])
        self.highlighted = at


def columns(mark: str, name: str, cells: Sequence[Cell], width: int) -> Content:
    """A mark, a name that takes the room there is, and cells; those that leave the name no room go, the last first."""
    kept = list(cells)
    while kept and width - 2 - sum(abs(size) + 2 for _, size, _ in kept) < NARROWEST_NAME:
        kept.pop()
    room = width - 2 - sum(abs(size) + 2 for _, size, _ in kept)
    parts: list[str | tuple[str, str]] = [f"{mark} {_padded(name, room)}"]
    for text, size, style in kept:
        parts.append((f"  {_padded(text, size)}", style))
    return Content.assemble(*parts)


def _padded(text: str, width: int) -> str:
    shown = shorten(safe(text), abs(width))
    blanks = " " * (abs(width) - cell_width(shown))
    return blanks + shown if width < 0 else shown + blanks
