"""The keys that show a run's log and its events, and search them."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType

from tui_app.background import in_thread
from tui_app.dialogs.ask_text import AskText
from tui_app.event_lines import event_lines
from tui_app.run_keys import RunKeys
from tui_app.widgets.log_tail import LogTail


class LogKeys(RunKeys):
    """A screen on one run with a log and a list of events, in place of what is there otherwise."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "log", "Log", tooltip="Show or hide the log"),
        Binding("i", "events", "Events", show=False, tooltip="Show or hide all that has happened in the run"),
        Binding("slash", "search", "Search", key_display="/", show=False, tooltip="Show lines with these words only"),
    ]

    view: str
    """The one that is shown where there is room for one."""

    @property
    def compact(self) -> bool:
        """Whether one view is shown at a time."""
        return self.has_class("-compact")

    def _show_view(self, view: str) -> None:
        raise NotImplementedError

    def action_log(self) -> None:
        """Show the log, or what was there before it."""
        if self.compact:
            self._show_view("chart" if self.view == "log" else "log")
            return
        self.toggle_class("-log")
        self.remove_class("-events")
        if self.has_class("-log"):
            self._follower.follow_log()

    @property
    def _shows_events(self) -> bool:
        return self.view == "events" if self.compact else self.has_class("-events")

    def action_events(self) -> None:
        """Show what has happened, or what was there before it."""
        if self.compact:
            self._show_view("chart" if self.view == "events" else "events")
            return
        self.toggle_class("-events")
        self.remove_class("-log")
        if self._shows_events:
            self._read_events()

    @work(group="events", exclusive=True)
    async def _read_events(self) -> None:
        self.query_one("#events", LogTail).replace(await in_thread(lambda: event_lines(self.folder)))

    def action_search(self) -> None:
        """Ask which lines of the log, or of the events, to show."""
        pane = self.query_one("#events" if self._shows_events else "#log", LogTail)
        if not pane.display:
            self.action_log()

        def answered(text: str | None) -> None:
            if text is not None:
                pane.search(text)

        self.app.push_screen(AskText("Search", "Lines with these words; none shows all.", "", lambda _: ""), answered)
