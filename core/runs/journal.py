"""The journal of a run: one JSON line an event, written by the runner alone, read by anybody."""

import contextlib
import os
import threading
import time
from pathlib import Path

from core import paths
from core.runs.events import TERMINAL, CheckpointCommitted, Entry, Event, decode, encode

_RESERVE_BYTES = 64 * 1024


class JournalWriter:
    """Appends events. Safe to call from several threads; after a terminal event everything else is dropped.

    What the disk does not take now is kept and written later, in order: a full disk must not end a run. `reserve` names
    a file that keeps some room, given up when there is no other, so that the run can still say what it waits for.
    """

    def __init__(self, path: Path, reserve: Path | None = None) -> None:
        # A signal handler writes the last event, perhaps while its own thread is in the middle of another.
        self._lock = threading.RLock()
        entries = JournalReader(path).read_new() if path.exists() else []
        self._seq = entries[-1].seq if entries else 0
        self._ended = False
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A predecessor that was killed in the middle of a line must not swallow our first one.
        self._waiting = b"" if paths.ends_with_newline(path) else b"\n"
        self._flushing = False
        self._reserve = reserve
        self._keep_reserve()

    def write(self, event: Event) -> bool:
        """Append one event; False if a terminal event was written before, so that a run ends exactly once."""
        with self._lock:
            if self._ended:
                return False
            self._seq += 1
            line = (encode(Entry(self._seq, round(time.time(), 3), event)) + "\n").encode()
            if self._flushing:
                # A signal handler, in the middle of a write of its own thread: that may have left half a line.
                line = b"\n" + line
                while line:
                    line = line[os.write(self._file, line) :]
            else:
                self._waiting += line
            if self.flush() and isinstance(event, (*TERMINAL, CheckpointCommitted)):
                with contextlib.suppress(OSError):
                    os.fsync(self._file)
            self._ended = isinstance(event, TERMINAL)
            return True

    def flush(self) -> bool:
        """Write what waits for the disk; False if it still does not take it."""
        with self._lock:
            if self._flushing or self._file < 0:
                return not self._waiting
            self._flushing = True
            try:
                while self._waiting:
                    self._waiting = self._waiting[os.write(self._file, self._waiting) :]
            except OSError:
                gave_up = self._give_up_reserve()
            else:
                gave_up = False
                self._keep_reserve()
            finally:
                self._flushing = False
            return self.flush() if gave_up else not self._waiting

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
            self._give_up_reserve()
            self._reserve = None

    def _keep_reserve(self) -> None:
        if self._reserve is None or self._reserve.exists():
            return
        with contextlib.suppress(OSError):
            try:
                self._reserve.write_bytes(bytes(_RESERVE_BYTES))
            except OSError:
                self._reserve.unlink(missing_ok=True)

    def _give_up_reserve(self) -> bool:
        if self._reserve is None or not self._reserve.exists():
            return False
        with contextlib.suppress(OSError):
            self._reserve.unlink()
            return True
        return False


class JournalReader:
    """Reads what is new. A torn last line is left for the next call; a torn one in the middle is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def left(self) -> int:
        """Bytes that are not read yet."""
        try:
            return self._path.stat().st_size - self._offset
        except FileNotFoundError:
            return 0

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
