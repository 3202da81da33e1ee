"""What training holds in memory, by arithmetic over a model's weights: base weights and training state.

Exact to the byte over an inventory; over a checkpoint's files, for the layers that core.models.layers recognises.
Activations, the loss head and the allocator are None here: core.memory.step_parts adds them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from core.errors import SftuiError
from core.memory.adapters import (
    Copies,
    cast_bytes,
    copies,
    lora_matrices,
    parts_trained,
    stored_matrices,
    targeted,
    trained_biases,
)
from core.memory.optimizer_state import Trained, optimizer_state
from core.memory.weights import ModelWeights, Targets, Weight
from core.models.adapter_files import StartAdapter
from core.models.precision import DTYPE_BYTES
from core.text import human_bytes

Quantization = Literal["none", "nf4", "fp4", "int8"]
Method = Literal["lora", "full"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
Level = Literal["exact", "estimated", "simulated", "measured", "unknown"]

# bitsandbytes: one float32 absmax for each block of weights; double quantization stores it in one byte, with a
# float32 for each block of absmax values, a float32 offset and a code table of 256 float32. Each layer has its own
# code table of 16 float32.
_BLOCK = 64
_NESTED_BLOCK = 256
_CODE_BYTES = 16 * 4
_NESTED_CODE_BYTES = 256 * 4
_OFFSET_BYTES = 4

_TIGHT_SHARE = 0.92
_NOT_YET = "not estimated"
_EXPERTS = "peft also adapts the experts of this mixture; their size is known once the model is built"


@dataclass(frozen=True)
class MemoryPart:
    """One part of what training holds."""

    name: str
    bytes: int | None
    """None while it is unknown."""
    basis: str
    """Where the figure comes from, in words."""
    level: Level = "exact"
    """How much it can be relied on."""


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
    correction_bytes: int = 0
    """By how much runs before this one have corrected it."""
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
    one_by_one: bool = True,
    dora: bool = False,
    train_vision: bool = False,
    skip_modules: tuple[str, ...] = (),
    modules_to_save: tuple[str, ...] = (),
    start: StartAdapter | None = None,
) -> MemoryEstimate:
    """Return what training a model holds in memory.

    `dtype` is what the weights are loaded in: "bfloat16". Without `one_by_one`, what PEFT adapts by its weight
    only, the experts of a mixture above all, gets no adapter; without `train_vision` the vision tower and the
    projector stay as they are. `optimizer` is a name of transformers' `optim` argument. `skip_modules` are not
    quantized, `modules_to_save` are trained whole beside the adapters. An adapter to `start` from brings its own
    rank, targets and modules trained whole: those given are not looked at then. Raises SftuiError for full fine-
    tuning of a quantized model.
    """
    if method == "full" and (quantization != "none" or weights.stored):
        raise SftuiError(
            "Quantized weights cannot be trained",
            f"Full fine-tuning changes every weight, and {weights.stored or quantization} weights are fixed.",
            "Train an adapter, or switch quantization off.",
        )
    base = constants = total = layers = quantized = tables = 0
    for group in weights.groups:
        weight, count = group.weight, len(group.names)
        total += count * weight.elements if weight.is_parameter else 0
        if weight.stored is not None:
            layers += count
            quantized += count * weight.elements
            base += count * weight.stored[0]
            constants += count * weight.stored[1]
            continue
        packed = 0
        if weight.quantizable and quantization != "none":
            packed = count - sum(is_skipped(name, skip_modules) for name in group.names) if skip_modules else count
            layers += packed
            quantized += packed * weight.elements
            base += packed * _quantized_bytes(weight, quantization)
            constants += packed * _constant_bytes(weight, quantization, double_quant)
        held = (count - packed) * weight.elements * weight.element_bytes(dtype)
        base += held
        tables += held if weight.is_embedding or weight.is_head else 0

    adapter: tuple[MemoryPart, MemoryPart, MemoryPart]
    if method == "full":
        trained: list[Trained] | None = [
            Trained(len(g.names), g.weight.elements, g.weight.element_bytes(dtype), g.weight.is_embedding)
            for g in weights.groups
            if g.weight.is_parameter and g.weight.part in parts_trained(train_vision=train_vision)
        ]
        none = MemoryPart("adapter_weights", 0, "no adapter: all weights are trained")
        adapter = none, *_state_parts(trained, optimizer)
    else:
        cast = cast_bytes(weights, dtype, quantized=quantization != "none")
        if start is not None:
            lora: list[Trained] | None = stored_matrices(start, cast or 4)
            biases, more = trained_biases(weights, start, dtype, cast)
            whole = copies(weights, start.modules_to_save, dtype, cast, keeps_tied=start.keeps_tied)
            rank = f"as in the adapter to start from, rank {start.rank or 'of each layer'}"
        else:
            biases, more = [], 0
            chosen = targeted(
                weights, lora_targets, lora_target_parameters, one_by_one=one_by_one, train_vision=train_vision,
                whole=modules_to_save,
            )  # fmt: skip
            lora = None if chosen is None else lora_matrices(chosen, lora_r, cast or 4, dora=dora)
            whole = copies(weights, modules_to_save, dtype, cast, keeps_tied=True)
            rank = f"rank {lora_r}"
        trained = None if lora is None else [*lora, *whole.trained, *biases]
        adapter = _adapter_part(lora, whole, more, rank), *_state_parts(trained, optimizer)
    parts = (
        MemoryPart("base_weights", base, f"{_base_basis(weights, quantization, layers, dtype)}; {_source(weights)}"),
        MemoryPart("quantization_constants", constants, _constants_basis(weights, quantization, double_quant)),
        *adapter,
        MemoryPart("activations", None, _NOT_YET),
        MemoryPart("logits", None, _NOT_YET),
        MemoryPart("allocator_and_context", None, _NOT_YET),
    )
    return MemoryEstimate(
        parts=parts,
        trainable_parameters=None if trained is None else sum(one.total_elements for one in trained),
        total_parameters=total,
        quantized_parameters=quantized,
        embeddings_bytes=tables,
        exact=weights.exact,
    )


def is_skipped(name: str, skip_modules: Collection[str]) -> bool:
    """Whether transformers leaves a layer's weight as it is for one of the modules named in `sftui.skip_modules`."""
    module = name.removesuffix(".weight")
    # Each name is a regular expression for a beginning up to a dot, or a plain end.
    return any(re.match(rf"(?:{one})(?:(?<=\.)|(?=\.|$))", module) or module.endswith(one) for one in skip_modules)


def _base_basis(weights: ModelWeights, quantization: Quantization, layers: int, dtype: str) -> str:
    if weights.stored is not None:
        later = ""
        if weights.stored.startswith("compressed-tensors"):
            later = ", until compressed-tensors unpacks them at the first step"
        return f"{layers} linear layers as stored in {weights.stored}{later}, the rest not quantized"
    bits = DTYPE_BYTES[dtype] * 8
    return f"{layers} linear layers in {quantization}, the rest in {bits} bit" if layers else f"all in {bits} bit"


def _source(weights: ModelWeights) -> str:
    return "exact, from the model's modules" if weights.exact else "from the names and shapes in its files"


def verdict(estimate: MemoryEstimate, free_bytes: int | None) -> tuple[Verdict, str]:
    """Return whether training fits into `free_bytes` of device memory, and why, in words."""
    needed = estimate.known_bytes
    known = human_bytes(needed)
    if free_bytes is None:
        return "unknown", f"{known} are needed at least; the free memory of the device is not known"
    free = human_bytes(free_bytes)
    missing = [part.name.replace("_", " ") for part in estimate.parts if part.bytes is None]
    if needed > free_bytes:
        what = "weights and training state alone take" if missing else "it takes"
        return "does_not_fit", f"{human_bytes(needed - free_bytes)} too much: {what} {known}, and {free} are free"
    if missing:
        return "unknown", f"{', '.join(missing)} are not counted yet; the rest takes {known} of {free}"
    spare = human_bytes(free_bytes - needed)
    if needed > free_bytes * _TIGHT_SHARE:
        return "tight", f"{spare} to spare of {free}: little is left for fragmentation"
    return "fits", f"{spare} to spare; {known} of {free}"


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


def _constants_basis(weights: ModelWeights, quantization: Quantization, double_quant: bool) -> str:
    if weights.stored is not None:
        return "as stored"
    if quantization == "none":
        return "not quantized"
    if quantization == "int8":
        return "one float32 for each output of a layer"
    return f"one {'byte' if double_quant else 'float32'} for each {_BLOCK} weights, and tables for each layer"


def _adapter_part(lora: list[Trained] | None, whole: Copies, more: int, rank: str) -> MemoryPart:
    if lora is None:
        return MemoryPart("adapter_weights", None, _EXPERTS)
    held = sum(one.total_bytes for one in lora) + whole.total_bytes + more
    basis = f"{rank}, {_types(lora)}" if lora else "no LoRA"
    if whole.trained:
        basis += f"; modules trained whole, copied in {_types(whole.trained)}: {human_bytes(whole.total_bytes)}"
    return MemoryPart("adapter_weights", held, basis)


def _state_parts(trained: list[Trained] | None, optimizer: str) -> tuple[MemoryPart, MemoryPart]:
    if trained is None:
        return MemoryPart("gradients", None, _EXPERTS), MemoryPart("optimizer_state", None, _EXPERTS)
    gradients = sum(one.total_bytes for one in trained)
    return (
        MemoryPart("gradients", gradients, "one for each trained weight, in its dtype"),
        MemoryPart("optimizer_state", *optimizer_state(optimizer, trained)),
    )


def _types(trained: Collection[Trained]) -> str:
    sizes = {one.element_bytes for one in trained}
    return " and ".join(name for size, name in ((2, "bfloat16"), (4, "float32")) if size in sizes)


def _blocks(elements: int, size: int) -> int:
    return -(-elements // size)
