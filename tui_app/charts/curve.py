"""One curve: its values, and their moving average."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui_app.charts.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence

SLICE = 10_000
"""So many points are added in one go at most: what takes longer is felt at the keys."""


class Curve:
    """Values as they are, and an exponential moving average of them where `weight` is not 0.

    The average is TensorBoard's: each value moves it by 1 - weight of the distance, and its start counts for nothing.
    """

    def __init__(self, name: str = "", weight: float = 0.0) -> None:
        self.name = name
        self.raw = Pyramid()
        self.weight = weight
        self.smooth = Pyramid()
        self._average = 0.0
        self._known = 0.0

    @classmethod
    def over(cls, series: Pyramid) -> Curve:
        """A curve of values that somebody else keeps."""
        curve = cls()
        curve.raw = series
        return curve

    def extend(self, points: Sequence[tuple[float, float]]) -> None:
        """Add points, x never falling."""
        self.raw.extend(points)

    def smooth_by(self, weight: float) -> None:
        """Take another moving average; it is made by `catch_up`."""
        if weight != self.weight:
            self.weight, self.smooth = weight, Pyramid()
            self._average = self._known = 0.0

    def catch_up(self) -> bool:
        """Smooth the next points that are not smoothed yet; False if there are more of them."""
        if not self.weight:
            return True
        start, end = len(self.smooth), min(len(self.raw), len(self.smooth) + SLICE)
        points = []
        for index in range(start, end):
            self._average = self.weight * self._average + (1 - self.weight) * self.raw.ys[index]
            self._known = self.weight * self._known + (1 - self.weight)
            points.append((self.raw.xs[index], self._average / self._known))
        self.smooth.extend(points)
        return len(self.smooth) == len(self.raw)
