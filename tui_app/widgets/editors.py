"""Editors of one line for choices and switches: keys change the value, nothing pops up over the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from core.text import safe

if TYPE_CHECKING:
    from textual import events
    from textual.app import RenderResult
    from textual.geometry import Size

_GAP = 2


class ChoiceEditor(Widget, can_focus=True):
    """`(•) none  ( ) 8-bit  ( ) 4-bit`: all choices in sight, left and right move between them."""

    DEFAULT_CSS = """
    ChoiceEditor { height: auto; width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "move(1)", "Next choice", show=False),
        Binding("left", "move(-1)", "Previous choice", show=False),
    ]

    class Changed(Message):
        """The user chose."""

        def __init__(self, editor: ChoiceEditor, value: str) -> None:
            super().__init__()
            self.editor = editor
            self.value = value

        @property
        def control(self) -> ChoiceEditor:
            """The editor it came from."""
            return self.editor

    def __init__(self, labels: Mapping[str, str], value: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._labels = {key: safe(label) for key, label in labels.items()}
        self._value = value
        self._places: list[tuple[int, int, int, str]] = []

    @property
    def value(self) -> str:
        """The key of what is chosen; none of the labels' keys where the value is not valid."""
        return self._value

    def show(self, value: str, labels: Mapping[str, str] | None = None) -> None:
        """Show another value, or other choices, without telling anyone."""
        cleaned = self._labels if labels is None else {key: safe(label) for key, label in labels.items()}
        if (value, cleaned) != (self._value, self._labels):
            self._value, self._labels = value, cleaned
            self.refresh(layout=labels is not None)

    def action_move(self, by: int) -> None:
        """Choose the next or previous one, around the ends."""
        keys = list(self._labels)
        at = keys.index(self._value) if self._value in keys else (-1 if by > 0 else 0)
        self._choose(keys[(at + by) % len(keys)])

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the choices need at this width."""
        return len(self._rows(width))

    def render(self) -> RenderResult:
        """Draw the choices; the chosen one is marked by its dot, the focus by its background."""
        lines: list[Content] = []
        self._places = []
        for number, row in enumerate(self._rows(self.size.width)):
            parts: list[str | tuple[str, str]] = []
            column = 0
            for key in row:
                text = f"({'•' if key == self._value else ' '}) {self._labels[key]}"
                self._places.append((number, column, column + len(text), key))
                parts += [(text, self._style(key)), " " * _GAP]
                column += len(text) + _GAP
            lines.append(Content.assemble(*parts))
        return Content("\n").join(lines)

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked."""
        for row, start, end, key in self._places:
            if event.y == row and start <= event.x < end:
                self._choose(key)

    def on_focus(self) -> None:
        """Draw the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """Draw its absence."""
        self.refresh()

    def _choose(self, key: str) -> None:
        if key != self._value:
            self._value = key
            self.refresh()
            self.post_message(self.Changed(self, key))

    def _style(self, key: str) -> str:
        if key != self._value:
            return "$secondary"
        if self.has_focus:
            return "$block-cursor-foreground on $block-cursor-background bold"
        return "$foreground"

    def _rows(self, width: int) -> list[list[str]]:
        rows: list[list[str]] = [[]]
        used = 0
        for key, label in self._labels.items():
            needed = len(label) + 4
            if rows[-1] and used + needed > width:
                rows.append([])
                used = 0
            rows[-1].append(key)
            used += needed + _GAP
        return rows


class SwitchEditor(Widget, can_focus=True):
    """`[x]`: space turns it over."""

    DEFAULT_CSS = """
    SwitchEditor { height: 1; width: 3; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("space,x", "turn", "On or off", show=False)]

    class Changed(Message):
        """The user turned it."""

        def __init__(self, editor: SwitchEditor, value: bool) -> None:
            super().__init__()
            self.editor = editor
            self.value = value

        @property
        def control(self) -> SwitchEditor:
            """The editor it came from."""
            return self.editor

    def __init__(self, value: bool = False, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._value = value

    @property
    def value(self) -> bool:
        """Whether it is on."""
        return self._value

    def show(self, value: bool) -> None:
        """Show another value without telling anyone."""
        if value != self._value:
            self._value = value
            self.refresh()

    def action_turn(self) -> None:
        """Turn it over."""
        self._value = not self._value
        self.refresh()
        self.post_message(self.Changed(self, self._value))

    def render(self) -> RenderResult:
        """Draw it; the focus by its background."""
        style = "$block-cursor-foreground on $block-cursor-background bold" if self.has_focus else "$foreground"
        return Content.styled("[x]" if self._value else "[ ]", style)

    def on_click(self) -> None:
        """Turn it over."""
        self.action_turn()

    def on_focus(self) -> None:
        """Draw the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """Draw its absence."""
        self.refresh()
