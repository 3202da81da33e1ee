"""The parts of an estimate that a step adds to weights and training state: activations, loss head, allocator."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from core.memory.activations import Step, StepBytes, sizes_of, step_bytes, step_for
from core.memory.adapters import Adapted, cast_bytes
from core.memory.batch_shape import BatchShape
from core.memory.calibration import Calibration
from core.memory.estimate import MemoryEstimate, MemoryPart
from core.memory.layer_traces import LayerTraces
from core.memory.simulated import Simulation
from core.memory.traced_step import traced_step
from core.memory.weights import ModelWeights
from core.models.architecture import Architecture
from core.models.prequantized import only_bitsandbytes
from core.spec.run_spec import RunSpec
from core.text import human_bytes

# A CUDA context with the kernels of PyTorch, cuBLAS and bitsandbytes: 300 to 600 MB on most GPUs.
CONTEXT_BYTES = 500_000_000
# Holes that a simulated allocator left with models of 1 to 8 billion weights (tests/bench/estimates.md): with segments
# that grow 70 to 440 MB but for one of 730, however much comes and goes; with such of fixed sizes 1 to 27 % of it.
_HOLES_BYTES = 100_000_000
_HOLES, _HOLES_AT_MOST = 0.03, 300_000_000
_FIXED_HOLES = 0.12
# What the libraries take in a runner's process before it has loaded anything, measured on Linux.
_LIBRARIES_BYTES = 600_000_000
# Loss options by which TRL computes all logits.
_WITH_ALL_LOGITS = ("label_smoothing_factor", "compute_loss_func", "compute_metrics")


@dataclass(frozen=True, slots=True)
class HeldInStep:
    """What a step holds, and how that is known."""

    bytes: StepBytes
    step: Step
    traced: bool
    """By what the model's layers were seen to hold; otherwise by formulas over their names."""
    head_elements: int
    """Of the output head's weight."""


def held_in_step(
    memory: MemoryEstimate,
    spec: RunSpec,
    weights: ModelWeights,
    architecture: Architecture,
    adapted: Collection[Adapted] | None,
    *,
    dtype: str,
    attention: str,
    shape: BatchShape | None,
    on_gpu: bool,
    traces: LayerTraces | None = None,
) -> HeldInStep | None:
    """What a step holds beside the parts that `memory` has; None where its rows or the model's layers are not known."""
    sizes = sizes_of(architecture, weights)
    if shape is None or sizes is None or (adapted is None and spec.use_peft):
        return None
    gradients = next((part.bytes or 0 for part in memory.parts if part.name == "gradients"), 0)
    stored = weights.stored
    quantization = spec.quantization
    if stored is not None:
        quantization = "int8" if "8-bit" in stored else "nf4"
    cast = cast_bytes(weights, dtype, quantized=stored is None and quantization != "none")
    step = replace(
        step_for(spec, dtype, attention, shape, on_gpu=on_gpu, cast=cast),
        gradients=gradients,
        accumulates=spec.gradient_accumulation_steps > 1,
        quantized=quantization != "none",
    )
    if any(one.by_weight for one in adapted or ()):
        # Nothing is dropped out beside experts.
        step = replace(step, dropout=0.0)
    if any(spec.extra_arguments.get(name) for name in _WITH_ALL_LOGITS):
        step = replace(step, all_logits=True)
    held = None
    if traces is not None and only_bitsandbytes(stored):
        held = traced_step(traces, weights, sizes, step, quantization, adapted or ())
    found = held or step_bytes(weights, sizes, step, adapted or ())
    return HeldInStep(found, step, held is not None, sizes.vocabulary * sizes.hidden)


def with_step(
    memory: MemoryEstimate, spec: RunSpec, shape: BatchShape | None, held: HeldInStep | None
) -> MemoryEstimate:
    """The estimate with activations and loss head; as it was where something that they depend on is not known."""
    if held is None:
        missing = "no max_length is set, and the rows are not counted" if shape is None else "its layers are not known"
        return _with(memory, {name: MemoryPart(name, None, f"not estimated: {missing}", "unknown")
                              for name in ("activations", "logits")})  # fmt: skip
    how = "as its layers were seen to hold it" if held.traced else "by formulas"
    words = {
        "activations": f"{_words(spec, held.step.shape, held.step.attention)}; {how}",
        "logits": _head_words(held.bytes, held.step),
    }
    sizes = {"activations": held.bytes.activations, "logits": held.bytes.logits}
    return _with(memory, {name: MemoryPart(name, sizes[name], words[name], "estimated") for name in sizes})


def with_allocator(
    memory: MemoryEstimate,
    held: HeldInStep | None,
    *,
    on_gpu: bool,
    segments_grow: bool,
    simulation: Simulation | None,
    calibration: Calibration | None,
) -> MemoryEstimate:
    """The estimate with what the process and its allocator take; the last part to be known."""
    if not on_gpu:
        words = "Python and the libraries in the runner's process"
        part = MemoryPart("allocator_and_context", _LIBRARIES_BYTES, words, "estimated")
        return _with(memory, {part.name: part})
    holes = simulation.allocator if simulation is not None else _holes(memory, held, segments_grow=segments_grow)
    how = "simulated" if simulation is not None else f"about {human_bytes(holes)}"
    words = f"CUDA's context, about 500 MB, and holes: {how}"
    size = CONTEXT_BYTES + holes
    if calibration is not None:
        size = max(0, size + calibration.extra_bytes)
        runs = "1 run" if calibration.runs == 1 else f"{calibration.runs} runs"
        words += f"; {runs} on this GPU: mean error {calibration.mean_error:.1%}"
    part = MemoryPart("allocator_and_context", size, words, "estimated" if calibration is None else "measured")
    correction = size - CONTEXT_BYTES - holes
    return replace(_with(memory, {part.name: part}), correction_bytes=correction)


def _holes(memory: MemoryEstimate, held: HeldInStep | None, *, segments_grow: bool) -> int:
    """What the allocator reserves beyond what is allocated."""
    moving = sum(part.bytes or 0 for part in memory.parts if part.name in ("activations", "logits"))
    share = min(_HOLES * moving, _HOLES_AT_MOST) if segments_grow else _FIXED_HOLES * moving
    left = 0
    if held is not None and held.step.trains_all and not held.step.accumulates and not held.step.all_logits:
        # The head's gradient was summed up in float32 here, where now too little is to be put.
        left = max(0, 4 * held.head_elements - moving)
    return round(_HOLES_BYTES + share + left)


def _with(memory: MemoryEstimate, parts: dict[str, MemoryPart]) -> MemoryEstimate:
    return replace(memory, parts=tuple(parts.get(part.name, part) for part in memory.parts))


def _words(spec: RunSpec, shape: BatchShape, attention: str) -> str:
    rows = f"{shape.rows} × {shape.tokens:,} tokens{', packed' if shape.packed else ''}"
    kept = "one hidden state a layer is kept" if spec.activation_checkpointing else "all layers are kept"
    return f"{rows}, {attention}; {kept}"


def _head_words(held: StepBytes, step: Step) -> str:
    if not held.logits:
        return "less than what the layers hold at the peak"
    return "all logits at once, as the loss asks for them" if step.all_logits else "TRL's fused head, in tiles"
