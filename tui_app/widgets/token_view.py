"""Text in pieces that are learnt from or not: wrapped, scrolled, and drawn only where it is seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from core.text import cell_width, safe

Kind = Literal["masked", "trained", "special", "special-trained", "untrained-end", "cut", "heading", "note", "problem"]
TRAINED: frozenset[Kind] = frozenset({"trained", "special-trained"})
_MARKS = {True: "+ ", False: "  "}
_CUT_MARK = "✂ "
_NARROWEST = 20
_WORDS = re.compile(r"\n|[^\S\n]+|\S+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A text of one kind: a token, a turn, or the title of one. A `border` after it shows where a token ends."""

    text: str
    kind: Kind = "masked"
    border: bool = False


@dataclass(slots=True)
class Line:
    """A line as it is drawn: a mark, then texts with their styles."""

    mark: str = "  "
    parts: list[tuple[str, str]] = field(default_factory=list)
    width: int = 0

    @property
    def text(self) -> str:
        """The line without its mark."""
        return "".join(text for text, _ in self.parts)


class TokenView(ScrollView, can_focus=True):
    """What is learnt from stands in brackets, in its own colour, on lines that begin with +."""

    DEFAULT_CSS = """
    TokenView { height: 1fr; min-height: 3; overflow-x: hidden; }
    TokenView > .token--masked { color: $secondary; }
    TokenView > .token--trained { color: $success; }
    TokenView > .token--special { color: $primary; text-style: italic; }
    TokenView > .token--special-trained { color: $success; text-style: italic bold; }
    TokenView > .token--bracket { color: $success; text-style: bold reverse; }
    TokenView > .token--border { color: $border-blurred; }
    TokenView > .token--untrained-end { color: $error; text-style: bold reverse; }
    TokenView > .token--cut { color: $border-blurred; text-style: strike; }
    TokenView > .token--heading { color: $foreground; text-style: bold; }
    TokenView > .token--note { color: $warning; }
    TokenView > .token--problem { color: $error; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token--{kind}"
        for kind in (
            *("masked", "trained", "special", "special-trained", "untrained-end"),
            *("cut", "heading", "note", "problem", "bracket", "border"),
        )
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pieces: Sequence[Piece] = ()
        self._brackets = True
        self._lines: list[Line] = []
        self._laid_out: tuple[Sequence[Piece], int] | None = None

    def show(self, pieces: Sequence[Piece], *, brackets: bool = True) -> None:
        """Show other pieces, from their top; the same ones stay where they are."""
        if pieces == self._pieces and brackets == self._brackets:
            return
        self._pieces, self._brackets, self._laid_out = pieces, brackets, None
        if self.is_mounted:
            self.scroll_home(animate=False)
            self._lay_out()

    @property
    def text(self) -> str:
        """All lines with their marks, as they are drawn."""
        return "\n".join((line.mark + line.text).rstrip() for line in self._lines)

    def on_resize(self) -> None:
        """Lines wrap anew."""
        self._lay_out()

    def _lay_out(self) -> None:
        width = self.scrollable_content_region.width
        if width <= 0 or (self._laid_out is not None and self._laid_out == (self._pieces, width)):
            return
        self._laid_out = (self._pieces, width)
        self._lines = wrap(self._pieces, max(_NARROWEST, width - 2), brackets=self._brackets)
        self.virtual_size = Size(width, len(self._lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the visible part."""
        at = int(self.scroll_offset.y) + y
        width = self.scrollable_content_region.width
        base = self.rich_style
        if at >= len(self._lines):
            return Strip.blank(width, base)
        line = self._lines[at]
        styles = {style: self.get_component_rich_style(f"token--{style}") for _, style in line.parts}
        mark = self.get_component_rich_style("token--trained" if line.mark == _MARKS[True] else "token--masked")
        segments = [Segment(line.mark, mark), *(Segment(text, styles[style]) for text, style in line.parts)]
        return Strip(segments).adjust_cell_length(width, base)


def wrap(pieces: Iterable[Piece], width: int, *, brackets: bool = True) -> list[Line]:
    """Pieces as lines of at most `width` cells, broken at spaces where there are any.

    A newline inside a piece is drawn as ⏎ and ends its line; headings, notes and problems have lines of their own.
    """
    lines: list[Line] = [Line()]
    word: list[tuple[str, str]] = []

    def flush() -> None:
        # The space between two words hangs over the end of the line.
        needed = sum(cell_width(text) for text, _ in word) - (cell_width(word[-1][0]) if _ends(word) else 0)
        if lines[-1].width and lines[-1].width + needed > width:
            lines.append(Line())
        for text, style in word:
            if text.isspace():
                _add(lines[-1], text[: width - lines[-1].width], style)
            else:
                for part in _cut(text, width, lines):
                    _add(lines[-1], part, style)
        word.clear()

    for text, style in _styled(pieces, brackets=brackets):
        if text == "\n":
            flush()
            lines.append(Line())
            continue
        if _ends(word) and not text.isspace():
            flush()
        word.append((text, style))
    flush()
    if len(lines) > 1 and not lines[-1].parts:
        lines.pop()
    return lines


def _ends(word: Sequence[tuple[str, str]]) -> bool:
    return bool(word) and word[-1][0].isspace()


def _styled(pieces: Iterable[Piece], *, brackets: bool) -> Iterator[tuple[str, str]]:
    """Words with their styles; "\\n" where a line ends."""
    open_bracket = False
    fresh = True
    for piece in pieces:
        learnt = piece.kind in TRAINED
        if brackets and open_bracket and not learnt:
            yield "]", "bracket"
            fresh = False
        own_line = piece.kind in ("heading", "note", "problem")
        if own_line and not fresh:
            yield "\n", ""
        if brackets and learnt and not open_bracket:
            yield "[", "bracket"
        open_bracket = learnt
        for word in _WORDS.findall(piece.text):
            fresh = word == "\n"
            if not fresh:
                yield safe(word), piece.kind
            elif own_line:
                yield "\n", ""
            else:
                yield "⏎", piece.kind
                yield "\n", ""
        if own_line:
            yield "\n", ""
            fresh = True
        elif piece.border and not fresh:
            yield "│", "border"
    if brackets and open_bracket:
        yield "]", "bracket"


def _cut(text: str, width: int, lines: list[Line]) -> Iterator[str]:
    """The parts of a word that is too long for a line, each for a line of its own."""
    while cell_width(text) > width - lines[-1].width:
        room, kept = width - lines[-1].width, 0
        for character in text:
            room -= cell_width(character)
            if room < 0:
                break
            kept += 1
        if not kept and not lines[-1].width:
            kept = 1
        yield text[:kept]
        text = text[kept:]
        lines.append(Line())
    if text:
        yield text


def _add(line: Line, text: str, style: str) -> None:
    if not text:
        return
    line.width += cell_width(text)
    if style in TRAINED:
        line.mark = _MARKS[True]
    elif style == "cut" and line.mark == _MARKS[False]:
        line.mark = _CUT_MARK
    if line.parts and line.parts[-1][1] == style:
        line.parts[-1] = (line.parts[-1][0] + text, style)
    else:
        line.parts.append((text, style))
