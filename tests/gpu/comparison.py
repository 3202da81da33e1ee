"""What was planned against what was held: errors as shares, and whether a verdict would have been right."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
# Memory of the cards that people have; a verdict must be right on each.
CARDS = tuple(gib * GIB for gib in (8, 12, 16, 24, 32, 40, 48, 80, 141))
# So close to a card's memory either verdict is right.
BAND = 0.05
MEAN, WORST, UNDER = 0.03, 0.07, 0.03
"""The aims, as shares of what was held: of the mean error, of the worst, and of the worst that is too little."""
WAYS = ("formulas", "traces", "simulation")
MOMENTS = ("total", "allocated", "reserved", "context")


@dataclass(frozen=True, slots=True)
class Told:
    """Bytes on a GPU by one way of telling: a plan's, or the run's own. None where it is not told."""

    total: int
    allocated: int | None = None
    """By tensors at most."""
    reserved: int | None = None
    """By PyTorch's allocator at most."""
    context: int | None = None
    """Outside of it: CUDA's context, libraries, and what a paged optimizer keeps there."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well several runs were planned: shares of what they held, positive where too much was planned."""

    runs: int
    mean: float
    """Of the errors without their signs."""
    worst: float
    lowest: float
    """The one that was furthest below; 0 if none was."""
    wrong_verdicts: int
    verdicts: int
    """Of all runs on all cards that the band leaves."""

    @property
    def reaches_aim(self) -> bool:
        """Whether all of it is as it is to be."""
        errors_fit = self.mean <= MEAN and abs(self.worst) <= WORST and self.lowest >= -UNDER
        return errors_fit and not self.wrong_verdicts


def planned(plan: Mapping[str, Any]) -> Told | None:
    """What a recorded plan says; None where there is none, or one that leaves something out."""
    if plan.get("total_bytes") is None or not plan.get("is_complete"):
        return None
    total, context = int(plan["total_bytes"]), plan["context_bytes"]
    if context is None:
        return Told(total)
    outside = int(plan["parts"]["allocator_and_context"])
    return Told(total, total - outside, total - context, context)


def held(run: Mapping[str, Any]) -> Told | None:
    """What a recorded run held; None if it did not come to its end."""
    peak = run.get("peak")
    if run.get("end") != "finished" or peak is None:
        return None
    probed = run.get("probed_bytes") or 0
    if peak["reserved_bytes"] is None:
        return Told(max(peak["bytes"], probed))
    if probed > peak["bytes"]:
        # Only the total of a probe is told.
        return Told(probed)
    return Told(peak["bytes"], peak["allocated_bytes"], peak["reserved_bytes"], peak["bytes"] - peak["reserved_bytes"])


def error(plan: Told, run: Told, moment: str) -> float | None:
    """By how much a plan was off at one of MOMENTS, as a share; of the context in bytes. None where it is not told."""
    said, was = getattr(plan, moment), getattr(run, moment)
    if said is None or was is None:
        return None
    return float(said - was) if moment == "context" else said / was - 1


def verdict_is_right(planned_bytes: int, held_bytes: int, card_bytes: int) -> bool | None:
    """Whether "fits" or "does not fit" is right on a card; None where either is."""
    if abs(held_bytes - card_bytes) <= BAND * card_bytes:
        return None
    return (planned_bytes <= card_bytes) == (held_bytes <= card_bytes)


def foresaw_running_out(planned_bytes: int, free_bytes: int) -> bool | None:
    """Whether a run that found too little memory was planned so; None where the plan was close to it."""
    if planned_bytes > free_bytes:
        return True
    return None if planned_bytes >= (1 - BAND) * free_bytes else False


def accuracy(pairs: Sequence[tuple[Told, Told]], ran_out: Iterable[tuple[int, int]] = ()) -> Accuracy | None:
    """Of (planned, held) pairs, and of (planned, free) bytes of runs that ran out; None without a pair."""
    if not pairs:
        return None
    errors = [plan.total / run.total - 1 for plan, run in pairs]
    verdicts = [verdict_is_right(plan.total, run.total, card) for plan, run in pairs for card in CARDS]
    verdicts += [foresaw_running_out(*one) for one in ran_out]
    counted = [verdict for verdict in verdicts if verdict is not None]
    return Accuracy(
        runs=len(pairs),
        mean=statistics.fmean(map(abs, errors)),
        worst=max(errors, key=abs),
        lowest=min(0.0, *errors),
        wrong_verdicts=counted.count(False),
        verdicts=len(counted),
    )


def corrected(pairs: Sequence[tuple[Told, Told]]) -> list[tuple[Told, Told]]:
    """Each plan's total with what all other runs held beyond theirs, the median of it, as a calibrated plan has it."""
    if len(pairs) < 2:
        return []
    beyond = [run.total - plan.total for plan, run in pairs]
    found = []
    for number, (plan, run) in enumerate(pairs):
        others = beyond[:number] + beyond[number + 1 :]
        found.append((Told(plan.total + round(statistics.median(others))), run))
    return found
