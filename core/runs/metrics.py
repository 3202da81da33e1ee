"""The figures of a run that can be drawn over its course: what they are called, and where they stand in its state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from core.runs.events import EvaluationCompleted, StepCompleted
from core.runs.state import MemorySample, RunState

Unit = Literal["", "bytes", "seconds", "share", "count"]
XAxis = Literal["step", "tokens", "time"]
X_UNITS: dict[XAxis, Unit] = {"step": "", "tokens": "count", "time": "seconds"}


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of each step. Times are in seconds, memory in bytes, shares from 0 to 1."""

    name: str
    title: str
    unit: Unit
    of_step: Callable[[StepCompleted], float | None]
    of_evaluation: Callable[[EvaluationCompleted], float | None] = lambda _: None
    """Its value over the held-out rows."""
    lower_is_better: bool | None = None


LOSS = Metric("loss", "Loss", "", lambda step: step.loss, lambda found: found.loss, lower_is_better=True)
METRICS = (
    LOSS,
    Metric("learning_rate", "Learning rate", "", lambda step: step.learning_rate),
    Metric("grad_norm", "Gradient norm", "", lambda step: step.grad_norm),
    Metric(
        "token_accuracy",
        "Token accuracy",
        "share",
        lambda step: step.token_accuracy,
        lambda found: found.token_accuracy,
        lower_is_better=False,
    ),
    Metric("entropy", "Entropy", "", lambda step: step.entropy),
    Metric("tokens_per_second", "Tokens/s", "count", lambda step: step.tokens_per_second, lower_is_better=False),
    Metric("seconds", "Step time", "seconds", lambda step: step.seconds, lower_is_better=True),
    Metric("data_seconds", "Data wait", "seconds", lambda step: step.data_seconds, lower_is_better=True),
)
MEMORY = Metric("memory", "Memory", "bytes", lambda _: None, lower_is_better=True)
ALL_METRICS = (*METRICS, MEMORY)
HELD_OUT = Metric("held_out", "Held-out loss", "", lambda _: None, lambda found: found.loss, lower_is_better=True)
COMPARED = (LOSS, HELD_OUT, *METRICS[1:], MEMORY)
"""In this order they are offered where several runs share a chart."""


def held_bytes(sample: MemorySample) -> int:
    """What the run held at that moment: on its GPUs where it has some, else in the host's memory."""
    own = [gpu.own_bytes for gpu in sample.use.gpus if gpu.own_bytes is not None]
    if own:
        return sum(own)
    return sum(gpu.used_bytes for gpu in sample.use.gpus) if sample.use.gpus else sample.use.process_bytes


def points(wanted: Metric, steps: Iterable[StepCompleted]) -> list[tuple[float, float]]:
    """The metric over steps; those that do not have it are left out."""
    of_step = wanted.of_step
    return [(step.step, value) for step in steps if (value := of_step(step)) is not None]


def memory_points(samples: Iterable[MemorySample]) -> list[tuple[float, float]]:
    """What the run held, over steps."""
    return [(sample.step, held_bytes(sample)) for sample in samples]


def held_out_points(wanted: Metric, state: RunState) -> list[tuple[float, float]]:
    """The metric over the held-out rows, over steps."""
    return [(found.step, value) for found in state.evaluations if (value := wanted.of_evaluation(found)) is not None]


def along(axis: XAxis, steps: Iterable[StepCompleted]) -> list[float]:
    """Where steps lie on an axis: their number, the tokens seen, or the seconds trained so far."""
    if axis == "step":
        return [step.step for step in steps]
    if axis == "tokens":
        return [step.tokens_seen for step in steps]
    spent, found = 0.0, []
    for step in steps:
        spent += step.seconds + (step.data_seconds or 0.0)
        found.append(spent)
    return found
