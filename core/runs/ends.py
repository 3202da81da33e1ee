"""What the beginning and the end of a journal tell: enough for one line, and quick however long the run was."""

import mmap
import os
from pathlib import Path

from core.runs.events import Entry, decode
from core.runs.journal import JournalReader
from core.runs.state import RunState, reduce_all

_END_BYTES = 64 * 1024
# Those that stand far before the end of a long journal, of which the last one counts.
_LAST_OF = (b'"type": "EvaluationCompleted"', b'"type": "PeakMeasured"')


def read_ends(journal: Path) -> RunState:
    """A run's state from both ends of its journal, and from its last evaluation and peak in between."""
    try:
        size = journal.stat().st_size
    except OSError:
        size = 0
    if size <= 4 * _END_BYTES:
        return reduce_all(RunState(), JournalReader(journal).read_new())
    with journal.open("rb") as file:
        lines = file.read(_END_BYTES).split(b"\n")[:-1]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            end = size - _END_BYTES
            lines += [line for kind in _LAST_OF if (line := _last(whole, kind, _END_BYTES, end))]
        file.seek(-_END_BYTES, os.SEEK_END)
        lines += file.read().split(b"\n")[1:]
    entries = [entry for line in lines if (entry := _decoded(line)) is not None]
    return reduce_all(RunState(), sorted(entries, key=lambda entry: entry.seq))


def recent_events(journal: Path, size: int = 256 * 1024) -> tuple[Entry, ...]:
    """The last entries of a journal, as far as they lie in its last `size` bytes."""
    try:
        with journal.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - size)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return ()
    # The first line may be cut, and the last is empty or not written to its end yet.
    whole = lines[1 if start else 0 : -1]
    return tuple(entry for line in whole if (entry := _decoded(line)) is not None)


def _last(whole: mmap.mmap, kind: bytes, start: int, end: int) -> bytes | None:
    at = whole.rfind(kind, start, end)
    if at < 0:
        return None
    begin, stop = whole.rfind(b"\n", 0, at) + 1, whole.find(b"\n", at)
    return whole[begin:stop] if stop > 0 else None


def _decoded(line: bytes) -> Entry | None:
    try:
        return decode(line.decode())
    except ValueError:
        return None
