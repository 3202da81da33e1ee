"""What has happened in a run, as lines to read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from core.console import describe
from core.runs import events
from core.runs.ends import recent_events

if TYPE_CHECKING:
    from core.runs.events import Entry, Event
    from core.runs.folder import RunFolder

# Told in charts and bars, by the thousand.
_TOO_MANY = (
    events.StepCompleted,
    events.MemorySampled,
    events.PeakMeasured,
    events.LoadProgressed,
    events.DataProgressed,
)


def event_lines(folder: RunFolder) -> list[str]:
    """The last events, the oldest first, each with its time; safe to show."""
    lines: list[str] = []
    for entry in recent_events(folder.journal_file):
        lines += _lines(entry)
    return lines


def _words(event: Event) -> str:
    """What a log of a run does not need: its lines tell it in another way."""
    match event:
        case events.TrainingStarted():
            behind = f", {event.first_step:,} of them done before" if event.first_step else ""
            return f"{event.max_steps:,} steps to train{behind}"
        case events.SamplesAnswered():
            return f"step {event.step:,}: sample prompts answered by the {event.who} model"
        case events.TroubleEnded():
            return f"step {event.step:,}: {event.kind.replace('_', ' ')} is over"
        case _:
            return type(event).__name__


def _lines(entry: Entry) -> list[str]:
    if isinstance(entry.event, _TOO_MANY):
        return []
    words = describe(entry.event) or _words(entry.event)
    first, *rest = [line.strip() for line in words.split("\n")]
    clock = time.strftime("%H:%M:%S", time.localtime(entry.time))
    return [f"{clock}  {first}", *(f"{'':10}{line}" for line in rest)]
