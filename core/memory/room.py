"""The largest batch and the longest sequence that would still fit, found by trying plans."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from core.memory.plan import Plan
from core.spec.run_spec import RunSpec

PlanOf = Callable[[RunSpec], Plan]

MOST_ROWS = 4096
_SHORTEST = 128
# Where a model does not tell how many tokens it can see.
_LONGEST = 131_072
# Nearer than this is more exact than a plan is.
_NEAR = 1.03


@dataclass(frozen=True, slots=True)
class Room:
    """What fits beside the present settings; 0 where not even one row, or the shortest sequence, does."""

    rows: int
    """Of the largest batch at the present length; MOST_ROWS stands for more, too."""
    tokens: int
    """Of the longest sequence, with one in a batch."""
    whole_context: bool
    """Whether that is all that the model can see."""


def room(spec: RunSpec, plan_of: PlanOf, plan_of_full_rows: PlanOf, context_length: int | None) -> Room:
    """Return the room that a spec has, after some twenty plans.

    `plan_of` knows how long the rows are, `plan_of_full_rows` takes every row to be as long as `max_length`, in tokens.
    """

    def batch_fits(rows: int) -> bool:
        return plan_of(spec.model_copy(update={"per_device_train_batch_size": rows})).verdict == "fits"

    def length_fits(steps: int) -> bool:
        one = {"per_device_train_batch_size": 1, "max_length": steps * _SHORTEST}
        return plan_of_full_rows(spec.model_copy(update=one)).verdict == "fits"

    most = max(1, (context_length or _LONGEST) // _SHORTEST)
    rows = _largest(batch_fits, MOST_ROWS, guess=spec.per_device_train_batch_size)
    steps = _largest(length_fits, most, guess=(spec.max_length or _SHORTEST) // _SHORTEST)
    return Room(rows, steps * _SHORTEST, context_length is not None and steps == most)


def _largest(fits: Callable[[int], bool], most: int, guess: int) -> int:
    """Return the largest number up to `most` that fits, or one that is hardly smaller; 0 if none does."""
    good, bad = 0, most + 1
    at = min(max(1, guess), most)
    while good + 1 < bad and bad > good * _NEAR:
        if fits(at):
            good = at
        else:
            bad = at
        if not good:
            at = max(1, bad // 4)
        elif bad > most:
            at = min(most, good * 4)
        else:
            at = min(max(round(math.sqrt(good * bad)), good + 1), bad - 1)
    return good
