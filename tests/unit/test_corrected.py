"""Where a simulation found more than the estimate, plans of other settings say so much more."""

from dataclasses import replace

from core.memory.corrected import corrected
from core.memory.plan import Plan
from core.spec.run_spec import RunSpec
from tests.unit.test_fit import GB, plans, spec


def sized(plan: Plan, **sizes: int) -> Plan:
    assert plan.memory is not None
    parts = tuple(
        replace(part, bytes=sizes[part.name], level="simulated") if part.name in sizes else part
        for part in plan.memory.parts
    )
    return replace(plan, memory=replace(plan.memory, parts=parts))


def part(plan: Plan, name: str) -> int:
    assert plan.memory is not None
    size = next(part.bytes for part in plan.memory.parts if part.name == name)
    assert size is not None
    return size


def test_other_settings_follow_what_the_simulation_of_these_found() -> None:
    plan_of = plans(30 * GB, asked=[])
    now: RunSpec = spec()
    estimated = plan_of(now)
    simulated = sized(estimated, activations=2 * part(estimated, "activations"))
    more = plan_of(spec(per_device_train_batch_size=8))
    after = corrected(more, estimated, simulated)
    assert part(after, "activations") == 2 * part(more, "activations")
    assert part(after, "base_weights") == part(more, "base_weights")
    assert (more.verdict, after.verdict) == ("fits", "does_not_fit")
    same = corrected(estimated, estimated, simulated)
    assert part(same, "activations") == part(simulated, "activations"), "these settings are as the simulation has them"


def test_without_a_simulation_nothing_changes() -> None:
    plan_of = plans(30 * GB, asked=[])
    estimated = plan_of(spec())
    more = plan_of(spec(per_device_train_batch_size=8))
    assert corrected(more, estimated, estimated) is more
    assert corrected(more, replace(estimated, memory=None), estimated) is more
