"""How many tokens the draft's rows have: counted by the warm runner in slices, a sample first, then all of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import SftuiError
from tui_app.messages import ErrorRaised, TokensCounted

if TYPE_CHECKING:
    from pathlib import Path

    from textual.message_pump import MessagePump

    from core.data.facts import DataFacts
    from core.data.token_statistics import TokenCounts
    from core.data.tokenizing_options import TokenizingOptions
    from core.runs.launch import WarmRunner
    from tui_app.draft import Draft

SLICE_ROWS = 2000
"""Asked for at once; the answer may hold fewer."""
_SAMPLES = 8
_SAMPLE_ROWS = 64


@dataclass(frozen=True)
class TokenTask:
    """Which tokens: these rows, by this model's tokenizer, with these options."""

    facts: DataFacts
    folder: Path
    options: TokenizingOptions

    @classmethod
    def of(cls, draft: Draft) -> TokenTask | None:
        """What a draft's rows are tokenized with; None while rows or model are missing."""
        from core.data.tokenizing_options import tokenizing_options

        facts, model, spec = draft.data, draft.model, draft.planned
        if facts is None or facts.store is None or model is None or spec is None or not facts.rows:
            return None
        return cls(facts, model.folder, tokenizing_options(spec, facts.form))

    def question(self, ask: str, **what: int) -> dict[str, Any]:
        """A question to the warm runner about these rows."""
        options = self.options.to_json()
        return {"ask": ask, "store": str(self.facts.store), "folder": str(self.folder), "options": options, **what}

    def __eq__(self, other: object) -> bool:
        # The facts of a large dataset are long; what they were read from tells as much.
        return isinstance(other, TokenTask) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return self.facts.store, self.facts.content_hash, self.folder, self.options


@dataclass(frozen=True)
class TokenState:
    """How far the counting is."""

    task: TokenTask
    counts: TokenCounts
    counted: int = 0
    """Rows; the counts themselves go on growing."""
    seconds_left: float | None = None
    """Until all are counted, at the rate until now; None before there is one."""
    paused: str = ""
    """Why nobody counts now."""
    problem: SftuiError | None = None
    """Why these rows cannot be counted at all."""

    @property
    def complete(self) -> bool:
        """Whether every row is counted."""
        return self.counted == len(self.counts)


def sample(rows: int) -> Iterator[tuple[int, int]]:
    """Short slices, spread over all rows; none where all of them are soon counted anyway."""
    if rows <= SLICE_ROWS:
        return
    for number in range(_SAMPLES):
        start = number * (rows - _SAMPLE_ROWS) // (_SAMPLES - 1)
        yield start, start + _SAMPLE_ROWS


class TokenPasses:
    """Counts in a daemon thread, one task at a time, and posts TokensCounted to the app."""

    def __init__(self, target: MessagePump) -> None:
        self._target = target
        self._pass: _Pass | None = None

    def follow(self, task: TokenTask | None, warm: WarmRunner | None) -> None:
        """Count for this task, or go on; does nothing while that goes on, and stops what counts for another."""
        known = self._pass
        if known is not None and known.task == task and (known.is_alive() or known.ended or warm is None):
            return
        self.stop()
        if task is None or warm is None:
            self._pass = None
            return
        counts = known.counts if known is not None and known.task == task else None
        self._pass = _Pass(self._target, task, warm, counts)
        self._pass.start()

    def stop(self) -> None:
        """Ask for no more slices."""
        if self._pass is not None:
            self._pass.stopped.set()


class _Pass(threading.Thread):
    def __init__(self, target: MessagePump, task: TokenTask, warm: WarmRunner, counts: TokenCounts | None) -> None:
        super().__init__(name="sftui-tokens", daemon=True)
        self._target = target
        self.task = task
        self._warm = warm
        self._began, self._known = time.monotonic(), 0
        self.counts = counts
        self.stopped = threading.Event()
        self.ended = False
        """Whether there is nothing more to count: all is, or none can be."""

    def run(self) -> None:
        """The thread's body."""
        from core.data.token_statistics import TokenCounts
        from core.data.tokenizing_options import counts_file
        from core.runs.launch import NoAnswerError

        task = self.task
        counts = self.counts or TokenCounts(task.facts.rows)
        self._began, self._known = time.monotonic(), counts.counted
        try:
            if not counts.counted:
                counts = TokenCounts.read(counts_file(task.facts, task.folder, task.options), len(counts)) or counts
            self.counts = counts
            self._tell(counts)
            if not counts.complete:
                for start, stop in self._slices(counts):
                    counts.add(self._warm.ask(task.question("lengths", start=start, stop=stop)))
                    self._tell(counts)
                if counts.complete:
                    self._keep(counts)
            self.ended = counts.complete
        except NoAnswerError as error:
            busy = self._warm.is_idle
            self._tell(counts, paused=f"{error.title}. {error.message}" if busy else "a run has the runner that counts")
        except SftuiError as error:
            self.ended = True
            self._tell(counts, problem=error)
        except Exception as error:  # noqa: BLE001 - a defect must not leave the screen waiting
            self.ended = True
            self._tell(counts, problem=SftuiError("The tokens cannot be counted", f"{type(error).__name__}: {error}"))
            self._post(ErrorRaised(error))

    def _slices(self, counts: TokenCounts) -> Iterator[tuple[int, int]]:
        if not counts.counted:
            for start, stop in sample(len(counts)):
                if self.stopped.is_set():
                    return
                yield start, stop
        while (unknown := counts.next_unknown()) is not None and not self.stopped.is_set():
            yield unknown, min(unknown + SLICE_ROWS, len(counts))

    def _keep(self, counts: TokenCounts) -> None:
        from core.data.tokenizing_options import counts_file

        file = counts_file(self.task.facts, self.task.folder, self.task.options)
        # They are counted again next time where there is no room for them.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            counts.write(file)

    def _tell(self, counts: TokenCounts, *, paused: str = "", problem: SftuiError | None = None) -> None:
        if not self.stopped.is_set():
            left = self._seconds_left(counts)
            self._post(TokensCounted(TokenState(self.task, counts, counts.counted, left, paused, problem)))

    def _seconds_left(self, counts: TokenCounts) -> float | None:
        fresh = counts.counted - self._known
        return (time.monotonic() - self._began) / fresh * (len(counts) - counts.counted) if fresh > 0 else None

    def _post(self, message: TokensCounted | ErrorRaised) -> None:
        # The loop is closed when the app has ended in the meantime.
        with contextlib.suppress(RuntimeError):
            self._target.post_message(message)
