"""What has happened in a run, as lines to read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from core.console import describe
from core.runs import events
from core.runs.ends import recent_events

if TYPE_CHECKING:
    from core.runs.events import Entry
    from core.runs.folder import RunFolder

# Told in charts and bars, by the thousand.
_TOO_MANY = (events.StepCompleted, events.MemorySampled, events.LoadProgressed, events.DataProgressed)


def event_lines(folder: RunFolder) -> list[str]:
    """The last events, the oldest first, each with its time; safe to show."""
    lines: list[str] = []
    for entry in recent_events(folder.journal_file):
        lines += _lines(entry)
    return lines


def _lines(entry: Entry) -> list[str]:
    if isinstance(entry.event, _TOO_MANY):
        return []
    words = describe(entry.event) or type(entry.event).__name__
    first, *rest = [line.strip() for line in words.split("\n")]
    clock = time.strftime("%H:%M:%S", time.localtime(entry.time))
    return [f"{clock}  {first}", *(f"{'':10}{line}" for line in rest)]
