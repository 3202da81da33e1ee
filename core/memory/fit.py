"""The fastest spec that fits into the free memory at the same effective batch, and the way to it in single changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.data.packing import packing_problems
from core.data.rows import Form
from core.data.token_statistics import TokenStatistics
from core.devices.gpu import GpuSnapshot
from core.errors import SftuiError
from core.memory.fit_ladder import applied, faster, smaller
from core.memory.fit_search import FitSearch, Place
from core.memory.plan import Plan
from core.memory.room import PlanOf
from core.memory.speed import plan_choice, speed_words, time_of
from core.models.architecture import Architecture
from core.spec.run_spec import RunSpec

Goal = Literal["fit", "fast"]

# Packing is worth a word where it takes this share of the time of padded batches, or less.
_PACKING_PAYS = 0.85


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the way."""

    title: str
    reason: str
    sets: Mapping[str, Any]
    """Options by name; None takes a passed-on argument away."""
    saved_bytes: int
    """With the changes before it made; negative where it takes more."""
    speed: str
    """In words, empty where it hardly matters; estimated, never measured."""
    suggested: bool = False
    """Beside the way: it also changes what a step learns from."""


@dataclass(frozen=True)
class Fit:
    """The way from a spec to one that fits, or to a faster one that still does."""

    goal: Goal
    spec: RunSpec
    before: Plan
    changes: tuple[Change, ...]
    after: Plan
    """With all changes but those that are only suggested."""
    plans: int
    """How many were tried."""

    @property
    def fits(self) -> bool:
        """Whether it fits at the end of the way, if only just."""
        return self.after.verdict in ("fits", "tight")

    @property
    def missing_bytes(self) -> int:
        """What the smallest spec still lacks; 0 where it fits."""
        return 0 if self.fits else missing_bytes(self.after)

    @property
    def speed(self) -> str:
        """How much faster or slower the whole way makes it, in words."""
        return way_speed(self.spec, self.before, with_changes(self.spec, self.taken), self.after)

    @property
    def taken(self) -> tuple[Change, ...]:
        """The way itself."""
        return tuple(change for change in self.changes if not change.suggested)


@dataclass(frozen=True, slots=True)
class Known:
    """What decides about the ladder besides the spec."""

    architecture: Architecture
    gpu: GpuSnapshot | None
    form: Form = "unknown"
    tokens: TokenStatistics | None = None


def way_speed(spec: RunSpec, before: Plan, changed: RunSpec, after: Plan) -> str:
    """Return how much faster or slower one spec is than another; nothing on a CPU: the figures are of GPUs."""
    return speed_words(time_of(changed, after) / time_of(spec, before)) if before.device.kind == "gpu" else ""


def missing_bytes(plan: Plan) -> int:
    """Return by how many bytes a plan is larger than what is free; 0 where that is not known or it is not."""
    if plan.memory is None or plan.device.free_bytes is None:
        return 0
    return max(0, plan.memory.known_bytes - plan.device.free_bytes)


def with_changes(spec: RunSpec, changes: Iterable[Change]) -> RunSpec:
    """Return the spec with some of the changes made."""
    for change in changes:
        spec = applied(spec, change.sets)
    return spec


def find_fit(spec: RunSpec, plan_of: PlanOf, known: Known, goal: Goal | None = None) -> Fit:
    """Return the way to the fastest spec that fits; without a `goal`, down where memory is short, else up.

    `plan_of` must be the same for all specs. Raises SftuiError where the plan does not tell whether the spec fits.
    """
    before = plan_of(spec)
    if before.verdict == "unknown" or before.memory is None:
        reason = before.verdict_reason
        raise SftuiError("Not known yet", f"Whether it fits is not known: {reason}.", "Try again when it is.")
    goal = goal or ("fast" if before.verdict == "fits" else "fit")
    axes = (smaller if goal == "fit" else faster)(spec, before, known.architecture, known.gpu)
    search = FitSearch(spec, before, plan_of, axes, grows=goal == "fast")
    place = search.fastest(("fits",))
    if place is None:
        place = search.start if goal == "fast" else search.fastest(("fits", "tight"))
    place = search.smallest() if place is None else search.without_needless(place)
    changes = _way(search, place, on_gpu=before.device.kind == "gpu")
    after = search.plan(place)
    suggested = _packing(applied(spec, search.sets(place)), after, plan_of, known)
    return Fit(goal, spec, before, (*changes, *suggested), after, search.plans)


def _way(search: FitSearch, place: Place, *, on_gpu: bool) -> list[Change]:
    """Return the changes that lead to a place, each with what it saves after those before it."""
    changes = []
    at = search.start
    for number, level in enumerate(place):
        if not level:
            continue
        following = (*at[:number], level, *at[number + 1 :])
        rung = search.axes[number].rungs[level - 1]
        saved = round(search.bytes(at) - search.bytes(following))
        speed = speed_words(search.time(following) / search.time(at)) if on_gpu else ""
        changes.append(Change(rung.title, rung.reason, rung.sets, saved, speed))
        at = following
    return changes


def _packing(spec: RunSpec, plan: Plan, plan_of: PlanOf, known: Known) -> list[Change]:
    """Return packing as a suggestion where rows are short, stay apart, and it still fits."""
    tokens = known.tokens
    if spec.packing or spec.max_length is None or tokens is None or not tokens.packed_efficiency:
        return []
    ratio = tokens.padded_efficiency / tokens.packed_efficiency
    sets: dict[str, Any] = {"packing": True}
    title = "Packing"
    attention = plan_choice(plan, "attn_implementation")
    if attention in ("sdpa", "eager") and spec.per_device_train_batch_size > 1:
        # These would compute every pair of tokens of all sequences of a batch.
        total = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        sets |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": total}
        title = "Packing, one sequence a batch"
    packed = applied(spec, sets)
    on_gpu = known.gpu is not None
    mixed = packing_problems(packed, known.architecture, attention, on_gpu=on_gpu, form=known.form)
    after = plan_of(packed)
    if ratio > _PACKING_PAYS or mixed or after.verdict != plan.verdict or after.memory is None or plan.memory is None:
        return []
    reason = f"padding makes {1 - tokens.padded_efficiency:.0%} of a batch; a step then learns from more rows"
    saved = plan.memory.known_bytes - after.memory.known_bytes
    return [Change(title, reason, sets, saved, speed_words(ratio), suggested=True)]
