"""What people write to a run, while it runs and afterwards: one JSON line each, beside its journal."""

import json
import os
import time
from dataclasses import dataclass

from core.errors import SftuiError
from core.runs.events import LATEST
from core.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Note:
    """Something that somebody wrote."""

    time: float
    """Seconds since the epoch."""
    text: str


def add_note(folder: RunFolder, text: str) -> None:
    """Write a note. Raises SftuiError if there is nothing in it, and OSError."""
    if not text.strip():
        raise SftuiError("Nothing to note", "The note is empty.")
    folder.refuse_links()
    line = json.dumps({"time": round(time.time(), 3), "text": text.strip()}) + "\n"
    # One write to a file opened for appending: two viewers at once cannot mix their lines.
    file = os.open(folder.notes_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_notes(folder: RunFolder) -> tuple[Note, ...]:
    """All notes, the oldest first; lines that are none are passed over."""
    try:
        lines = folder.notes_file.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    notes = []
    for line in lines:
        try:
            fields = json.loads(line)
            when = float(fields["time"])
            if 0 <= when < LATEST:
                notes.append(Note(when, str(fields["text"])))
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(notes)
