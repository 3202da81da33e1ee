"""What the screens say about a run, in words: pure functions from a run's state to text."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from core.text import human_count, human_duration, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.runs.events import StepCompleted
    from core.runs.state import RunState, Status

PHASES = ("preparing", "loading", "adapting", "training", "saving")
ENDED: frozenset[Status] = frozenset({"finished", "released", "stopped", "failed", "interrupted"})
_TREND_WINDOW = 100
_TREND_LEAST = 10
_MEAN_WINDOW = 20

_MARKS: dict[Status, tuple[str, str]] = {
    "queued": ("○", "$accent"),
    "starting": ("○", "$secondary"),
    "finished": ("✓", "$success"),
    "paused": ("‖", "$warning"),
    "released": ("‖", "$warning"),
    "stopped": ("■", "$warning"),
    "failed": ("✗", "$error"),
    "interrupted": ("!", "$error"),
}


def mark(state: Status) -> tuple[str, str]:
    """A sign and a theme colour for a state; a running one gets a filled circle."""
    return _MARKS.get(state, ("●", "$primary"))


def is_live(state: Status) -> bool:
    """Whether the run has a runner that works on it."""
    return state not in ENDED and state not in ("starting", "queued")


def number(value: float) -> str:
    """A whole number with its thousands apart, "1,240"."""
    return f"{value:,.0f}"


def steps(done: int, total: int | None) -> str:
    """How far a run is, "1,240 of 4,000"."""
    if total is None or total < 0:
        return number(done) if done else "–"
    return f"{number(done)} of {number(total)}"


def loss(value: float | None) -> str:
    """A loss with four digits, "1.042"; a diverged one in words."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def short_loss(value: float | None) -> str:
    """A loss in at most seven cells."""
    if value is not None and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf"
    return loss(value)


def small(value: float | None) -> str:
    """A learning rate or norm with three digits, "1.80e-04" as "1.8e-4"."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return loss(value)
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def clock(moment: float) -> str:
    """A time of day, with the date when it is not today: "14:32", "25 Nov 14:32"."""
    local = time.localtime(moment)
    today = time.localtime()
    if (local.tm_year, local.tm_yday) == (today.tm_year, today.tm_yday):
        return time.strftime("%H:%M", local)
    return f"{local.tm_mday} {time.strftime('%b %H:%M', local)}"


def trend(taken: Sequence[StepCompleted]) -> float | None:
    """How the loss moves per 100 steps, by least squares over the last 100; None before there are ten."""
    recent = [step for step in taken[-_TREND_WINDOW:] if math.isfinite(step.loss)]
    if len(recent) < _TREND_LEAST:
        return None
    middle = sum(step.step for step in recent) / len(recent)
    mean = sum(step.loss for step in recent) / len(recent)
    spread = sum((step.step - middle) ** 2 for step in recent)
    return 100 * sum((step.step - middle) * (step.loss - mean) for step in recent) / spread if spread else None


def recent_loss(taken: Sequence[StepCompleted]) -> float | None:
    """The mean loss of the last twenty steps; None before there are ten."""
    recent = [step.loss for step in taken[-_MEAN_WINDOW:] if math.isfinite(step.loss)]
    return sum(recent) / len(recent) if len(recent) >= _TREND_LEAST else None


def trend_words(slope: float | None) -> str:
    """A trend with its direction, "▼ 0.013/100 steps"."""
    if slope is None:
        return ""
    if abs(slope) < 0.0005:
        return "level"
    return f"{'▼' if slope < 0 else '▲'} {abs(slope):.3f}/100 steps"


def elapsed(state: RunState, now: float) -> float | None:
    """Seconds since the run began, up to its end."""
    if state.started_at is None:
        return None
    if state.outcome is not None:
        return state.outcome.seconds
    return max(0.0, now - state.started_at)


def time_line(state: RunState, now: float, *, alive: bool) -> str:
    """Where the run is in time: "31 min in, 1 h 10 min left, done at 14:32"."""
    from core.runs.pace import STEPS_BEFORE_ESTIMATE, phase_left, time_left

    if state.queued is not None and alive:
        return f"waits for {safe(state.queued.waits_for)}"
    past = elapsed(state, now)
    if past is None:
        return "waiting for the runner"
    if state.outcome is not None:
        return f"took {human_duration(past)}, ended at {clock(state.last_time or now)}"
    if not alive:
        return f"last heard of at {clock(state.last_time or now)}"
    words = f"{human_duration(round(past))} in"
    if state.phase == "training" and state.last_time is not None:
        left = time_left(state)
        if left is None:
            return f"{words}, time left known after {STEPS_BEFORE_ESTIMATE} steps"
        # The clock goes on between two steps, but by no more than one: a step that hangs brings no end nearer.
        remaining = max(1, (state.max_steps or 0) - state.step)
        seconds = max(0.0, left.seconds - min(now - state.last_time, left.seconds / remaining))
        words += f", {human_duration(round(seconds))} left, done at {clock(now + seconds)}"
        return words + (f", and {' and '.join(left.untimed)} not timed yet" if left.untimed else "")
    rest = phase_left(state, now)
    return words + (f", {state.phase} takes another {human_duration(round(rest))}" if rest is not None else "")


def figures(state: RunState, *, everything: bool = True) -> list[tuple[str, str]]:
    """The smaller figures of the last steps, as names and values; a few of them where room is short."""
    from core.devices.utilization import utilization
    from core.runs.pace import best_checkpoint, rows_per_second, split, step_seconds

    last = state.last
    rate = step_seconds(state)
    found = [
        ("learning rate", small(last.learning_rate if last else None)),
        ("gradient norm", small(last.grad_norm if last else None)),
        ("tokens/s", number(last.tokens_per_second) if last else "–"),
        ("tokens", human_count(last.tokens_seen) if last else "–"),
        ("epoch", f"{last.epoch:.2f}" if last else "–"),
        ("per step", short_time(rate)),
    ]
    if not everything or last is None:
        return found
    if last.entropy is not None:
        found.append(("entropy", small(last.entropy)))
    if (rows := rows_per_second(state)) is not None:
        found.append(("samples/s", f"{rows:.3g}" if rows < 100 else number(rows)))
    if (used := utilization(state, last.tokens_per_second)) is not None:
        found.append(("MFU", f"{used:.0%}".replace("%", " %")))
    if (times := split(state)) is not None and times.total > 0:
        parts = [("data", times.data), ("forward and backward", times.compute), ("optimizer", times.optimizer)]
        parts.append(("evaluating and saving", times.between))
        shares = [(name, round(100 * seconds / times.total)) for name, seconds in parts]
        found.append(("time goes to", ", ".join(f"{name} {share} %" for name, share in shares if share)))
    if state.checkpoints:
        best = best_checkpoint(state)
        found.append(("checkpoints", f"{len(state.checkpoints)}" + (f", best of step {number(best)}" if best else "")))
    return found


def short_time(seconds: float | None) -> str:
    """A length of time, in milliseconds where it is short."""
    if seconds is None:
        return "–"
    return human_duration(seconds) if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
