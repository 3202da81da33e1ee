"""The fastest place on a ladder that fits, found with few plans: the fastest first, and no further than can fit."""

import heapq
import math
from collections.abc import Collection, Mapping
from typing import Any

from core.memory.fit_ladder import Axis, applied
from core.memory.plan import Plan
from core.memory.room import PlanOf
from core.memory.speed import plan_choice, relative_time
from core.spec.contradictions import contradictions
from core.spec.run_spec import RunSpec

Place = tuple[int, ...]
"""How far each axis has gone; 0 is as the spec has it."""

# What moves memory most is decided first, so that what cannot fit is known early.
_DECIDED_FIRST = ("weights", "checkpointing", "offloading", "batch", "dtype", "attention", "optimizer")
# Another kind of training is never taken for its speed.
_LAST_RESORT = 1000.0
# A change that gains less is not worth a word.
_NOTICEABLE = 1.03


class FitSearch:
    """Specs by how far each axis has gone, each planned once. `grows` where the axes lead to more memory."""

    def __init__(self, spec: RunSpec, before: Plan, plan_of: PlanOf, axes: Collection[Axis], *, grows: bool) -> None:
        self._spec, self._before, self._plan_of, self._grows = spec, before, plan_of, grows
        self.plans = 1
        """How many were made."""
        self._known: dict[tuple[tuple[str, str], ...], Plan] = {}
        self.axes = tuple(axis for axis in map(self._that_can_be, axes) if axis.rungs)
        self.start: Place = (0,) * len(self.axes)
        self._made: dict[Place, Plan] = {self.start: before}
        self._times: dict[Place, float] = {}
        # No axis changes which rung of another one is the quickest.
        self._quickest = [
            min(range(len(axis.rungs) + 1), key=lambda level: self._cost(self._moved(self.start, number, level)))
            for number, axis in enumerate(self.axes)
        ]

    def sets(self, place: Place) -> dict[str, Any]:
        """The options that a place sets."""
        return {
            name: value
            for axis, level in zip(self.axes, place, strict=True)
            if level
            for name, value in axis.rungs[level - 1].sets.items()
        }

    def plan(self, place: Place) -> Plan:
        """The plan of a place."""
        if place not in self._made:
            self._made[place] = self._plan(self.sets(place))
        return self._made[place]

    def bytes(self, place: Place) -> float:
        """What a place holds, as far as it is known."""
        memory = self.plan(place).memory
        return memory.known_bytes if memory is not None else math.inf

    def time(self, place: Place) -> float:
        """What a token takes there."""
        if place not in self._times:
            self._times[place] = self._time(applied(self._spec, self.sets(place)))
        return self._times[place]

    def _time(self, spec: RunSpec) -> float:
        dtype = spec.dtype if spec.dtype != "auto" else plan_choice(self._before, "dtype")
        attention = spec.attn_implementation or plan_choice(self._before, "attn_implementation")
        return relative_time(spec, dtype=dtype, attention=attention)

    def fastest(self, verdicts: Collection[str]) -> Place | None:
        """The fastest place with one of these verdicts; None if none has one."""
        order = sorted(range(len(self.axes)), key=lambda number: _DECIDED_FIRST.index(self.axes[number].name))
        heap: list[tuple[float, Place]] = [(0.0, ())]
        while heap:
            _, decided = heapq.heappop(heap)
            place = self._completed(order, decided, [self._thriftiest(number) for number in range(len(self.axes))])
            if self.plan(place).verdict not in verdicts:
                continue
            if len(decided) == len(order):
                if self._has_no_new_error(place):
                    return place
                continue
            for level in range(len(self.axes[order[len(decided)]].rungs) + 1):
                child = (*decided, level)
                heapq.heappush(heap, (self._at_best(order, child), child))
        return None

    def smallest(self) -> Place:
        """The place that holds least, with no change that saves nothing."""
        place = tuple(self._thriftiest(number) for number in range(len(self.axes)))
        for number, axis in enumerate(self.axes):
            others = [self._moved(place, number, level) for level in range(len(axis.rungs) + 1)]
            place = min(others, key=self.bytes)
        return place

    def without_needless(self, place: Place) -> Place:
        """The same without what is neither needed to fit as well nor noticeably faster."""
        wanted = self.plan(place).verdict
        for number, level in enumerate(place):
            for less in range(level):
                other = self._moved(place, number, less)
                if self.time(other) < self.time(place) * _NOTICEABLE and self.plan(other).verdict == wanted:
                    place = other
                    break
        return place

    def _that_can_be(self, axis: Axis) -> Axis:
        """An axis without the rungs that the spec or the model refuses."""
        return Axis(axis.name, tuple(rung for rung in axis.rungs if not self._new_errors(rung.sets)))

    def _has_no_new_error(self, place: Place) -> bool:
        return not self._new_errors(self.sets(place))

    def _new_errors(self, sets: Mapping[str, Any]) -> set[str]:
        now = _errors(applied(self._spec, sets), self._plan(sets))
        return now - _errors(self._spec, self._before)

    def _plan(self, sets: Mapping[str, Any]) -> Plan:
        key = tuple(sorted((name, repr(value)) for name, value in sets.items()))
        if key not in self._known:
            self._known[key] = self._plan_of(applied(self._spec, sets)) if sets else self._before
            self.plans += bool(sets)
        return self._known[key]

    def _thriftiest(self, number: int) -> int:
        return 0 if self._grows else len(self.axes[number].rungs)

    def _at_best(self, order: list[int], decided: Place) -> float:
        """The least that a place can cost after these decisions."""
        return self._cost(self._completed(order, decided, self._quickest))

    def _cost(self, place: Place) -> float:
        last = any(level and axis.rungs[level - 1].last_resort for axis, level in zip(self.axes, place, strict=True))
        return self.time(place) * (_LAST_RESORT if last else 1)

    @staticmethod
    def _completed(order: list[int], decided: Place, others: list[int]) -> Place:
        levels = list(others)
        for number, level in zip(order, decided, strict=False):
            levels[number] = level
        return tuple(levels)

    @staticmethod
    def _moved(place: Place, number: int, level: int) -> Place:
        return (*place[:number], level, *place[number + 1 :])


def _errors(spec: RunSpec, plan: Plan) -> set[str]:
    problems = (*contradictions(spec), *plan.problems)
    return {problem.field for problem in problems if problem.level == "error"}
