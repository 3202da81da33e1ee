"""What training holds in memory, by arithmetic over a model's weights: base weights and training state.

Exact to the byte over an inventory; over a checkpoint's files, for the layers that core.models.layers recognises.
Activations, the loss head and the allocator are not estimated yet, and are None rather than zero.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from core.errors import SftuiError
from core.memory.weights import ModelWeights, Targets, Weight, WeightGroup, is_called
from core.models.precision import DTYPE_BYTES
from core.text import human_bytes

Quantization = Literal["none", "nf4", "fp4", "int8"]
Method = Literal["lora", "full"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]

# bitsandbytes: one float32 absmax for each block of weights; double quantization stores it in one byte, with a
# float32 for each block of absmax values, a float32 offset and a code table of 256 float32. Each layer has its own
# code table of 16 float32.
_BLOCK = 64
_NESTED_BLOCK = 256
_CODE_BYTES = 16 * 4
_NESTED_CODE_BYTES = 256 * 4
_OFFSET_BYTES = 4

# bitsandbytes' optimizers: how many moments they keep. In the 8-bit ones, small tensors and (set by transformers'
# Trainer) embeddings keep float32 moments; the code table of a moment is shared by all tensors.
_STATES_32BIT = {"paged_adamw_32bit": 2, "lion_32bit": 1, "paged_lion_32bit": 1}
_STATES_8BIT = {"adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "paged_lion_8bit": 1}
_MIN_8BIT_ELEMENTS = 4096
_STATE_BLOCK = 256
_STATE_CODE_BYTES = 256 * 4

_TIGHT_SHARE = 0.92
_NOT_YET = "not estimated yet"
_EXPERTS = "peft also adapts the experts of this mixture; their size is known once the model is built"


@dataclass(frozen=True)
class MemoryPart:
    """One part of what training holds."""

    name: str
    bytes: int | None
    """None while it is unknown."""
    basis: str
    """Where the figure comes from, in words."""


@dataclass(frozen=True)
class MemoryEstimate:
    """All parts, of which some may be unknown."""

    parts: tuple[MemoryPart, ...]
    trainable_parameters: int | None
    """None where peft adapts the experts of a mixture, which are known only once the model is built."""
    total_parameters: int
    """Of the base model, tied weights once; without adapters."""
    quantized_parameters: int
    embeddings_bytes: int
    """Embedding tables and output head, which stay in the compute dtype: a share of base_weights."""
    exact: bool = False
    """From the model's own modules; otherwise from the names and shapes in its files."""

    @property
    def known_bytes(self) -> int:
        """Sum of the parts that are known."""
        return sum(part.bytes for part in self.parts if part.bytes is not None)

    @property
    def total_is_complete(self) -> bool:
        """Whether no part is missing, so that known_bytes is the total."""
        return all(part.bytes is not None for part in self.parts)


def estimate(
    weights: ModelWeights,
    *,
    quantization: Quantization,
    double_quant: bool,
    dtype: str,
    method: Method,
    lora_r: int,
    lora_targets: Targets,
    optimizer: str,
    lora_target_parameters: tuple[str, ...] | None = None,
    fused_experts: bool = True,
    dora: bool = False,
    train_vision: bool = False,
) -> MemoryEstimate:
    """Return what training a model holds in memory.

    `dtype` is what the weights are loaded in: "bfloat16". Without `fused_experts`, "all-linear" leaves out the
    experts of a mixture; without `train_vision` the vision tower and the projector stay as they are. `optimizer` is a
    name of transformers' `optim` argument. Raises SftuiError for full fine-tuning of a quantized model.
    """
    if method == "full" and quantization != "none":
        raise SftuiError(
            "Quantized weights cannot be trained",
            f"Full fine-tuning changes every weight, and {quantization} weights are fixed.",
            "Train an adapter, or switch quantization off.",
        )
    base = constants = total = layers = quantized = tables = 0
    for group in weights.groups:
        weight, count = group.weight, len(group.names)
        total += count * weight.elements if weight.is_parameter else 0
        if weight.quantizable and quantization != "none":
            layers += count
            quantized += count * weight.elements
            base += count * _quantized_bytes(weight, quantization)
            constants += count * _constant_bytes(weight, quantization, double_quant)
        else:
            held = count * weight.elements * weight.element_bytes(dtype)
            base += held
            tables += held if weight.is_embedding or weight.is_head else 0

    parts_trained = ("text", "vision", "projector") if train_vision else ("text",)
    if method == "full":
        trained: list[_Trained] | None = [
            _Trained(len(g.names), g.weight.elements, g.weight.element_bytes(dtype), g.weight.is_embedding)
            for g in weights.groups
            if g.weight.is_parameter and g.weight.part in parts_trained
        ]
    else:
        # TRL casts adapters to bfloat16 on a quantized base; float16's scaler needs float32 again.
        adapter_bytes = 2 if quantization != "none" and dtype != "float16" else 4
        groups = [group for group in weights.groups if group.weight.part in parts_trained]
        chosen = _targeted(groups, lora_targets, lora_target_parameters, fused_experts=fused_experts)
        trained = None if chosen is None else _adapter(chosen, lora_r, adapter_bytes, dora=dora)
    bits = DTYPE_BYTES[dtype] * 8
    basis = f"{layers} linear layers in {quantization}, the rest in {bits} bit" if layers else f"all in {bits} bit"
    parts = (
        MemoryPart("base_weights", base, f"{basis}; {_source(weights)}"),
        MemoryPart("quantization_constants", constants, _constants_basis(quantization, double_quant)),
        *_training_parts(trained, method, f"rank {lora_r}", optimizer),
        MemoryPart("activations", None, _NOT_YET),
        MemoryPart("logits", None, _NOT_YET),
        MemoryPart("allocator_and_context", None, _NOT_YET),
    )
    return MemoryEstimate(
        parts=parts,
        trainable_parameters=None if trained is None else sum(one.count * one.elements for one in trained),
        total_parameters=total,
        quantized_parameters=quantized,
        embeddings_bytes=tables,
        exact=weights.exact,
    )


def _source(weights: ModelWeights) -> str:
    return "exact, from the model's modules" if weights.exact else "from the names and shapes in its files"


def verdict(estimate: MemoryEstimate, free_bytes: int | None) -> tuple[Verdict, str]:
    """Return whether training fits into `free_bytes` of device memory, and why, in words."""
    known = human_bytes(estimate.known_bytes)
    if free_bytes is None:
        return "unknown", f"{known} are needed at least; the free memory of the device is not known"
    free = human_bytes(free_bytes)
    if estimate.known_bytes > free_bytes:
        return "does_not_fit", f"weights and training state alone take {known}, and {free} are free"
    missing = [part.name.replace("_", " ") for part in estimate.parts if part.bytes is None]
    if missing:
        return "unknown", f"{', '.join(missing)} are not counted yet; the rest takes {known} of {free}"
    if estimate.known_bytes > free_bytes * _TIGHT_SHARE:
        return "tight", f"{known} of {free}: little is left for fragmentation"
    return "fits", f"{known} of {free}"


def _quantized_bytes(weight: Weight, quantization: Quantization) -> int:
    return weight.elements if quantization == "int8" else _blocks(weight.elements, 2)


def _constant_bytes(weight: Weight, quantization: Quantization, double_quant: bool) -> int:
    if quantization == "int8":
        # One float32 scale for each output.
        return weight.outputs * 4
    scales = _blocks(weight.elements, _BLOCK)
    if not double_quant:
        return scales * 4 + _CODE_BYTES
    nested = _blocks(scales, _NESTED_BLOCK) * 4 + _OFFSET_BYTES + _NESTED_CODE_BYTES
    return scales + nested + _CODE_BYTES


def _constants_basis(quantization: Quantization, double_quant: bool) -> str:
    if quantization == "none":
        return "not quantized"
    if quantization == "int8":
        return "one float32 for each output of a layer"
    return f"one {'byte' if double_quant else 'float32'} for each {_BLOCK} weights, and tables for each layer"


@dataclass(frozen=True, slots=True)
class _Trained:
    """Trained tensors of one size."""

    count: int
    elements: int
    """Of one tensor."""
    element_bytes: int
    is_embedding: bool = False


def _training_parts(
    trained: list[_Trained] | None, method: Method, rank: str, optimizer: str
) -> tuple[MemoryPart, MemoryPart, MemoryPart]:
    names = ("adapter_weights", "gradients", "optimizer_state")
    if trained is None:
        adapter, gradients, state = (MemoryPart(name, None, _EXPERTS) for name in names)
        return adapter, gradients, state
    held = sum(one.count * one.elements * one.element_bytes for one in trained)
    in_float32 = all(one.element_bytes == 4 for one in trained)
    adapter = MemoryPart(names[0], held, f"{rank}, {'float32' if in_float32 else 'bfloat16'}")
    if method == "full":
        adapter = MemoryPart(names[0], 0, "no adapter: all weights are trained")
    gradients = MemoryPart(names[1], held, "one for each trained weight, in its dtype")
    return adapter, gradients, MemoryPart(names[2], *_optimizer_state(optimizer, trained))


def _targeted(
    groups: list[WeightGroup], targets: Targets, parameters: tuple[str, ...] | None, *, fused_experts: bool
) -> list[tuple[int, tuple[int, int]]] | None:
    """Return (how many, weights of A and B at rank 1) of what is adapted; None when that is not known."""
    found: dict[int, tuple[tuple[int, int], Collection[str]]] = {}
    if targets == "all-linear":
        if any(group.weight.adapters_unknown for group in groups):
            return None
        for index, group in enumerate(groups):
            weight = group.weight
            left_out = weight.is_fused_experts and (parameters is not None or not fused_experts)
            if weight.all_linear is not None and not left_out:
                found[index] = weight.all_linear, group.names
    for target in () if targets == "all-linear" else targets:
        called = [(index, group, names) for index, group in enumerate(groups) if (names := group.named_by(target))]
        if any(group.weight.adapters_unknown for _, group, _ in called):
            return None
        # What all-linear leaves alone is adapted when a name can mean nothing else.
        usual = [one for one in called if one[1].weight.all_linear is not None]
        for index, group, names in usual or called:
            if group.weight.named is not None:
                before = found[index][1] if index in found else ()
                every = len(names) == len(group.names) or not before
                found[index] = group.weight.named, names if every else {*before, *names}
    for target in parameters or ():
        for index, group in enumerate(groups):
            names = tuple(name for name in group.names if is_called(name, target))
            shape = group.weight.shape
            if names and len(shape) in (2, 3):
                # Each fused expert gets a rank of its own.
                experts = shape[0] if len(shape) == 3 else 1
                found[index] = (experts * shape[-1], experts * shape[-2]), names
    return [(len(names), per_rank) for per_rank, names in found.values()]


def _adapter(
    targeted: list[tuple[int, tuple[int, int]]], rank: int, element_bytes: int, *, dora: bool
) -> list[_Trained]:
    """Return the LoRA matrices, A and B for each target, and DoRA's magnitudes."""
    found = []
    for count, per_rank in targeted:
        found += [_Trained(count, rank * side, element_bytes) for side in per_rank]
        if dora:
            found.append(_Trained(count, per_rank[1], element_bytes))
    return found


def _optimizer_state(optimizer: str, trained: list[_Trained]) -> tuple[int | None, str]:
    """Return the bytes of the optimizer's state for these tensors, or None where it is not known."""
    total = sum(one.count * one.elements for one in trained)
    paged = ", which the driver may move to the host" if optimizer.startswith("paged_") else ""
    if optimizer == "sgd":
        return 0, "SGD without momentum keeps no state"
    if optimizer in {"adamw_torch", "adamw_torch_fused"}:
        # The fused kernel keeps the step count of each tensor, a float32, on the device.
        steps = 4 * sum(one.count for one in trained) if optimizer.endswith("fused") else 0
        moments = 2 * sum(one.count * one.elements * one.element_bytes for one in trained)
        return moments + steps, "AdamW: two moments in the dtype of the trained weights"
    if optimizer in _STATES_32BIT:
        return _STATES_32BIT[optimizer] * total * 4, f"float32 moments{paged}"
    if optimizer in _STATES_8BIT:
        return _state_8bit(trained, _STATES_8BIT[optimizer]), f"8-bit moments{paged}"
    return None, f"the state of {optimizer} is not known here"


def _state_8bit(trained: list[_Trained], states: int) -> int:
    in_8bit = [one for one in trained if one.elements >= _MIN_8BIT_ELEMENTS and not one.is_embedding]
    elements = sum(one.count * one.elements for one in in_8bit)
    in_float32 = sum(one.count * one.elements for one in trained) - elements
    scales = sum(one.count * _blocks(one.elements, _STATE_BLOCK) for one in in_8bit)
    tables = _STATE_CODE_BYTES if in_8bit else 0
    return states * (in_float32 * 4 + elements + scales * 4 + tables)


def _blocks(elements: int, size: int) -> int:
    return -(-elements // size)
