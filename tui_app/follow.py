"""Follows runs from background threads, so that reading and reducing never stall a key press."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from core.runs.ends import read_ends
from core.runs.folder import RunFolder, RunSummary, all_runs
from core.runs.journal import JournalReader
from core.runs.notes import read_notes
from core.runs.state import RunState, reduce_all
from core.runs.table import RunTable
from core.text import safe
from tui_app.messages import ErrorRaised, LogRead, RunsListed, RunUpdated

if TYPE_CHECKING:
    from pathlib import Path

    from textual.message_pump import MessagePump

_POLL_SECONDS = 0.15
_LIST_SECONDS = 1.0
_SHARE_OF_LOOKING = 15
_BATCH_BYTES = 1 << 20
_DRAWING_SECONDS = 0.3
_LOG_LINES = 500
_LOG_BYTES = 256 * 1024


class _Watch:
    """A daemon thread that can be told to end, and posts what it finds to a screen."""

    def __init__(self, target: MessagePump, name: str, period: float) -> None:
        self._target = target
        self._period = period
        self._paused = False
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait a moment for it: nothing is posted to a screen that is gone."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=0.5)

    def pause(self) -> None:
        """Look no more until woken: nobody sees it."""
        self._paused = True

    def wake(self) -> None:
        """Look at once, and go on."""
        self._paused = False
        self._woken.set()

    def _watch(self) -> None:
        told = ""
        while not self._stopped.is_set():
            try:
                # One that is paused before it starts would make the screen that is shown instead wait.
                if not self._paused:
                    self._look()
            except OSError as error:
                # The disk may come back, as after a lost network mount; one dialog for it is enough.
                if str(error) != told:
                    told = str(error)
                    self._target.post_message(ErrorRaised(error))
            except Exception as error:  # noqa: BLE001 - a frozen screen that says nothing would be worse
                self._target.post_message(ErrorRaised(error))
                return
            self._woken.wait(None if self._paused else self._period)
            self._woken.clear()

    def _look(self) -> None:
        raise NotImplementedError


class RunFollower(_Watch):
    """Follows one run: its journal, whether its runner lives and, when wanted, its log."""

    def __init__(self, target: MessagePump, folder: RunFolder) -> None:
        super().__init__(target, f"sftui-follow-{folder.id}", _POLL_SECONDS)
        self._folder = folder
        self._journal = JournalReader(folder.journal_file)
        self._log = LogReader(folder.log_file)
        self._log_wanted = threading.Event()
        self._state = RunState()
        self._posted: tuple[int, bool, tuple[int, int]] | None = None

    def follow_log(self) -> None:
        """From now on post the log's lines too."""
        self._log_wanted.set()
        self.wake()

    def _look(self) -> None:
        # Asked before the journal is read: a runner that ended in between has written its last word by then.
        alive = self._folder.is_alive()
        if self._posted is None:
            # A long journal takes seconds to read: what its ends tell is shown at once.
            self._post(read_ends(self._folder.journal_file), alive=alive)
            if self._journal.left() > _BATCH_BYTES:
                # Drawing that and reading on would each make the other wait.
                self._stopped.wait(_DRAWING_SECONDS)
        while entries := self._journal.read_new(_BATCH_BYTES):
            # A screen that is gone does not wait for the end of it.
            if self._stopped.is_set():
                return
            self._state = reduce_all(self._state, entries)
        seen = (self._state.last_seq, alive, _stamp(self._folder.notes_file))
        if seen != self._posted:
            self._posted = seen
            self._post(self._state, alive=alive)
            if not alive and self._state.outcome is None and self._state.started_at is not None:
                # It may take a moment to find out: what is known is shown already.
                from core.runs.killed import why_gone

                self._state = replace(self._state, gone=why_gone(self._folder, self._state))
                self._post(self._state, alive=alive)
        if self._log_wanted.is_set() and (lines := self._log.read_new()):
            self._target.post_message(LogRead(lines))

    def _post(self, state: RunState, *, alive: bool) -> None:
        self._target.post_message(RunUpdated(self._folder, state, alive=alive, notes=read_notes(self._folder)))


class LogReader:
    """Reads what is new in a log, made safe to show; the first time no more than its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: int | None = None

    def read_new(self) -> tuple[str, ...]:
        """Whole lines written since the last call, at most the last 500."""
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                first = self._offset is None
                start = max(self._offset or 0, size - _LOG_BYTES)
                if size <= start:
                    return ()
                file.seek(start)
                data = file.read(size - start)
        except OSError:
            return ()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset = start + len(whole)
        text = whole.decode("utf-8", "replace")
        lines = text.split("\n")[:-1]
        if first and start > 0:
            # The first line is cut somewhere.
            lines = lines[1:]
        # A progress bar writes its line over and over; what it showed last is what a terminal would show.
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines[-_LOG_LINES:])
        return tuple(safe(line) for line in shown)


class RunsWatch(_Watch):
    """Follows all runs for the list: live ones line by line, ended ones once."""

    def __init__(self, target: MessagePump) -> None:
        super().__init__(target, "sftui-runs", _LIST_SECONDS)
        self._live: dict[Path, tuple[JournalReader, RunState]] = {}
        self._table = RunTable()
        self._posted: tuple[RunSummary, ...] | None = None

    def _look(self) -> None:
        started = began = time.monotonic()
        found: list[RunSummary] = []
        for folder in all_runs():
            found.append(self._summary(folder))
            if self._stopped.is_set():
                return
            # A long list appears bit by bit the first time.
            if self._posted is None and time.monotonic() - began > 0.3:
                began = time.monotonic()
                self._target.post_message(RunsListed(tuple(found)))
        self._table.keep()
        # A thousand runs are looked at less often than ten.
        self._period = max(_LIST_SECONDS, _SHARE_OF_LOOKING * (time.monotonic() - started))
        runs = tuple(found)
        if runs != self._posted:
            self._posted = runs
            self._target.post_message(RunsListed(runs))

    def _summary(self, folder: RunFolder) -> RunSummary:
        alive = folder.is_alive()
        path = folder.path
        if not alive and path not in self._live:
            return self._table.ended(folder)
        reader, state = self._live.get(path) or (JournalReader(folder.journal_file), RunState())
        state = reduce_all(state, reader.read_new())
        if alive:
            self._live[path] = reader, state
            return self._table.live(folder, state)
        self._live.pop(path, None)
        return self._table.ended(folder)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns
