"""Estimates of other settings, corrected by what a simulation found for the present ones."""

from dataclasses import replace

from core.memory.estimate import MemoryEstimate, MemoryPart, verdict
from core.memory.plan import Plan


def corrected(plan: Plan, estimated: Plan, simulated: Plan) -> Plan:
    """Return a plan whose simulated parts are as much more or less as they are between two plans of one spec."""
    if plan.memory is None or estimated.memory is None or simulated.memory is None:
        return plan
    ratios = _ratios(estimated.memory, simulated.memory)
    parts = tuple(_scaled(part, ratios.get(part.name, 1.0)) for part in plan.memory.parts)
    if parts == plan.memory.parts:
        return plan
    memory = replace(plan.memory, parts=parts)
    word, reason = verdict(memory, plan.device.free_bytes)
    return replace(plan, memory=memory, verdict=word, verdict_reason=reason)


def _ratios(estimated: MemoryEstimate, simulated: MemoryEstimate) -> dict[str, float]:
    before = {part.name: part.bytes for part in estimated.parts}
    return {
        part.name: part.bytes / size
        for part in simulated.parts
        if part.level == "simulated" and part.bytes is not None and (size := before.get(part.name))
    }


def _scaled(part: MemoryPart, ratio: float) -> MemoryPart:
    if part.bytes is None or ratio == 1.0:
        return part
    return replace(part, bytes=round(part.bytes * ratio))
