"""Home: every run, and how to begin one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.screen import Screen
from textual.widgets import Footer

from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from textual.app import ComposeResult


class RunsScreen(Screen[None]):
    """The list of runs."""

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield StepHeader(title="Runs")
        yield Footer()
