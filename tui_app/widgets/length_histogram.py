"""How long rows are, drawn in blocks: as many columns as there is room for, and where rows are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

if TYPE_CHECKING:
    from textual.app import RenderResult

_BLOCKS = " ▁▂▃▄▅▆▇█"
_LEAST_WIDTH = 12


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Rows of `shortest` to `longest` tokens."""

    shortest: int
    longest: int
    rows: int


class LengthHistogram(Widget):
    """Rows over their length in tokens; ┊ marks the length at which rows are cut."""

    DEFAULT_CSS = """
    LengthHistogram { height: 3; width: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._bins: tuple[LengthBin, ...] = ()
        self._cut: int | None = None

    def show(self, bins: Sequence[LengthBin], cut: int | None) -> None:
        """Show other lengths; `cut` is max_length, None where rows stay whole."""
        if (tuple(bins), cut) != (self._bins, self._cut):
            self._bins, self._cut = tuple(bins), cut
            self.refresh()

    def render(self) -> RenderResult:
        """Draw bars, then the axis with the lengths at its ends and at the cut."""
        width, height = self.size.width, self.size.height
        if not self._bins or width < _LEAST_WIDTH or height < 2:
            return Content("")
        first, last = self._bins[0].shortest, self._bins[-1].longest
        columns = spread(self._bins, width)
        cut = None
        if self._cut is not None and first <= self._cut < last:
            cut = min(width - 1, int((self._cut - first) / (last - first) * width))
        lines = [_bar_line(row, cut) for row in bars(columns, height - 1)]
        return Content("\n").join([*lines, _axis(first, last, self._cut, cut, width)])


def spread(bins: Sequence[LengthBin], columns: int) -> list[float]:
    """Rows in each of `columns` equal steps over all lengths."""
    first = bins[0].shortest
    step = (bins[-1].longest + 1 - first) / columns
    found = [0.0] * columns
    for each in bins:
        low, high = (each.shortest - first) / step, (each.longest + 1 - first) / step
        for column in range(int(low), min(columns, int(high) + 1)):
            share = max(0.0, min(high, column + 1) - max(low, column)) / (high - low)
            found[column] += each.rows * share
    return found


def bars(values: Sequence[float], height: int) -> list[str]:
    """Bars of eighths of a cell, the highest one `height` cells, from the top line down; what is there is seen."""
    top = max(values, default=0.0)
    if top <= 0:
        return [" " * len(values)] * height
    eighths = [max(1, round(value / top * height * 8)) if value > 0 else 0 for value in values]
    return [
        "".join(_BLOCKS[max(0, min(8, count - 8 * level))] for count in eighths) for level in range(height - 1, -1, -1)
    ]


def _bar_line(row: str, cut: int | None) -> Content:
    if cut is None:
        return Content.styled(row, "$primary")
    mark = row[cut] if row[cut] != " " else "┊"
    return Content.assemble((row[:cut], "$primary"), (mark, "$accent"), (row[cut + 1 :], "$warning"))


def _axis(first: int, last: int, length: int | None, cut: int | None, width: int) -> Content:
    start, end = f"{first:,}", f"{last:,}"
    middle = ""
    if cut is not None:
        middle = f"✂ {length:,}"
        at = max(len(start) + 1, min(cut, width - len(end) - len(middle) - 1))
        if at + len(middle) + len(end) < width:
            head = start.ljust(at)
            return Content.assemble(
                (head, "$secondary"), (middle, "$accent"), (end.rjust(width - at - len(middle)), "$secondary")
            )
    return Content.styled(start + end.rjust(width - len(start)), "$secondary")
