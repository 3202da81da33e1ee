"""Curves drawn in braille dots, two by four to a cell, with axes, single points and marks."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from textual.content import Content

from tui_app.charts.axes import axis_ticks, log_ticks, tick_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.runs.metrics import Unit
    from tui_app.charts.curve import Curve
    from tui_app.charts.pyramid import Fold, Pyramid

# Unicode numbers the dots of a braille cell column by column: by row, then left and right.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_SMOOTHED_PARTS = 24
SIGNS = "ox+*#%"
COLOURS = ("$primary", "$accent", "$success", "$error", "$secondary", "$foreground")
BAND = "$primary-darken-3"


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn, and how."""

    curves: Sequence[Curve]
    window: tuple[float, float] | None = None
    """The stretch of the x axis; None for all of it."""
    unit: Unit = ""
    x_name: str = "step"
    x_unit: Unit = ""
    log: bool = False
    averages: bool = True
    """Whether a curve without a moving average of its own gets one as wide as a 24th of the chart."""
    points: Sequence[tuple[float, float]] = ()
    """Single points (●)."""
    level: float | None = None
    """A line across."""
    marks: Mapping[float, str] | None = None
    """Signs on the x axis; of two in one cell the later one is drawn."""
    cursor: float | None = None
    grows: bool = False
    """Whether more is to come: then a little room is left for it, so that what is drawn stays where it is."""


class _Column(NamedTuple):
    dot: int
    fold: Fold


class _Frame(NamedTuple):
    """Where values lie on a grid of dots."""

    first: float
    last: float
    bottom: float
    top: float
    columns: int
    rows: int
    log: bool

    def dot_column(self, x: float) -> int:
        spread = (self.last - self.first) or 1.0
        return min(self.columns * 2 - 1, max(0, int((x - self.first) / spread * (self.columns * 2 - 1) + 1e-9)))

    def dot_row(self, value: float) -> int:
        here, bottom, top = (self._place(each) for each in (value, self.bottom, self.top))
        share = (top - here) / (top - bottom) if top > bottom else 0.5
        return min(self.rows * 4 - 1, max(0, round(share * (self.rows * 4 - 1))))

    def _place(self, value: float) -> float:
        return math.log10(max(value, self.bottom)) if self.log else value


def extent(picture: Picture) -> tuple[float, float]:
    """The stretch of the x axis that is shown; (0, 1) where there is nothing."""
    ends = [end for curve in picture.curves if len(curve.raw) for end in (curve.raw.xs[0], curve.raw.xs[-1])]
    ends += [x for x, _ in picture.points]
    first, last = picture.window or (min(ends, default=0.0), max(ends, default=1.0))
    if last <= first:
        return first, first + 1
    if picture.grows and picture.window is None:
        last = first + _with_room(last - first)
    return first, last


def _with_room(spread: float) -> float:
    """The next of a row of lengths, each an eighth longer than the one before it."""
    size = 8.0
    while size < spread:
        size *= 1.125
    return size


def draw(picture: Picture, width: int, height: int) -> list[Content]:
    """The chart's lines: `height` of them, `width` cells wide."""
    first, last = extent(picture)
    points = [(x, y) for x, y in picture.points if first <= x <= last]
    rows = height - 2
    low, high = _range(picture, points, first, last)
    log = picture.log and high > 0
    most = max(3, rows // 3)
    ticks = log_ticks(low, high, most) if log else axis_ticks(low, high, most, picture.unit)
    bottom, top = min(ticks[0], low), max(ticks[-1], high)
    labels = tick_labels(ticks, picture.unit)
    margin = max(*map(len, labels), 4) + 2
    frame = _Frame(first, last, bottom, top, width - margin, rows, log)
    layers: list[tuple[_Grid, str]] = []
    signs: dict[tuple[int, int], tuple[str, str]] = {}
    for number, curve in enumerate(picture.curves):
        layers += _curve(picture, curve, frame, number, signs)
    if picture.level is not None and bottom <= picture.level <= top:
        layers.append((_level(picture.level, frame), "$warning"))
    for x, value in points:
        signs[frame.dot_column(x) // 2, frame.dot_row(value) // 4] = ("●", "$accent")
    at = frame.dot_column(picture.cursor) // 2 if picture.cursor is not None else None
    label_rows = {frame.dot_row(tick) // 4: label for tick, label in zip(ticks, labels, strict=True)}
    lines = [
        Content.assemble(
            (f"{label_rows.get(row, ''):>{margin - 2}} {'┤' if row in label_rows else '│'}", "$secondary"),
            *_cells(layers, signs, row, at, frame.columns),
        )
        for row in range(rows)
    ]
    return [*lines, *_x_axis(picture, frame, margin, at)]


def columns_of(series: Pyramid, first: float, last: float, columns: int) -> list[_Column]:
    """A series folded into as many columns of dots; those without a point are left out."""
    frame_dots = columns * 2
    step = (last - first) / (frame_dots - 1)
    found: list[_Column] = []
    start = series.index(first)
    for dot in range(frame_dots):
        edge = first + (dot + 1) * step
        end = series.index(edge - step * 1e-9) if dot < frame_dots - 1 else series.index(math.nextafter(last, math.inf))
        fold = series.fold(start, end)
        if fold is not None:
            found.append(_Column(dot, fold))
            start = end
        if end == len(series):
            break
    return found


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Each value's mean with its `reach` neighbours on both sides, fewer at the ends."""
    sums = [0.0, *itertools.accumulate(values)]
    last = len(values)
    return [
        (sums[min(last, here + reach + 1)] - sums[max(0, here - reach)])
        / (min(last, here + reach + 1) - max(0, here - reach))
        for here in range(last)
    ]


def _range(picture: Picture, points: Sequence[tuple[float, float]], first: float, last: float) -> tuple[float, float]:
    found = [y for _, y in points]
    for curve in picture.curves:
        fold = curve.raw.fold(curve.raw.index(first), curve.raw.index(math.nextafter(last, math.inf)))
        found += [fold.low, fold.high] if fold is not None else []
    if picture.level is not None:
        found.append(picture.level)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if picture.log and high > 0 and low <= 0:
        positive = [y for curve in picture.curves for y in curve.raw.ys[-4096:] if y > 0]
        low = min(positive, default=high / 1e6)
    return low, high


def _curve(
    picture: Picture, curve: Curve, frame: _Frame, number: int, signs: dict[tuple[int, int], tuple[str, str]]
) -> list[tuple[_Grid, str]]:
    single = len(picture.curves) == 1
    colour = COLOURS[number % len(COLOURS)]
    raw = columns_of(curve.raw, frame.first, frame.last, frame.columns)
    means = [column.fold.mean for column in raw]
    dots = [column.dot for column in raw]
    if curve.weight:
        smooth = columns_of(curve.smooth, frame.first, frame.last, frame.columns)
        dots, means = [column.dot for column in smooth], [column.fold.mean for column in smooth]
    elif picture.averages:
        means = smoothed(means, len(means) // _SMOOTHED_PARTS)
    line = _Grid(frame.columns, frame.rows)
    line.path([(dot, frame.dot_row(mean)) for dot, mean in zip(dots, means, strict=True)])
    if not single:
        # One sign every so many cells, each curve's at other places than its neighbour's.
        every = max(8, frame.columns // 5)
        for cell in range(every * number // len(picture.curves), frame.columns, every):
            if dots and dots[0] <= cell * 2 + 1 and cell * 2 <= dots[-1]:
                value = _between(dots, means, cell * 2)
                signs[cell, frame.dot_row(value) // 4] = (SIGNS[number % len(SIGNS)], colour)
        return [(line, colour)]
    band = _Grid(frame.columns, frame.rows)
    band.path([(column.dot, frame.dot_row(column.fold.mean)) for column in raw])
    for column in raw:
        band.line(column.dot, frame.dot_row(column.fold.high), column.dot, frame.dot_row(column.fold.low))
    return [(line, colour), (band, BAND)]


def _between(dots: Sequence[int], values: Sequence[float], dot: int) -> float:
    """The value at a dot, on the line between its neighbours."""
    after = bisect_left(dots, dot)
    if after == len(dots) or dots[after] == dot or after == 0:
        return values[min(after, len(dots) - 1)]
    share = (dot - dots[after - 1]) / (dots[after] - dots[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


def _level(value: float, frame: _Frame) -> _Grid:
    grid, row = _Grid(frame.columns, frame.rows), frame.dot_row(value)
    for column in range(0, frame.columns * 2, 3):
        grid.line(column, row, column, row)
    return grid


class _Grid:
    def __init__(self, columns: int, rows: int) -> None:
        self.bits = [bytearray(columns) for _ in range(rows)]

    def path(self, dots: Sequence[tuple[int, int]]) -> None:
        """Join the dots in order."""
        for before, here in zip((dots[0], *dots) if dots else (), dots, strict=False):
            self.line(*before, *here)

    def line(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Set the dots from one to the other."""
        if x0 == x1:
            for y in range(min(y0, y1), max(y0, y1) + 1):
                self.bits[y // 4][x0 // 2] |= _DOTS[y % 4][x0 % 2]
            return
        length = max(abs(x1 - x0), abs(y1 - y0), 1)
        for part in range(length + 1):
            x, y = x0 + round((x1 - x0) * part / length), y0 + round((y1 - y0) * part / length)
            self.bits[y // 4][x // 2] |= _DOTS[y % 4][x % 2]


def _cells(
    layers: Sequence[tuple[_Grid, str]],
    signs: Mapping[tuple[int, int], tuple[str, str]],
    row: int,
    cursor: int | None,
    columns: int,
) -> list[tuple[str, str]]:
    runs: list[tuple[str, str]] = []
    drawn = [(grid.bits[row], colour) for grid, colour in layers]
    for column in range(columns):
        cell = signs.get((column, row)) or (("│", "$secondary") if column == cursor else (" ", ""))
        if (column, row) not in signs:
            for bits, colour in drawn:
                if bits[column]:
                    cell = (chr(0x2800 + bits[column]), colour)
                    break
        # A gap takes the colour before it: every change of colour costs forty bytes on the way to the terminal.
        if runs and (runs[-1][1] == cell[1] or cell[0] == " "):
            runs[-1] = (runs[-1][0] + cell[0], runs[-1][1])
        else:
            runs.append(cell)
    return runs


def _x_axis(picture: Picture, frame: _Frame, margin: int, cursor: int | None) -> list[Content]:
    first, last, columns = frame.first, frame.last, frame.columns
    ticks = axis_ticks(first, last, max(2, columns // 14), picture.x_unit)
    if not picture.x_unit:
        ticks = [tick for tick in ticks if tick == int(tick)] or [math.ceil(first)]
    spread = (last - first) or 1.0
    names = [f"{tick:,.0f}" for tick in ticks] if not picture.x_unit else tick_labels(ticks, picture.x_unit)
    places = {round((tick - first) / spread * (columns - 1)): name for tick, name in zip(ticks, names, strict=True)}
    marks = {frame.dot_column(x) // 2: sign for x, sign in sorted((picture.marks or {}).items()) if first <= x <= last}
    axis = [
        (marks[column], "bold $success")
        if column in marks
        else ("┴", "$foreground")
        if column == cursor
        else ("┬" if column in places else "─", "$secondary")
        for column in range(columns)
    ]
    words = [" "] * columns
    for column, name in places.items():
        start = min(max(0, column - len(name) // 2), columns - len(name))
        if start >= 0 and all(cell == " " for cell in words[max(0, start - 1) : start + len(name) + 1]):
            words[start : start + len(name)] = name
    unit = f"{picture.x_name:>{margin - 2}}  " if len(picture.x_name) <= margin - 2 else " " * margin
    corner = Content.styled(" " * (margin - 1) + "└", "$secondary")
    return [Content.assemble(corner, *axis), Content.styled(unit + "".join(words), "$secondary")]
