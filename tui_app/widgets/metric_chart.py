"""A chart in braille dots, as large as there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from tui_app.charts.plot import Picture, draw

if TYPE_CHECKING:
    from textual.app import RenderResult

_LEAST_WIDTH, _LEAST_HEIGHT = 24, 5


class MetricChart(Widget):
    """Shows a picture; whoever changes its curves says so."""

    DEFAULT_CSS = """
    MetricChart { width: 1fr; height: 1fr; min-height: 5; }
    """

    def __init__(self, *, waiting: str = "The curve begins with the first step.", id: str | None = None) -> None:
        super().__init__(id=id)
        self._waiting = waiting
        self._picture = Picture(())

    def show(self, picture: Picture, *, grown: bool = False) -> None:
        """Show a picture; redraws only if it is another one, or its curves have `grown`."""
        if grown or picture != self._picture:
            self._picture = picture
            self.refresh()

    def render(self) -> RenderResult:
        """Draw the chart."""
        width, height = self.size
        if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
            return Content("")
        if not self._picture.points and not any(len(curve.raw) for curve in self._picture.curves):
            return Content.styled(self._waiting, "$secondary")
        return Content("\n").join(draw(self._picture, width, height))
