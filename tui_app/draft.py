"""The run that is being set up: what was typed, what is known about it, and what it would cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from core.data.data_problems import token_problems
from core.data.facts import DataFacts
from core.data.request import CheckRequest, check_request
from core.data.token_statistics import TokenStatistics
from core.devices.gpu import GpuReading, GpuSnapshot
from core.devices.host import HostSnapshot
from core.errors import SftuiError
from core.memory.corrected import corrected
from core.memory.fit import Fit, Known, find_fit
from core.memory.plan import ModelFacts, Plan, make_plan
from core.memory.room import Room
from core.memory.room import room as find_room
from core.memory.simulated import SimulationTask
from core.memory.simulation_plan import with_words
from core.spec.build import check_values, value_of, with_value
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec, options
from tui_app.messages import REMOVED
from tui_app.simulating import Simulated, task_of

Step = Literal["model", "data", "precision", "training", "review"]

_STEP_OF_GROUP: dict[str, Step] = {
    "model": "model",
    "data": "data",
    "precision": "precision",
    "adapter": "precision",
    "optimizer": "training",
    "schedule": "training",
    "run": "training",
}
# The device is chosen where its memory is shown.
_STEP_OF_FIELD: dict[str, Step] = {"sftui.device": "precision", "device": "precision", "memory": "precision"}
# Stand in for what is not chosen yet, so that the cost of all the rest can be shown.
_PLACEHOLDERS: dict[str, Any] = {"model_name_or_path": "model", "datasets": [{"path": "rows.jsonl"}]}


def step_of(name: str) -> Step:
    """The step on which an option, or the field of a problem, is set."""
    if name in _STEP_OF_FIELD:
        return _STEP_OF_FIELD[name]
    declared = options()
    for candidate in (name, f"sftui.{name}", name.partition("[")[0]):
        if candidate in declared:
            return _STEP_OF_GROUP[declared[candidate].group]
    return "training"


def model_path(values: Mapping[str, Any]) -> str:
    """The model's folder or id as typed; empty if there is none."""
    return str(values.get("model_name_or_path") or "").strip()


@dataclass(frozen=True)
class Draft:
    """Everything the set-up screens show; a new one for every change."""

    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What was set, under TRL's names; also what is not valid yet, so that nothing typed is lost."""
    model: ModelFacts | None = None
    model_problem: SftuiError | None = None
    data: DataFacts | None = None
    data_problem: SftuiError | None = None
    tokens: TokenStatistics | None = None
    """What its rows are in tokens, as far as they are counted."""
    spec: RunSpec | None = None
    """None while a value is missing or wrong."""
    planned: RunSpec | None = None
    """What the plan is for: values that are missing or wrong are replaced, as far as that is possible."""
    problems: tuple[Problem, ...] = ()
    """Of the values, the files and the plan, in the order of the steps."""
    plan: Plan | None = None
    gpus: GpuReading | None = None
    host: HostSnapshot | None = None
    simulated: Simulated | None = None
    """What is known from simulating it, or an older one of its kind."""
    left_out: tuple[str, ...] = ()
    """Options that the plan takes at their default because the typed value is not valid."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Draft":
        """A draft that starts from these values."""
        return cls(values=MappingProxyType(dict(values)))._rebuilt()

    def changed(self, changes: Mapping[str, Any]) -> "Draft":
        """This draft with options set, or unset by REMOVED; facts of another model or other files are dropped."""
        values: dict[str, Any] = dict(self.values)
        for name, value in changes.items():
            values = _without(values, name) if value is REMOVED else with_value(values, name, value)
        draft = replace(self, values=MappingProxyType(values))
        if self.model_key != draft.model_key:
            draft = replace(draft, model=None, model_problem=None)
        if self.data_key != draft.data_key:
            draft = replace(draft, data=None, data_problem=None)
        return draft._rebuilt()

    def with_model(self, model: ModelFacts | None, problem: SftuiError | None = None) -> "Draft":
        """This draft with what was read of its model."""
        return replace(self, model=model, model_problem=problem)._rebuilt()

    def with_data(self, data: DataFacts | None, problem: SftuiError | None = None) -> "Draft":
        """This draft with what was read of its training files."""
        return replace(self, data=data, data_problem=problem)._rebuilt()

    def with_tokens(self, tokens: TokenStatistics | None) -> "Draft":
        """This draft with what its rows are in tokens."""
        draft = replace(self, tokens=tokens)
        # While rows are counted, figures come every second, and mostly they change nothing else.
        same = draft._token_problems() == self._token_problems() and draft._longest == self._longest
        return draft if same else draft._rebuilt()

    def with_simulated(self, simulated: Simulated | None) -> "Draft":
        """This draft with what a simulation told of it."""
        return replace(self, simulated=simulated)._rebuilt()

    @property
    def simulation_task(self) -> SimulationTask | None:
        """What there is to simulate for this draft; None while too little is known."""
        if self.planned is None or self.plan is None:
            return None
        return task_of(self.planned, self.model, self.plan, self.tokens)

    def with_devices(self, gpus: GpuReading, host: HostSnapshot) -> "Draft":
        """This draft planned for these devices."""
        return replace(self, gpus=gpus, host=host)._rebuilt()

    @property
    def model_key(self) -> tuple[str, str, str]:
        """What the facts of the model depend on: its name, its revision, and whether vision is loaded too."""
        load_as = str(value_of(self.values, "sftui.load_as"))
        return model_path(self.values), str(self.values.get("model_revision") or "main"), load_as

    @property
    def data_key(self) -> CheckRequest:
        """What the facts of the data depend on: sources and columns."""
        return check_request(self.values)

    @property
    def needs_model(self) -> bool:
        """Whether a model is named that nobody has read."""
        return bool(self.model_key[0]) and self.model is None and self.model_problem is None

    @property
    def needs_data(self) -> bool:
        """Whether files are named that nobody has read."""
        return bool(self.data_key.sources) and self.data is None and self.data_problem is None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop the run from starting."""
        return tuple(problem for problem in self.problems if problem.level == "error")

    def problems_of(self, step: Step) -> tuple[Problem, ...]:
        """The problems that are mended on one step."""
        return tuple(problem for problem in self.problems if step_of(problem.field) == step)

    def done(self, step: Step) -> bool:
        """Whether a step holds all that a run needs from it."""
        if step == "model":
            complete = self.model is not None
        elif step == "data":
            complete = self.data is not None
        elif step == "review":
            complete = self.spec is not None and not self.errors and self.plan is not None
        else:
            complete = self.model is not None and self.data is not None
            if step == "precision" and self.plan is not None:
                complete = complete and self.plan.verdict != "does_not_fit"
        return complete and not any(problem.level == "error" for problem in self.problems_of(step))

    @property
    def chosen_gpu(self) -> GpuSnapshot | None:
        """The GPU that the plan is for; None for the CPU."""
        uuid = self.plan.device.uuid if self.plan else None
        return next((gpu for gpu in (self.gpus.gpus if self.gpus else ()) if gpu.uuid == uuid), None)

    def spec_with(self, changes: Mapping[str, Any]) -> RunSpec | None:
        """What would be planned with these options set; None where they do not make a spec."""
        if not changes:
            return self.planned
        values: dict[str, Any] = dict(self.values)
        for name in self.left_out:
            values = _without(values, name)
        for name, value in changes.items():
            values = with_value(values, name, value)
        return check_values({**_PLACEHOLDERS, **values}).spec

    def plan_with(self, changes: Mapping[str, Any]) -> Plan | None:
        """The plan with these options set, from the same facts as every other one: what differs is theirs alone."""
        spec = self.spec_with(changes)
        return None if spec is None else self.plan_of(spec)

    def plan_of(self, spec: RunSpec) -> Plan | None:
        """The plan of another spec for the same model, data and devices; None while there is none."""
        plan = self._planned(spec)[0]
        return None if plan is None else self._corrected(plan)

    @cached_property
    def room(self) -> Room | None:
        """What would still fit; None where it is not known whether anything does."""
        plan, spec, model = self.plan, self.planned, self.model
        if plan is None or spec is None or model is None or self.plan_of_valid(spec).verdict == "unknown":
            return None
        # The same device and facts make a plan of every spec that is valid, and these are.
        return find_room(spec, self.plan_of_valid, self._plan_of_full_rows, model.architecture.context_length)

    def find_fit(self) -> Fit:
        """The way to a spec that fits, or to a faster one. Raises SftuiError where that cannot be told."""
        if self.spec is None or self.model is None or self.plan is None:
            raise SftuiError(
                "Not known yet", "What the run needs is not known.", "Choose a model and mend what is wrong."
            )
        form = self.data.form if self.data is not None else "unknown"
        known = Known(self.model.architecture, self.chosen_gpu, form, self.tokens)
        return find_fit(self.spec, self.plan_of_valid, known)

    def plan_of_valid(self, spec: RunSpec) -> Plan:
        """The plan of a spec that differs from this one in what is no reason to refuse it."""
        return self._valid(self._planned(spec))

    def _plan_of_full_rows(self, spec: RunSpec) -> Plan:
        return self._valid(self._planned(spec, counted=False))

    def _valid(self, planned: tuple[Plan | None, tuple[Problem, ...]]) -> Plan:
        plan, refused = planned
        if plan is None:
            said = refused[0].message if refused else "There is no plan for it."
            raise SftuiError("No plan", said)
        return self._corrected(plan)

    @cached_property
    def _estimated(self) -> Plan | None:
        return self._planned(self.planned)[0]

    def _corrected(self, plan: Plan) -> Plan:
        # What differs between two plans is to come from what was changed, not from a simulation of one of them.
        if self.plan is None or self._estimated is None or self.simulated is None:
            return plan
        return corrected(plan, self._estimated, self.plan)

    def _rebuilt(self) -> "Draft":
        checked = check_values(self.values)
        # Contradictions are only found in a spec that has everything: they are not to wait for model and data.
        others = check_values({**_PLACEHOLDERS, **self.values}).problems if checked.spec is None else ()
        wrong = [problem.field for problem in checked.problems if problem.level == "error"]
        spec = None if wrong else checked.spec
        # Values that only contradict each other still make a spec, whose cost can be shown.
        left_out = () if checked.spec else tuple(dict.fromkeys(name.partition("[")[0] for name in wrong))
        planned = checked.spec or _spec_without(self.values, left_out)
        plan, refused = self._planned(planned)
        if plan is not None and planned is not None:
            plan = self._with_simulation(planned, plan)
        if wrong:
            # What is wrong has been said; the plan's refusal would only say it again.
            refused = ()
        # An empty field is no mistake of the plan's: only what was typed wrongly is worth a word there.
        typed = tuple(name for name in left_out if name not in _PLACEHOLDERS)
        problems = _in_order(
            (
                *checked.problems,
                *others,
                *self._problems_of_files(),
                *(plan.problems if plan else refused),
                *self._token_problems(planned),
            )
        )
        return replace(self, spec=spec, planned=planned, problems=problems, plan=plan, left_out=typed)

    @property
    def _lengths(self) -> TokenStatistics | None:
        """What is known of all rows' lengths; None while they are counted."""
        return self.tokens if self.tokens is not None and self.tokens.counted == self.tokens.rows else None

    @property
    def _longest(self) -> int | None:
        return self._lengths.longest_length if self._lengths is not None else None

    def _planned(self, spec: RunSpec | None, *, counted: bool = True) -> tuple[Plan | None, tuple[Problem, ...]]:
        if spec is None or self.gpus is None or self.host is None:
            return None, ()
        try:
            lengths = self._lengths if counted else None
            return make_plan(spec, self.model, self.gpus, self.host, self.data, lengths=lengths), ()
        except SftuiError as error:
            return None, (Problem("memory", "error", f"{error.title}: {error.message}", error.hint),)

    def _with_simulation(self, spec: RunSpec, plan: Plan) -> Plan:
        known, task = self.simulated, task_of(spec, self.model, plan, self.tokens) if self.simulated else None
        if known is None or task is None or not task.asks_the_same(known.task):
            return plan
        if known.simulation is None:
            return replace(plan, memory=with_words(plan.memory, known.words)) if plan.memory else plan
        assert self.gpus is not None
        assert self.host is not None
        return make_plan(
            spec, self.model, self.gpus, self.host, self.data, lengths=self._lengths, simulation=known.simulation
        )

    def _token_problems(self, spec: RunSpec | None = None) -> tuple[Problem, ...]:
        spec = spec or self.planned
        return () if spec is None else tuple(token_problems(spec, self.tokens))

    def _problems_of_files(self) -> tuple[Problem, ...]:
        pairs = (("model_name_or_path", self.model_problem), ("datasets", self.data_problem))
        return tuple(
            Problem(name, "error", f"{error.title}: {error.message}", error.hint) for name, error in pairs if error
        )


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = dict(values)
    head, _, rest = name.partition(".")
    if not rest:
        kept.pop(head, None)
        return kept
    inner = {key: value for key, value in dict(kept.get(head) or {}).items() if key != rest}
    if inner:
        kept[head] = inner
    else:
        kept.pop(head, None)
    return kept


def _spec_without(values: Mapping[str, Any], names: tuple[str, ...]) -> RunSpec | None:
    kept = dict(values)
    for name in names:
        kept = _without(kept, name)
    kept = {**_PLACEHOLDERS, **kept}
    return check_values(kept).spec


def _in_order(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    order: tuple[Step, ...] = ("model", "data", "precision", "training", "review")
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: order.index(step_of(problem.field))))
