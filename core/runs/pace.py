"""How fast a run is, and how long it will take: from what its last steps, evaluations and saves really took."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from core.runs.state import RunState

_WINDOW = 50
_CUT_SHARE = 0.1
STEPS_BEFORE_ESTIMATE = 3
# A share of a phase that is too small to judge the rest by.
_LEAST_SHARE = 0.05
_LEAST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Left:
    """How long the rest of training takes."""

    seconds: float
    untimed: tuple[str, ...] = ()
    """What comes on top and has not been done yet, so that nobody knows how long it takes: "4 evaluations"."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of a step goes, in seconds: the mean of the last steps."""

    data: float
    compute: float
    """Forward and backward."""
    optimizer: float
    between: float
    """Evaluating, saving and answering, as far as they fall on one step."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.data + self.compute + self.optimizer + self.between


def step_seconds(state: RunState, window: int = _WINDOW) -> float | None:
    """From one step to the next, without what is evaluated and saved: a mean of the last steps, but for their extremes.

    Rows of different lengths make steps of different lengths, so that a median may never be the pace.
    """
    recent = sorted(step.seconds + (step.data_seconds or 0.0) for step in state.steps[-window:])
    cut = max(1, int(len(recent) * _CUT_SHARE)) if len(recent) > 2 else 0
    kept = recent[cut : len(recent) - cut]
    return statistics.fmean(kept) if kept else None


def time_left(state: RunState) -> Left | None:
    """How long the remaining steps take, with the evaluations and saves on the way; None where it is not known.

    A guess from one or two steps is off by a multiple: they warm up.
    """
    rate = step_seconds(state)
    total = state.max_steps
    if rate is None or total is None or total < 0 or len(state.steps) < STEPS_BEFORE_ESTIMATE:
        return None
    seconds = max(0, total - state.step) * rate
    untimed = []
    for name, every, taken in _on_the_way(state):
        times = total // every - state.step // every if every else 0
        if times <= 0:
            continue
        if taken:
            seconds += times * statistics.median(taken[-5:])
        elif name:
            untimed.append(f"1 {name}" if times == 1 else f"{times:,} {name}s")
    return Left(seconds, tuple(untimed))


def _on_the_way(state: RunState) -> tuple[tuple[str, int | None, Sequence[float]], ...]:
    training = state.training
    if training is None:
        return ()
    return (
        ("evaluation", training.evaluate_every, [found.seconds for found in state.evaluations[-5:]]),
        # The first save is mostly short beside a step, and not worth a word.
        ("", training.save_every, [kept.seconds for kept in state.checkpoints]),
        ("", training.sample_every, [one.seconds for one in state.samples if one.seconds is not None]),
    )


def phase_left(state: RunState, now: float) -> float | None:
    """How long loading, or reading the data, takes from now on; None where too little of it is done to tell."""
    done = began = None
    if state.phase == "loading" and state.load_progress is not None and state.load_progress.total_bytes:
        done, began = state.load_progress.done_bytes / state.load_progress.total_bytes, state.phase_started_at
    elif state.phase == "preparing" and state.data_progress is not None and state.data_progress.total:
        done, began = state.data_progress.done / state.data_progress.total, state.data_step_began
    if done is None or began is None or state.last_time is None:
        return None
    spent = state.last_time - began
    if done < _LEAST_SHARE or spent < _LEAST_SECONDS:
        return None
    return max(0.0, spent / done * (1 - done) - (now - state.last_time))


def split(state: RunState, window: int = _WINDOW) -> Split | None:
    """Where the time of the last steps went; None before the first step, and in journals that do not tell."""
    recent = [step for step in state.steps[-window:] if step.data_seconds is not None]
    if not recent:
        return None
    first = recent[0].step
    spent = sum(found.seconds for found in state.evaluations[-window:] if found.step >= first)
    spent += sum(kept.seconds for kept in state.checkpoints if kept.step >= first)
    spent += sum(one.seconds or 0.0 for one in state.samples if one.step >= first)
    optimizer = statistics.fmean(step.optimizer_seconds or 0.0 for step in recent)
    return Split(
        data=statistics.fmean(step.data_seconds or 0.0 for step in recent),
        compute=statistics.fmean(step.seconds for step in recent) - optimizer,
        optimizer=optimizer,
        between=spent / len(recent),
    )


def rows_per_second(state: RunState) -> float | None:
    """Rows, or packed sequences, learned from in a second; None where the journal does not tell."""
    rate = step_seconds(state)
    rows = state.training.rows_per_step if state.training else None
    return rows / rate if rate and rows else None


def best_checkpoint(state: RunState) -> int | None:
    """The step of the checkpoint with the lowest held-out loss; None where none was evaluated."""
    losses = {found.step: found.loss for found in state.evaluations}
    known = [kept.step for kept in state.checkpoints if kept.step in losses]
    return min(known, key=lambda step: losses[step], default=None)
