"""The journal of a run: one JSON line an event, written by the runner alone, read by anybody."""

import os
import threading
import time
from pathlib import Path

from core.runs.events import TERMINAL, CheckpointCommitted, Entry, Event, decode, encode


class JournalWriter:
    """Appends events. Safe to call from several threads; after a terminal event everything else is dropped."""

    def __init__(self, path: Path) -> None:
        # A signal handler writes the last event, perhaps while its own thread is in the middle of another.
        self._lock = threading.RLock()
        entries = JournalReader(path).read_new() if path.exists() else []
        self._seq = entries[-1].seq if entries else 0
        self._ended = False
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A predecessor that was killed in the middle of a line must not swallow our first one.
        self._torn = not _ends_with_newline(path)

    def write(self, event: Event) -> bool:
        """Append one event; False if a terminal event was written before, so that a run ends exactly once."""
        with self._lock:
            if self._ended:
                return False
            self._seq += 1
            line = encode(Entry(self._seq, round(time.time(), 3), event)) + "\n"
            self._write_all(line.encode())
            if isinstance(event, (*TERMINAL, CheckpointCommitted)):
                os.fsync(self._file)
            self._ended = isinstance(event, TERMINAL)
            return True

    @property
    def ended(self) -> bool:
        """Whether the terminal event is written."""
        return self._ended

    def close(self) -> None:
        """Close the file; what is written afterwards is dropped."""
        with self._lock:
            self._ended = True
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _write_all(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        # Until the whole line is there: a full disk may cut it anywhere.
        self._torn = True
        while data:
            data = data[os.write(self._file, data) :]
        self._torn = False


class JournalReader:
    """Reads what is new. A torn last line is left for the next call; a torn one in the middle is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read_new(self, at_most: int = -1) -> list[Entry]:
        """The entries written since the last call, or those in the next `at_most` bytes, but one at least.

        None while there is no journal yet.
        """
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= self._offset:
                    return []
                file.seek(self._offset)
                data = file.read(at_most)
                if at_most >= 0:
                    data += file.readline()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        entries: list[Entry] = []
        for line in whole.splitlines():
            try:
                entry = decode(line)
            except ValueError:
                continue
            if entry is not None:
                entries.append(entry)
        return entries


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
