"""`sftui plan SPEC --simulate`: two training steps of the spec, gone through without weights."""

from dataclasses import replace

from core.errors import SftuiError
from core.memory.batch_shape import batch_shape
from core.memory.plan import Plan, PlanFacts
from core.memory.simulated import Simulation, SimulationTask, cached_simulation, why_not_simulated
from core.memory.simulation_plan import simulation_task
from core.runs.launch import WarmRunner
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec

_SECONDS = 600.0


def simulate_here(spec: RunSpec, facts: PlanFacts, plan: Plan) -> Plan:
    """The plan with what a simulation found, or with a problem that says why there is none."""
    shape = batch_shape(spec)
    if facts.model is None or plan.memory is None:
        return plan
    if shape is None:
        return _without(plan, "there is no max_length, and the tokens of the rows are not counted here")
    why = why_not_simulated(spec, facts.model.architecture, shape)
    if why is not None:
        return _without(plan, why)
    try:
        simulation = _ask(simulation_task(spec, facts.model, plan, shape))
    except SftuiError as error:
        return _without(plan, f"{error.title}: {error.message}")
    known = [problem for problem in plan.problems if problem not in facts.plan(spec).problems]
    simulated = facts.plan(spec, simulation)
    return replace(simulated, problems=(*known, *simulated.problems))


def _ask(task: SimulationTask) -> Simulation:
    if (known := cached_simulation(task.key)) is not None:
        return known
    warm = WarmRunner.start()
    try:
        return Simulation.from_json(warm.ask(task.question(), timeout=_SECONDS))
    finally:
        warm.close()


def _without(plan: Plan, why: str) -> Plan:
    problem = Problem("memory", "warning", f"not simulated: {why}.", "The estimate stands.")
    return replace(plan, problems=(*plan.problems, problem))
