"""What training holds in memory, by arithmetic over a checkpoint's tensors: weights and training state.

Exact to the byte for the layers that core.models.layers recognises. Activations, the loss head and the allocator are
not estimated yet, and are None rather than zero.
"""

from dataclasses import dataclass
from typing import Literal

from core.errors import SftuiError
from core.models.checkpoint_files import TensorInfo
from core.models.layers import (
    attention_outputs,
    is_embedding,
    is_expert,
    is_linear,
    is_output_head,
    leaf_name,
    output_features,
    parameter_tensors,
)
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

    @property
    def known_bytes(self) -> int:
        """Sum of the parts that are known."""
        return sum(part.bytes for part in self.parts if part.bytes is not None)

    @property
    def total_is_complete(self) -> bool:
        """Whether no part is missing, so that known_bytes is the total."""
        return all(part.bytes is not None for part in self.parts)


def estimate(
    tensors: tuple[TensorInfo, ...],
    *,
    quantization: Quantization,
    double_quant: bool,
    dtype_bytes: int,
    method: Method,
    lora_r: int,
    lora_targets: Literal["all-linear"] | tuple[str, ...],
    optimizer: str,
    tied_embeddings: bool = False,
) -> MemoryEstimate:
    """Return what training a checkpoint holds in memory, from the headers of its (unquantized) weights.

    `dtype_bytes` is the size of one element in the dtype that the weights are loaded in. `optimizer` is a name of
    transformers' `optim` argument. Raises SftuiError for full fine-tuning of a quantized model.
    """
    if method == "full" and quantization != "none":
        raise SftuiError(
            "Quantized weights cannot be trained",
            f"Full fine-tuning changes every weight, and {quantization} weights are fixed.",
            "Train an adapter, or switch quantization off.",
        )
    parameters = parameter_tensors(tensors, tied_embeddings)
    quantized: list[TensorInfo] = []
    if quantization != "none":
        skipped = attention_outputs(parameters)
        quantized = [tensor for tensor in parameters if is_linear(tensor) and tensor.name not in skipped]
    quantized_names = {tensor.name for tensor in quantized}
    kept = [tensor for tensor in parameters if tensor.name not in quantized_names]

    if method == "full":
        trained: list[_Trained] | None = [_Trained(t.elements, is_embedding(t)) for t in parameters]
        trained_bytes = dtype_bytes
    else:
        trained = _adapter(parameters, lora_r, lora_targets)
        # TRL casts adapters to bfloat16 on a quantized base and leaves them in float32 otherwise.
        trained_bytes = 4 if quantization == "none" else 2
    parts = (
        MemoryPart(
            "base_weights",
            sum(_quantized_bytes(tensor, quantization) for tensor in quantized)
            + sum(tensor.elements * dtype_bytes for tensor in kept),
            f"{len(quantized)} linear layers in {quantization}, the rest in {dtype_bytes * 8} bit"
            if quantized
            else f"all weights in {dtype_bytes * 8} bit",
        ),
        MemoryPart(
            "quantization_constants",
            sum(_constant_bytes(tensor, quantization, double_quant) for tensor in quantized),
            _constants_basis(quantization, double_quant),
        ),
        *_training_parts(trained, trained_bytes, method, f"rank {lora_r}", optimizer),
        MemoryPart("activations", None, _NOT_YET),
        MemoryPart("logits", None, _NOT_YET),
        MemoryPart("allocator_and_context", None, _NOT_YET),
    )
    tables = [tensor for tensor in kept if is_embedding(tensor) or is_output_head(tensor)]
    return MemoryEstimate(
        parts=parts,
        trainable_parameters=None if trained is None else sum(tensor.elements for tensor in trained),
        total_parameters=sum(tensor.elements for tensor in parameters),
        quantized_parameters=sum(tensor.elements for tensor in quantized),
        embeddings_bytes=sum(tensor.elements * dtype_bytes for tensor in tables),
    )


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


def _quantized_bytes(tensor: TensorInfo, quantization: Quantization) -> int:
    return tensor.elements if quantization == "int8" else _blocks(tensor.elements, 2)


def _constant_bytes(tensor: TensorInfo, quantization: Quantization, double_quant: bool) -> int:
    if quantization == "int8":
        # One float32 scale for each output.
        return output_features(tensor) * 4
    scales = _blocks(tensor.elements, _BLOCK)
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


@dataclass(frozen=True)
class _Trained:
    """A trained tensor."""

    elements: int
    is_embedding: bool


def _training_parts(
    trained: list[_Trained] | None, element_bytes: int, method: Method, rank: str, optimizer: str
) -> tuple[MemoryPart, MemoryPart, MemoryPart]:
    names = ("adapter_weights", "gradients", "optimizer_state")
    if trained is None:
        adapter, gradients, state = (MemoryPart(name, None, _EXPERTS) for name in names)
        return adapter, gradients, state
    held = element_bytes * sum(tensor.elements for tensor in trained)
    adapter = MemoryPart(names[0], held, f"{rank}, {'float32' if element_bytes == 4 else 'bfloat16'}")
    if method == "full":
        adapter = MemoryPart(names[0], 0, "no adapter: all weights are trained")
    gradients = MemoryPart(names[1], held, "one for each trained weight, in its dtype")
    return adapter, gradients, MemoryPart(names[2], *_optimizer_state(optimizer, trained, element_bytes))


def _adapter(
    parameters: tuple[TensorInfo, ...], rank: int, targets: Literal["all-linear"] | tuple[str, ...]
) -> list[_Trained] | None:
    """Return the LoRA matrices, A (r × in) and B (out × r) for each target; None when experts are among them."""
    for tensor in filter(is_expert, parameters):
        # Fused experts have no ".weight" of their own: their name ends in "gate_up_proj".
        if targets == "all-linear" or {leaf_name(tensor), tensor.name.rpartition(".")[2]} & set(targets):
            return None
    chosen = [tensor for tensor in parameters if _is_target(tensor, targets)]
    return [_Trained(rank * side, is_embedding=False) for tensor in chosen for side in tensor.shape]


def _is_target(tensor: TensorInfo, targets: Literal["all-linear"] | tuple[str, ...]) -> bool:
    if targets == "all-linear":
        return is_linear(tensor)
    module = tensor.name.removesuffix(".weight")
    named = leaf_name(tensor) in targets or any(module.endswith(f".{target}") for target in targets)
    return named and (is_linear(tensor) or is_embedding(tensor))


def _optimizer_state(optimizer: str, trained: list[_Trained], element_bytes: int) -> tuple[int | None, str]:
    """Return the bytes of the optimizer's state for these tensors, or None where it is not known."""
    total = sum(tensor.elements for tensor in trained)
    paged = ", which the driver may move to the host" if optimizer.startswith("paged_") else ""
    if optimizer == "sgd":
        return 0, "SGD without momentum keeps no state"
    if optimizer in {"adamw_torch", "adamw_torch_fused"}:
        # The fused kernel keeps the step count of each tensor, a float32, on the device.
        steps = 4 * len(trained) if optimizer.endswith("fused") else 0
        return 2 * total * element_bytes + steps, "AdamW: two moments in the dtype of the trained weights"
    if optimizer in _STATES_32BIT:
        return _STATES_32BIT[optimizer] * total * 4, f"float32 moments{paged}"
    if optimizer in _STATES_8BIT:
        return _state_8bit(trained, _STATES_8BIT[optimizer]), f"8-bit moments{paged}"
    return None, f"the state of {optimizer} is not known here"


def _state_8bit(trained: list[_Trained], states: int) -> int:
    in_8bit = [
        tensor.elements for tensor in trained if tensor.elements >= _MIN_8BIT_ELEMENTS and not tensor.is_embedding
    ]
    in_float32 = sum(tensor.elements for tensor in trained) - sum(in_8bit)
    scales = sum(_blocks(elements, _STATE_BLOCK) for elements in in_8bit)
    tables = _STATE_CODE_BYTES if in_8bit else 0
    return states * (in_float32 * 4 + sum(in_8bit) + scales * 4 + tables)


def _blocks(elements: int, size: int) -> int:
    return -(-elements // size)
