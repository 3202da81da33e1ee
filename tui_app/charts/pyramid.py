"""A series of any length from which any stretch is summed up at once, and no extreme of it is ever lost."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FAN = 16


@dataclass(frozen=True, slots=True)
class Fold:
    """Some values in a row: the lowest, the highest, their mean."""

    low: float
    high: float
    mean: float


class Pyramid:
    """Values over an x that never falls. Each level holds the minimum, maximum and sum of 16 entries of the one below.

    Adding costs the same however long the series is, and a stretch of it is folded from a few dozen entries.
    """

    def __init__(self) -> None:
        self.xs = array("d")
        self.ys = array("d")
        self._levels: list[tuple[array[float], array[float], array[float]]] = []

    def __len__(self) -> int:
        return len(self.xs)

    def extend(self, points: Iterable[tuple[float, float]]) -> None:
        """Add points; values that are not finite have no place on an axis and are passed over."""
        for x, y in points:
            if math.isfinite(y):
                self.xs.append(x)
                self.ys.append(y)
        below = (self.ys, self.ys, self.ys)
        depth = 0
        while len(below[0]) >= _FAN:
            if depth == len(self._levels):
                self._levels.append((array("d"), array("d"), array("d")))
            lows, highs, totals = here = self._levels[depth]
            for start in range(len(lows) * _FAN, len(below[0]) // _FAN * _FAN, _FAN):
                end = start + _FAN
                lows.append(min(below[0][start:end]))
                highs.append(max(below[1][start:end]))
                totals.append(sum(below[2][start:end]))
            below = here
            depth += 1

    def index(self, x: float) -> int:
        """How many points lie before x."""
        return bisect_left(self.xs, x)

    def fold(self, start: int, end: int) -> Fold | None:
        """The points from index `start` up to, but without, `end`; None where there are none."""
        if start >= end:
            return None
        low, high, total, count = math.inf, -math.inf, 0.0, end - start
        here = (self.ys, self.ys, self.ys)
        for depth in range(len(self._levels) + 1):
            first, last = -(-start // _FAN), end // _FAN
            topmost = depth == len(self._levels) or first >= last
            edges = ((start, end),) if topmost else ((start, first * _FAN), (last * _FAN, end))
            for begin, stop in edges:
                if begin < stop:
                    low = min(low, *here[0][begin:stop])
                    high = max(high, *here[1][begin:stop])
                    total += sum(here[2][begin:stop])
            if topmost:
                break
            here = self._levels[depth]
            start, end = first, last
        return Fold(low, high, total / count)
