"""What a simulation says in a plan, and what is simulated for one."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from core.devices.allocator import segments_grow
from core.memory.batch_shape import BatchShape
from core.memory.estimate import MemoryEstimate, MemoryPart
from core.memory.simulated import Simulation, SimulationTask
from core.spec.problems import Problem

if TYPE_CHECKING:
    from core.memory.plan import ModelFacts, Plan
    from core.spec.run_spec import RunSpec

_FAR = 0.1
_BASIS = {
    "activations": "two steps of this very spec, simulated: what is held at the peak beside all other parts",
    "logits": "of the same simulation: what the output head and the loss hold at the peak",
}


def simulation_task(spec: RunSpec, model: ModelFacts, plan: Plan, shape: BatchShape) -> SimulationTask:
    """What to simulate for a spec as it is planned."""
    dtype = next(choice.value for choice in plan.choices if choice.name == "dtype")
    on_gpu = plan.device.kind == "gpu"
    grows = segments_grow(os.environ)
    return SimulationTask(spec, model.folder, model.architecture.auto_class, dtype, on_gpu, shape, grows)


def with_simulation(memory: MemoryEstimate, simulation: Simulation) -> MemoryEstimate:
    """The estimate with the parts that a simulation knows better."""
    sizes = {"activations": simulation.activations, "logits": simulation.logits}
    return replace(
        memory,
        parts=tuple(
            MemoryPart(part.name, sizes[part.name], _BASIS[part.name], "simulated") if part.name in sizes else part
            for part in memory.parts
        ),
    )


def with_words(memory: MemoryEstimate, words: str) -> MemoryEstimate:
    """The estimate with a word on its simulation beside the parts that one would know better."""
    return replace(
        memory,
        parts=tuple(
            replace(part, basis=words if part.bytes is None else f"{part.basis}; {words}")
            if part.name in _BASIS and part.level != "simulated"
            else part
            for part in memory.parts
        ),
    )


def simulation_problems(memory: MemoryEstimate, simulation: Simulation) -> list[Problem]:
    """A word where the arithmetic of an estimate and a simulation are far apart."""
    estimated = [part.bytes for part in memory.parts if part.name in _BASIS]
    before = memory.known_bytes
    after = with_simulation(memory, simulation).known_bytes
    if None in estimated or abs(before - after) <= _FAR * after:
        return []
    share = f"{abs(before - after) / after:.0%} {'more' if before > after else 'less'}"
    message = f"the estimate was {share} than the simulation, whose figures are shown."
    return [Problem("memory", "warning", message, "")]
