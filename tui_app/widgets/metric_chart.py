"""A chart in braille dots, as large as there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from tui_app.charts.plot import Picture, draw
from tui_app.partial import changed_parts

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
        self._lines: list[Content] = []

    def show(self, picture: Picture, *, grown: bool = False) -> None:
        """Show a picture; draws only what has changed, and nothing if it is the same and no curve of it has `grown`."""
        if not grown and picture == self._picture:
            return
        self._picture = picture
        before, self._lines = self._lines, self._drawn()
        if len(before) != len(self._lines):
            self.refresh()
        elif parts := changed_parts(before, self._lines, self.size.width):
            self.refresh(*parts)

    def on_resize(self) -> None:
        """Draw the chart as large as it is now."""
        self._lines = self._drawn()
        self.refresh()

    def render(self) -> RenderResult:
        """The chart as it was drawn."""
        return Content("\n").join(self._lines)

    def _drawn(self) -> list[Content]:
        width, height = self.size
        if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
            return []
        if not self._picture.points and not any(len(curve.raw) for curve in self._picture.curves):
            return [Content.styled(self._waiting, "$secondary")]
        return draw(self._picture, width, height)
