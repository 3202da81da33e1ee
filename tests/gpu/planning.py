"""What a plan says of a configuration: by formulas, by traces of the model's layers, and by simulation."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.devices.gpu import GpuReading
from core.errors import SftuiError
from core.memory.batch_shape import BatchShape, batch_shape
from core.memory.plan import Plan, PlanFacts, read_facts, read_model
from core.memory.simulated import Simulation, SimulationTask, cached_simulation, why_not_simulated
from core.memory.simulation_plan import simulation_task
from core.memory.step_parts import CONTEXT_BYTES
from core.runs.launch import WarmRunner
from core.spec.run_spec import RunSpec

_SIMULATED_AT_ONCE = 2
_SECONDS = 600.0


@dataclass(frozen=True)
class Planned:
    """The plans of a spec, of which the simulated ones may still be under way."""

    by_traces: Plan
    recorded: dict[str, Any]
    simulated: "Future[dict[str, Any]]"

    def to_json(self, patience: float) -> dict[str, Any]:
        """All plans by their ways; waits for the simulation. Raises TimeoutError after `patience` seconds."""
        return {**self.recorded, **self.simulated.result(patience)}


class Planner:
    """Plans while other runs have the GPU, which its own processes never see.

    `reading` is of the GPUs while nobody has them: what a plan is told of free memory.
    """

    def __init__(self, reading: GpuReading) -> None:
        self._reading = reading
        self._own = _Own()
        self._warm: list[WarmRunner] = []
        self._planning = ThreadPoolExecutor(1)
        self._simulating = ThreadPoolExecutor(_SIMULATED_AT_ONCE)

    @property
    def on_gpu(self) -> bool:
        """Whether runs have a GPU."""
        return bool(self._reading.gpus)

    def learn(self, folder: Path) -> None:
        """Look at a model's modules and layers, without its weights; both are kept for the plans. Raises SftuiError."""
        model = read_model(str(folder))
        what = {"folder": str(folder), "auto_class": model.architecture.auto_class}
        warm = self._runner()
        warm.ask({"ask": "inventory", **what}, timeout=_SECONDS)
        warm.ask({"ask": "layers", **what, "on_gpu": self.on_gpu}, timeout=_SECONDS)

    def plan(self, spec: RunSpec, *, is_even: bool) -> "Future[Planned]":
        """Plan by arithmetic and simulate, each in its turn; returns at once. The future raises SftuiError.

        `is_even`: no batch of the run has rows of different lengths.
        """
        return self._planning.submit(self._plan, spec, is_even)

    def close(self) -> None:
        """Let the processes end."""
        for pool in (self._planning, self._simulating):
            pool.shutdown(wait=False, cancel_futures=True)
        for warm in self._warm:
            warm.close()

    def _plan(self, spec: RunSpec, is_even: bool) -> Planned:
        facts = replace(read_facts(spec), gpus=self._reading)
        if facts.model is None:
            raise SftuiError("The model cannot be read", "; ".join(map(str, facts.problems)))
        untraced = replace(facts, model=replace(facts.model, traces=None)).plan(spec)
        traced = facts.plan(spec)
        recorded = {"formulas": _record(untraced), "traces": _record(traced)}
        return Planned(traced, recorded, self._simulating.submit(self._simulate, facts, spec, traced, is_even))

    def _simulate(self, facts: PlanFacts, spec: RunSpec, plan: Plan, is_even: bool) -> dict[str, Any]:
        shape = batch_shape(spec)
        assert shape is not None and facts.model is not None
        why = why_not_simulated(spec, facts.model.architecture, shape)
        if why is not None:
            return {"simulation": {"problem": why}}
        task = simulation_task(spec, facts.model, plan, shape)
        told = {"simulation": self._recorded(facts, spec, task)}
        if is_even and shape.rows > 1 and not shape.packed:
            # The batch as it was: a plan takes its rows to differ by a token, which costs a mask.
            real = BatchShape(shape.rows, shape.tokens, shape.rows * shape.tokens, packed=False)
            told["simulation_of_even_rows"] = self._recorded(facts, spec, replace(task, shape=real))
        return told

    def _recorded(self, facts: PlanFacts, spec: RunSpec, task: SimulationTask) -> dict[str, Any]:
        try:
            simulation = cached_simulation(task.key)
            if simulation is None:
                simulation = Simulation.from_json(self._runner().ask(task.question(), timeout=_SECONDS))
            return {**_record(facts.plan(spec, simulation)), "seconds": round(simulation.seconds, 1)}
        except Exception as error:  # noqa: BLE001 - what the run held is worth keeping without a simulation
            return {"problem": str(error)}

    def _runner(self) -> WarmRunner:
        # One for each thread: a runner that is asked to simulate lets go of what it simulated for another.
        if self._own.warm is None:
            self._own.warm = WarmRunner.start("cpu")
            self._warm.append(self._own.warm)
        return self._own.warm


class _Own(threading.local):
    """What each thread has for itself."""

    warm: WarmRunner | None = None


def _record(plan: Plan) -> dict[str, Any]:
    """A plan in a JSON object that tests.gpu.comparison reads, without what the runs before it have corrected."""
    told = plan.to_json()["memory"]
    parts, correction = told["parts"], told["correction_bytes"]
    if correction:
        parts["allocator_and_context"] -= correction
    return {
        "total_bytes": told["total_bytes"] - correction if told["total_bytes"] is not None else None,
        "is_complete": told["total_is_complete"],
        "context_bytes": CONTEXT_BYTES if plan.device.kind == "gpu" else None,
        "parts": parts,
        "basis": {name: told["basis"].get(name) for name in ("activations", "logits")},
        "errors": [str(problem) for problem in plan.problems if problem.level == "error"],
    }
