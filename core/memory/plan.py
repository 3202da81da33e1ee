"""What a spec means on this machine: device, choices, memory by part, verdict, problems. Arithmetic, no torch."""

import functools
import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.choice import Choice
from core.data.data_problems import HELD_OUT_FIELD, data_problems, held_out_problems, template_problems
from core.data.facts import DataFacts
from core.data.packing import packing_problems
from core.data.request import held_out_request, training_request
from core.data.token_statistics import TokenStatistics
from core.devices.allocator import segments_grow
from core.devices.choose import ChosenDevice, choose_device
from core.devices.gpu import GpuMonitor, GpuReading
from core.devices.host import HostSnapshot, read_host
from core.errors import SftuiError
from core.memory.batch_shape import batch_shape
from core.memory.calibration import calibration_for, versions_here
from core.memory.estimate import MemoryEstimate, Verdict, verdict
from core.memory.layer_traces import LayerTraces, cached_traces
from core.memory.simulated import Simulation
from core.memory.simulation_plan import simulation_problems, with_simulation
from core.memory.spec_estimate import adapted_by, adapter_choices, as_started, estimate_of
from core.memory.step_parts import held_in_step, with_allocator, with_step
from core.memory.stored_weights import stored_weights
from core.memory.target_problems import target_problems
from core.memory.weight_problems import weight_problems
from core.memory.weights import ModelWeights, weights_in_files, weights_of
from core.models.adapter_files import start_of
from core.models.architecture import Architecture, Preference, detect
from core.models.attention import attention_problem, choose_attention
from core.models.checkpoint_files import TensorInfo, read_tensors, resolve_model_folder
from core.models.inventory_file import Inventory, cached_inventory
from core.models.layers import never_quantized
from core.models.precision import choose_dtype
from core.models.prequantized import only_bitsandbytes, stored_problems
from core.models.tokenizer_files import check_tokenizer_files
from core.paths import runs_home
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING
from core.text import human_bytes, human_count, safe

PARTS = (
    "base_weights",
    "quantization_constants",
    "adapter_weights",
    "gradients",
    "optimizer_state",
    "activations",
    "logits",
    "allocator_and_context",
)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model."""

    folder: Path
    architecture: Architecture
    tensors: tuple[TensorInfo, ...]
    inventory: Inventory | None = None
    """Its exact modules; None while nobody has built them."""
    unbuilt: SftuiError | None = None
    """Why its modules cannot be built."""
    untokenized: SftuiError | None = None
    """Why its tokenizer cannot be loaded, as far as its files tell."""
    traces: LayerTraces | None = None
    """What its layers were seen to hold in a step; None while nobody has looked."""

    def wants_traces(self, *, on_gpu: bool) -> bool:
        """Whether its layers may be gone through to plan more exactly for this kind of device."""
        tried = self.traces is not None and self.traces.tried_on(on_gpu=on_gpu)
        return self.inventory is not None and only_bitsandbytes(self.architecture.stored_quantization) and not tried

    @property
    def wants_inventory(self) -> bool:
        """Whether planning would be more exact with an inventory that may be built."""
        return self.inventory is None and self.unbuilt is None

    @functools.cached_property
    def weights(self) -> ModelWeights:
        """The weights to plan with."""
        known = self.architecture
        if known.stored_quantization is not None:
            return stored_weights(
                self.tensors,
                known.stored_quantization,
                tied_embeddings=known.tied_embeddings,
                vision=known.vision,
                hidden_size=known.hidden_size,
                inventory=self.inventory,
            )
        if self.inventory is not None:
            return weights_of(self.inventory)
        return weights_in_files(self.tensors, tied_embeddings=known.tied_embeddings, vision=known.vision)


@dataclass(frozen=True, slots=True)
class PlanDevice:
    """Where the run would happen. `free_bytes` is what nobody holds now."""

    name: str
    kind: Literal["gpu", "cpu"]
    total_bytes: int | None
    free_bytes: int | None
    index: int | None = None
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A spec thought through."""

    memory: MemoryEstimate | None
    """None while the model is not known."""
    device: PlanDevice
    verdict: Verdict
    verdict_reason: str
    choices: tuple[Choice, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """The form of `sftui plan --json`; a part that is not estimated yet is null."""
        parts: dict[str, int | None] = dict.fromkeys(PARTS)
        if self.memory:
            parts.update((part.name, part.bytes) for part in self.memory.parts)
        return {
            "memory": {
                "total_bytes": self.memory.known_bytes if self.memory else None,
                "total_is_complete": self.memory.total_is_complete if self.memory else False,
                "parts": parts,
                "basis": {part.name: part.basis for part in self.memory.parts} if self.memory else {},
                "correction_bytes": self.memory.correction_bytes if self.memory else 0,
                "level": {part.name: part.level for part in self.memory.parts} if self.memory else {},
            },
            "device": {
                "name": self.device.name,
                "total_bytes": self.device.total_bytes,
                "free_bytes": self.device.free_bytes,
            },
            "verdict": self.verdict,
            "verdict_reason": self.verdict_reason,
            "choices": {choice.name: {"value": choice.value, "reason": choice.reason} for choice in self.choices},
            "problems": [
                {name: value for name, value in asdict(problem).items() if name != "where"} for problem in self.problems
            ],
        }


def read_model(path_or_id: str, revision: str = "main", prefer: Preference | None = None) -> ModelFacts:
    """Look at a model's files. Raises SftuiError if there is no such model here, or not one that sftui can train."""
    folder = resolve_model_folder(path_or_id, revision)
    architecture = detect(folder, prefer)
    inventory = cached_inventory(folder, architecture.auto_class)
    untokenized = None
    try:
        check_tokenizer_files(folder)
    except SftuiError as error:
        untokenized = error
    traces = cached_traces(folder, architecture.auto_class) if inventory is not None else None
    return ModelFacts(folder, architecture, read_tensors(folder), inventory, untokenized=untokenized, traces=traces)


@dataclass(frozen=True)
class PlanFacts:
    """What was read on this machine to plan with."""

    model: ModelFacts | None
    gpus: GpuReading
    host: HostSnapshot
    data: DataFacts | None
    problems: tuple[Problem, ...]
    """Of what could not be read."""

    def plan(self, spec: RunSpec, simulation: Simulation | None = None) -> Plan:
        """The plan of a spec for this model and data."""
        plan = make_plan(spec, self.model, self.gpus, self.host, self.data, simulation=simulation)
        return replace(plan, problems=(*self.problems, *plan.problems))


def read_facts(spec: RunSpec) -> PlanFacts:
    """Read what a spec names, and this machine. What cannot be read becomes a problem."""
    from core.data.check_process import check_apart

    monitor = GpuMonitor()
    gpus = monitor.read()
    monitor.close()
    problems: list[Problem] = []
    model: ModelFacts | None = None
    data: DataFacts | None = None
    try:
        model = read_model(spec.model_name_or_path, spec.model_revision, spec.sftui.preference)
    except SftuiError as error:
        problems.append(_problem("model_name_or_path", error))
    try:
        data = check_apart(training_request(spec))
    except SftuiError as error:
        problems.append(_problem("datasets", error))
    problems += _held_out_problems(spec, data)
    return PlanFacts(model, gpus, read_host(runs_home()), data, tuple(problems))


def plan_here(spec: RunSpec) -> Plan:
    """The plan on this machine, with its files read. A model that cannot be read becomes a problem of the plan."""
    return read_facts(spec).plan(spec)


def make_plan(
    spec: RunSpec,
    model: ModelFacts | None,
    gpus: GpuReading,
    host: HostSnapshot,
    data: DataFacts | None = None,
    *,
    lengths: TokenStatistics | None = None,
    simulation: Simulation | None = None,
) -> Plan:
    """The plan of a spec over what is known; fast enough for every key. A simulation is of this very spec.

    `lengths` are those of all rows; without them rows are taken to be as long as max_length. Pure but for
    CUDA_VISIBLE_DEVICES, what is set for PyTorch's allocator, the files of an adapter to start from, and the record of
    earlier runs.
    """
    problems: list[Problem] = []
    try:
        chosen = choose_device(spec.sftui.device, gpus, os.environ)
    except SftuiError as error:
        problems.append(_problem("sftui.device", error))
        chosen = ChosenDevice(None, Choice("device", "cpu", "no such device"))
    device = _plan_device(chosen, host)
    architecture = model.architecture if model else None
    dtype = choose_dtype(spec, architecture.stored_dtype if architecture else None, chosen.gpu)
    choices = [chosen.choice, dtype, choose_attention(spec, chosen.gpu, architecture)]
    unfit = attention_problem(spec, chosen.gpu, architecture, dtype.value)
    problems += [unfit] if unfit else []
    if chosen.gpu is None and spec.extra_arguments.get(OFFLOADING):
        message = "sends what a GPU holds to the host, and this run has no GPU."
        problems.append(Problem(OFFLOADING, "error", message, "Leave it out."))
    problems += data_problems(spec, data)
    form = data.form if data else "unknown"
    attention = choices[-1].value
    if command := spec.sftui.on_finish:
        line = command if isinstance(command, str) else shlex.join(command)
        choices.append(Choice("sftui.on_finish", line, "runs at the end, as you and without a shell"))
    problems += packing_problems(spec, architecture, attention, on_gpu=chosen.gpu is not None, form=form)
    if model is None:
        return Plan(None, device, "unknown", "no model is chosen yet", tuple(choices), tuple(problems))
    choices.insert(0, Choice("auto_class", model.architecture.auto_class, model.architecture.reason))
    problems += _model_problems(spec, model)
    problems += template_problems(spec, data, has_template=model.architecture.chat_template)
    start = None
    if spec.use_peft and spec.sftui.start_from_adapter is not None:
        try:
            start = start_of(spec.sftui.start_from_adapter)
        except SftuiError as error:
            problems.append(_problem("sftui.start_from_adapter", error))
    kept = never_quantized(model.architecture.model_type)
    if kept and spec.quantization != "none":
        reason = f"{model.architecture.model_type} reads their weights itself"
        choices.append(Choice("sftui.skip_modules", ", ".join((*kept, *spec.sftui.skip_modules)), reason))
    problems += weight_problems(spec, model.weights, start)
    if spec.use_peft and spec.sftui.start_from_adapter is None:
        problems += target_problems(spec, model.weights)
    choices += adapter_choices(spec, model.weights, start)
    memory = estimate_of(spec, model.weights, dtype.value, start)
    if memory is None:
        reason = "weights that are stored quantized cannot all be trained"
        return Plan(None, device, "unknown", reason, tuple(choices), tuple(problems))
    on_gpu = chosen.gpu is not None
    shape = batch_shape(spec, lengths)
    held = held_in_step(
        memory, as_started(spec, start), model.weights, model.architecture, adapted_by(spec, model.weights, start),
        dtype=dtype.value, attention=attention, shape=shape, on_gpu=on_gpu, traces=model.traces,
    )  # fmt: skip
    memory = with_step(memory, spec, shape, held)
    if simulation is not None:
        problems += simulation_problems(memory, simulation)
        memory = with_simulation(memory, simulation)
    known = calibration_for(chosen.gpu.name, gpus.driver_version, versions_here()) if chosen.gpu is not None else None
    memory = with_allocator(
        memory, held, on_gpu=on_gpu, segments_grow=segments_grow(os.environ), simulation=simulation, calibration=known
    )
    word, reason = verdict(memory, device.free_bytes)
    return Plan(memory, device, word, reason, tuple(choices), tuple(problems))


def describe_plan(plan: Plan) -> str:
    """The plan in lines for a person."""
    free = human_bytes(plan.device.free_bytes)
    lines = [f"device   {safe(plan.device.name)}: {free} free of {human_bytes(plan.device.total_bytes)}"]
    if plan.memory:
        for part in plan.memory.parts:
            size = human_bytes(part.bytes) if part.bytes is not None else "?"
            lines.append(f"  {part.name.replace('_', ' '):24} {size:>10}  {part.basis}")
        trainable = human_count(plan.memory.trainable_parameters)
        known = human_bytes(plan.memory.known_bytes)
        total = "total" if plan.memory.total_is_complete else "known so far"
        lines.append(f"  {total:24} {known:>10}  {trainable} parameters are trained")
    lines.append(f"verdict  {plan.verdict.replace('_', ' ')}: {plan.verdict_reason}")
    lines += [f"chosen   {choice.name} = {safe(choice.value)} ({safe(choice.reason)})" for choice in plan.choices]
    lines += [f"{problem.level}  {safe(str(problem))}" for problem in plan.problems]
    return "\n".join(lines)


def _plan_device(chosen: ChosenDevice, host: HostSnapshot) -> PlanDevice:
    gpu = chosen.gpu
    if gpu is None:
        return PlanDevice("CPU: host memory", "cpu", host.memory_total_bytes, host.memory_available_bytes)
    return PlanDevice(gpu.name, "gpu", gpu.total_bytes, gpu.free_bytes, gpu.index, gpu.uuid)


def _held_out_problems(spec: RunSpec, data: DataFacts | None) -> list[Problem]:
    request = held_out_request(spec)
    if request is None:
        return []
    # What only plans what was read elsewhere does without the readers.
    from core.data.check_process import check_apart

    try:
        return held_out_problems(check_apart(request), data.form if data else None, spec.sftui.bad_rows)
    except SftuiError as error:
        return [_problem(HELD_OUT_FIELD, error)]


def _model_problems(spec: RunSpec, model: ModelFacts) -> list[Problem]:
    found = [Problem("model_name_or_path", "warning", text, "") for text in model.architecture.problems]
    if model.unbuilt is not None:
        message = f"{model.unbuilt.title}: {model.unbuilt.message}"
        found.append(Problem("model_name_or_path", "warning", message, model.unbuilt.hint))
    if model.untokenized is not None:
        found.append(_problem("model_name_or_path", model.untokenized))
    if (
        spec.quantization != "none"
        and model.weights.exact
        and not model.weights.stored
        and not any(g.weight.quantizable for g in model.weights.groups)
    ):
        field = "load_in_4bit" if spec.load_in_4bit else "load_in_8bit"
        message = "saves nothing: bitsandbytes quantizes none of this model's layers."
        found.append(Problem(field, "warning", message, "Turn it off."))
    found += stored_problems(spec, model.architecture)
    return found


def _problem(field: str, error: SftuiError) -> Problem:
    return Problem(field, "error", f"{error.title}: {error.message}", error.hint)
