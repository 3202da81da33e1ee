"""A loss chart in braille dots: the whole run at any length, without numpy and without a redraw for old news."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from tui_app.format import number

if TYPE_CHECKING:
    from textual.app import RenderResult

_MOST_BUCKETS = 1024
# Unicode numbers the dots of a braille cell column by column: by row, then left and right.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_SMOOTHED_PARTS = 24
_LEAST_WIDTH, _LEAST_HEIGHT = 24, 5


@dataclass(slots=True)
class Bucket:
    """Some steps in a row: how many, and the lowest, highest and summed value."""

    low: float
    high: float
    total: float
    count: int

    def take(self, other: Bucket) -> None:
        """Add the steps of another."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total += other.total
        self.count += other.count


class Buckets:
    """A series at a resolution that halves as it grows: at most 1,024 buckets, and the extremes are never lost."""

    def __init__(self) -> None:
        self.stride = 1
        self.found: dict[int, Bucket] = {}
        self.last = 0

    def add(self, step: int, value: float) -> None:
        """Add one step; a value that is not finite has no place on an axis and is passed over."""
        self.last = max(self.last, step)
        if not math.isfinite(value):
            return
        while step // self.stride >= _MOST_BUCKETS:
            self._halve()
        self._take(step // self.stride, Bucket(value, value, value, 1))

    def _halve(self) -> None:
        self.stride *= 2
        before, self.found = self.found, {}
        for index, bucket in before.items():
            self._take(index // 2, bucket)

    def _take(self, index: int, bucket: Bucket) -> None:
        if index in self.found:
            self.found[index].take(bucket)
        else:
            self.found[index] = bucket


class MetricChart(Widget):
    """One curve over steps (its values dim, their running mean bright), single points (●) and marks (C) on the axis."""

    DEFAULT_CSS = """
    MetricChart { height: 1fr; min-height: 5; }
    """

    def __init__(self, *, waiting: str = "The curve begins with the first step.", id: str | None = None) -> None:
        super().__init__(id=id)
        self._waiting = waiting
        self._buckets = Buckets()
        self._points: tuple[tuple[int, float], ...] = ()
        self._marks: tuple[int, ...] = ()

    def clear(self) -> None:
        """Begin anew: steps were taken back."""
        self._buckets = Buckets()
        self.refresh()

    def extend(self, values: Iterable[tuple[int, float]]) -> None:
        """Add steps to the curve; redraws only if there were any."""
        added = False
        for step, value in values:
            self._buckets.add(step, value)
            added = True
        if added:
            self.refresh()

    def mark(self, points: Sequence[tuple[int, float]], marks: Sequence[int]) -> None:
        """Set the single points and the marks on the axis."""
        finite = tuple((step, value) for step, value in points if math.isfinite(value))
        if (finite, tuple(marks)) != (self._points, self._marks):
            self._points, self._marks = finite, tuple(marks)
            self.refresh()

    def render(self) -> RenderResult:
        """Draw the chart as large as there is room."""
        width, height = self.size
        if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
            return Content("")
        if not self._buckets.found and not self._points:
            return Content.styled(self._waiting, "$secondary")
        return Content("\n").join(draw(self._buckets, self._points, self._marks, width, height))


def draw(
    buckets: Buckets, points: Sequence[tuple[int, float]], marks: Sequence[int], width: int, height: int
) -> list[Content]:
    """The chart's lines: `height` of them, `width` cells wide."""
    lows = [bucket.low for bucket in buckets.found.values()] + [value for _, value in points]
    highs = [bucket.high for bucket in buckets.found.values()] + [value for _, value in points]
    low, high = min(lows), max(highs)
    ticks = axis_ticks(low, high, most=max(3, (height - 2) // 3))
    bottom, top = min(ticks[0], low), max(ticks[-1], high)
    labels = tick_labels(ticks)
    margin = max(map(len, labels)) + 2
    columns, rows = width - margin, height - 2
    last = max(buckets.last, *(step for step, _ in points), 1) if points else max(buckets.last, 1)
    first = min([index * buckets.stride for index in buckets.found] + [step for step, _ in points])
    spread = max(1, last - first)

    def dot_column(step: float) -> int:
        return min(columns * 2 - 1, max(0, int((step - first) / spread * (columns * 2 - 1))))

    def dot_row(value: float) -> int:
        return round((top - value) / (top - bottom) * (rows * 4 - 1)) if top > bottom else rows * 2

    band = _Grid(columns, rows)
    line = _Grid(columns, rows)
    merged: dict[int, Bucket] = {}
    for index, bucket in sorted(buckets.found.items()):
        column = dot_column(index * buckets.stride)
        if column in merged:
            merged[column].take(bucket)
        else:
            merged[column] = Bucket(bucket.low, bucket.high, bucket.total, bucket.count)
    columns_taken = list(merged)
    means = [bucket.total / bucket.count for bucket in merged.values()]
    for here, before in zip(range(len(means)), (0, *range(len(means))), strict=False):
        column, bucket = columns_taken[here], merged[columns_taken[here]]
        band.line(column, dot_row(bucket.high), column, dot_row(bucket.low))
        band.line(columns_taken[before], dot_row(means[before]), column, dot_row(means[here]))
    smooth = smoothed(means, len(means) // _SMOOTHED_PARTS)
    for here, before in zip(range(len(means)), (0, *range(len(means))), strict=False):
        line.line(columns_taken[before], dot_row(smooth[before]), columns_taken[here], dot_row(smooth[here]))
    signs = {(dot_column(step) // 2, dot_row(value) // 4): "●" for step, value in points}
    label_rows = {dot_row(tick) // 4: label for tick, label in zip(ticks, labels, strict=True)}
    lines = [
        Content.assemble(
            (f"{label_rows.get(row, ''):>{margin - 2}} {'┤' if row in label_rows else '│'}", "$secondary"),
            *_cells(band, line, signs, row),
        )
        for row in range(rows)
    ]
    committed = {dot_column(step) // 2 for step in marks if first <= step <= last}
    return [*lines, *_step_axis(first, last, columns, margin, committed)]


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Each value's mean with its `reach` neighbours on both sides, fewer at the ends."""
    sums = [0.0, *itertools.accumulate(values)]
    last = len(values)
    return [
        (sums[min(last, here + reach + 1)] - sums[max(0, here - reach)])
        / (min(last, here + reach + 1) - max(0, here - reach))
        for here in range(last)
    ]


class _Grid:
    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.bits = [bytearray(columns) for _ in range(rows)]

    def line(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Set the dots from one to the other."""
        length = max(abs(x1 - x0), abs(y1 - y0), 1)
        for part in range(length + 1):
            x, y = x0 + round((x1 - x0) * part / length), y0 + round((y1 - y0) * part / length)
            self.bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]


def _cells(band: _Grid, line: _Grid, signs: dict[tuple[int, int], str], row: int) -> list[tuple[str, str]]:
    runs: list[tuple[str, str]] = []
    for column in range(band.columns):
        dim, bright = band.bits[row][column], line.bits[row][column]
        sign = signs.get((column, row))
        if sign:
            cell = (sign, "$accent")
        elif bright:
            cell = (chr(0x2800 + bright), "$primary")
        else:
            cell = (chr(0x2800 + dim) if dim else " ", "$primary-darken-3")
        # A gap takes the colour before it: every change of colour costs forty bytes on the way to the terminal.
        if runs and (runs[-1][1] == cell[1] or cell[0] == " "):
            runs[-1] = (runs[-1][0] + cell[0], cell[1])
        else:
            runs.append(cell)
    return runs


def axis_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) from `low` to `high`: at least two, at most `most`."""
    spread = (high - low) or abs(high) or 1.0
    power = math.floor(math.log10(spread))
    best: list[float] = []
    for size in (factor * 10.0**exponent for exponent in (power, power - 1, power - 2) for factor in (5, 2, 1)):
        start, end = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
        if end - start + 1 > most:
            break
        best = [index * size for index in range(start, end + 1)]
    return best if len(best) >= 2 else [low, low + spread]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks with the same number of decimals, as many as tell them apart."""
    gap = abs(ticks[1] - ticks[0])
    decimals = 0 if gap == int(gap) else max(1, -math.floor(math.log10(gap) + 1e-9))
    return [f"{tick:.{min(decimals, 6)}f}" for tick in ticks]


def _step_axis(first: int, last: int, columns: int, margin: int, committed: set[int]) -> list[Content]:
    wanted = [tick for tick in axis_ticks(first, last, most=max(2, columns // 14)) if tick == int(tick)]
    places = {round((tick - first) / max(1, last - first) * (columns - 1)): int(tick) for tick in wanted}
    axis = [
        ("C", "bold $success") if column in committed else ("┬" if column in places else "─", "$secondary")
        for column in range(columns)
    ]
    words = [" "] * columns
    for column, tick in places.items():
        text = number(tick)
        start = min(max(0, column - len(text) // 2), columns - len(text))
        if all(cell == " " for cell in words[max(0, start - 1) : start + len(text)]):
            words[start : start + len(text)] = text
    corner = Content.styled(" " * (margin - 1) + "└", "$secondary")
    return [
        Content.assemble(corner, *axis),
        Content.styled(" " * margin + "".join(words), "$secondary"),
    ]
