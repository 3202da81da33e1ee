"""What a training step holds beside weights and training state, by arithmetic: activations, and the loss head.

The terms follow what PyTorch's autograd saves in the layers of transformers, PEFT and TRL as they are installed: the
formulas of Korthikanti et al. 2022 (https://arxiv.org/abs/2205.05198) for frozen weights with adapters. Bytes of one
micro-batch; T is its tokens.
"""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from core.memory.adapters import Adapted
from core.memory.batch_shape import BatchShape
from core.memory.dora import dora_kept, dora_working
from core.memory.weights import ModelWeights, WeightGroup, starred
from core.models.architecture import Architecture
from core.models.precision import DTYPE_BYTES
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING

_LAYER = re.compile(r"\.\d+\.")
_ATTENTION = re.compile(r"att[en]|\.mixer\.", re.IGNORECASE)
_ATTENTION_OUTPUTS = frozenset({"o_proj", "out_proj", "dense", "c_proj", "wo", "dense_o", "linear_attn_out"})
# Activation functions that are written as several operations, by how many tensors they keep beside their input.
_KEPT_BY_ACTIVATION = {"gelu_new": 3, "gelu_fast": 4, "quick_gelu": 1, "relu2": 1}
# With autocast on CUDA powers are computed in float32, and with them all that follows.
_KEPT_IN_FLOAT32 = {"gelu_new": 6, "gelu_fast": 6}
# Their scores are capped by a tanh, which keeps what it made.
_CAPPED = frozenset({"gemma2"})

# TRL's fused output head goes over so many tokens and entries of the vocabulary at a time.
_TILE_TOKENS = 4096
_TILE_VOCABULARY = 32_768


@dataclass(frozen=True, slots=True)
class Step:
    """All that decides what a step holds, beside the model."""

    shape: BatchShape
    element: int
    """Bytes of what is computed in: 2 or 4."""
    attention: str
    checkpointing: bool
    trains_all: bool
    """Full fine-tuning; otherwise adapters."""
    rank: int
    dropout: float
    adapter_element: int
    """Bytes of an element of an adapter."""
    quantized: bool
    dora: bool
    on_gpu: bool
    offloads: bool = False
    """Whether what the backward pass needs is on the host meanwhile."""
    all_logits: bool = False
    """Whether the loss is computed from all logits at once, and not by TRL's fused head."""
    gradients: int = 0
    """Bytes of all gradients, which are another part of the plan."""
    accumulates: bool = False
    """Whether a micro-batch finds the gradients of the one before."""

    @property
    def tokens(self) -> int:
        """Of the micro-batch."""
        return self.shape.rows * self.shape.tokens

    @property
    def in_adapters(self) -> int:
        """Bytes of an element of what adapters compute with: autocast goes down to 16 bits, and PEFT to theirs."""
        return min(self.element, self.adapter_element)


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What the model's configuration tells."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    active_experts: int
    activation: str
    caps_scores: bool
    caps_logits: bool
    rotates: bool
    """Whether positions are rotated into queries and keys; otherwise they are added to the embeddings."""


@dataclass(frozen=True, slots=True)
class StepBytes:
    """At the peak of a step, beyond weights, gradients and optimizer state."""

    activations: int
    logits: int
    kept: int
    """Between the forward and the backward pass, of both."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """The linear layers of one name, in all layers of the model."""

    name: str
    count: int
    inputs: int
    outputs: int
    parent: str
    is_attention: bool
    is_attention_output: bool
    is_router: bool


@dataclass(frozen=True, slots=True)
class _Norm:
    """Normalizations of one name."""

    count: int
    width: int
    """Of all that is normalized for a token."""
    is_layer_norm: bool


@dataclass(frozen=True, slots=True)
class _Experts:
    """Fused experts of one name."""

    name: str
    count: int
    elements: int
    """Of the experts of one layer."""
    width: int
    """Of what comes out of them, or goes into them, inside."""
    is_first: bool


@dataclass(frozen=True, slots=True)
class _Body:
    """The layers of a model, by kind."""

    linears: tuple[_Linear, ...]
    norms: tuple[_Norm, ...]
    experts: tuple[_Experts, ...]


def sizes_of(architecture: Architecture, weights: ModelWeights) -> ModelSizes | None:
    """What config.json tells of the layers; None where it leaves out what the arithmetic needs."""
    tables = [group for group in weights.groups if group.weight.is_embedding and group.weight.part == "text"]
    layers, hidden, heads = architecture.layers, architecture.hidden_size, architecture.heads
    if not layers or not hidden or not heads:
        return None
    return ModelSizes(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=architecture.kv_heads or heads,
        head_dim=architecture.head_dim or hidden // heads,
        vocabulary=architecture.vocab_size or _TILE_VOCABULARY,
        active_experts=architecture.active_experts or 1,
        activation=architecture.activation or "",
        rotates=len(tables) < 2,
        caps_scores=architecture.model_type in _CAPPED,
        caps_logits=architecture.caps_logits,
    )


def step_for(spec: RunSpec, dtype: str, attention: str, shape: BatchShape, *, on_gpu: bool, cast: int | None) -> Step:
    """The step of a spec that computes in `dtype`; `cast` is the size of an adapter's element where TRL casts it."""
    return Step(
        shape=shape,
        element=DTYPE_BYTES[dtype],
        attention=attention,
        checkpointing=spec.activation_checkpointing,
        trains_all=not spec.use_peft,
        rank=spec.lora_r,
        dropout=spec.lora_dropout,
        adapter_element=cast or 4,
        quantized=spec.quantization != "none",
        dora=spec.use_peft and spec.use_dora,
        on_gpu=on_gpu,
        offloads=on_gpu and bool(spec.extra_arguments.get(OFFLOADING)),
    )


def step_bytes(weights: ModelWeights, sizes: ModelSizes, step: Step, adapted: Collection[Adapted]) -> StepBytes:
    """Return what a step holds: the larger of the moments at the loss and in the last layer's backward pass."""
    body = _body(weights.groups, sizes)
    names = _adapted_names(adapted)
    tokens, element = step.tokens, step.element
    stream = tokens * sizes.hidden * element
    inner = _kept_inside(body, sizes, step, names)
    per_layer = inner // max(1, sizes.layers)
    casts = cast_adapters(adapted, step)
    fused = not step.on_gpu and any(one.is_layer_norm for one in body.norms)
    norm = tokens * sizes.hidden * (element if fused else 4 + (element if step.trains_all and element == 2 else 0))
    mask = _mask(step)
    head_kept, head_peak = head_bytes(sizes, step, sizes.hidden * step.element)
    if step.checkpointing:
        if step.quantized and step.on_gpu and any(one.is_layer_norm for one in body.norms):
            # LayerNorm answers in float32 there, and 4-bit layers in the type of what goes into them.
            stream = tokens * sizes.hidden * 4
        kept_body = sizes.layers * stream + norm + mask
        # One layer is computed again, and its gradients flow through it.
        per_layer += casts // sizes.layers
        inside = kept_body - norm + per_layer + _backward(body, sizes, step, names)
    else:
        kept_body = inner + norm + mask + casts
        inside = kept_body - norm + _backward(body, sizes, step, names)
    # Gradients are counted elsewhere as if all were there, which they are at the end of the first backward pass only.
    missing = 0 if step.accumulates else step.gradients
    at_head = kept_body + head_kept + head_peak - missing
    at_last_layer = inside - missing
    at_first_layer = per_layer + _backward(body, sizes, step, names)
    kept = kept_body + head_kept
    body_peak = max(at_last_layer, at_first_layer, table_gradients(weights, sizes, step))
    if at_head >= body_peak:
        logits = min(head_kept + head_peak, at_head)
        return StepBytes(at_head - logits, logits, kept)
    return StepBytes(body_peak, 0, kept)


def _mask(step: Step) -> int:
    """The mask that attention was given, if any."""
    shape = step.shape
    if step.attention not in ("sdpa", "eager") or not _is_masked(step):
        return 0
    element = step.element if step.attention == "eager" else 1
    return (step.tokens**2 if shape.packed else shape.rows * shape.tokens**2) * element


def _is_masked(step: Step) -> bool:
    """Whether SDPA is given a mask, and not only told to be causal."""
    shape = step.shape
    return step.attention == "eager" or shape.packed or shape.real_tokens not in (None, step.tokens)


def _kept_inside(body: _Body, sizes: ModelSizes, step: Step, names: frozenset[str]) -> int:
    """Bytes that the forward pass through all layers keeps for the backward pass, without checkpointing."""
    tokens, element = step.tokens, step.element
    total = 0
    for norm in body.norms:
        rows = tokens * norm.width
        # RMSNorm keeps a copy in float32; LayerNorm keeps its input, which autocast makes float32 on CUDA.
        fused_in_16 = norm.is_layer_norm and not step.on_gpu
        total += norm.count * rows * (element if fused_in_16 else 4)
        if step.trains_all and not norm.is_layer_norm and element == 2:
            total += norm.count * rows * element
    total += _linear_inputs(body, step, names)
    total += _attention(body, sizes, step)
    total += _feed_forward(body, sizes, step)
    # PEFT adds what it has learnt to the experts' weights, and keeps the sum.
    total += sum(one.count * one.elements * element for one in body.experts if one.name in names)
    return total


def _linear_inputs(body: _Body, step: Step, names: frozenset[str]) -> int:
    """What linear layers keep of what goes into them, and adapters of what is in them."""
    tokens, element = step.tokens, step.element
    total = 0
    seen: set[tuple[str, int]] = set()
    for linear in body.linears:
        wide = linear.count * tokens * linear.inputs
        if step.trains_all:
            if (linear.parent, linear.inputs) not in seen:
                total += wide * element
            seen.add((linear.parent, linear.inputs))
            continue
        if linear.name not in names:
            continue
        if step.dora:
            total += linear.count * dora_kept(step, linear.inputs, linear.outputs, wants_gradient=True)
        total += linear.count * tokens * step.rank * step.in_adapters
        if step.dropout > 0:
            # Each layer drops out for itself: what is left, and what was dropped.
            mask = 1 if step.on_gpu else step.adapter_element
            total += wide * (step.in_adapters + mask)
        elif step.adapter_element != element:
            # What goes into an adapter of another type is cast for each of them.
            total += wide * step.in_adapters
        elif (linear.parent, linear.inputs) not in seen:
            total += wide * element
        seen.add((linear.parent, linear.inputs))
    return total


def _attention(body: _Body, sizes: ModelSizes, step: Step) -> int:
    """Queries, keys, values, and what became of them."""
    tokens, element = step.tokens, step.element
    outputs = [linear for linear in body.linears if linear.is_attention_output]
    if not outputs:
        return 0
    count = sum(linear.count for linear in outputs)
    queries = sizes.heads * sizes.head_dim
    keys = sizes.kv_heads * sizes.head_dim
    # Values that are part of a larger tensor keep all of it.
    fused = [one for one in body.linears if one.is_attention and one.outputs == queries + 2 * keys]
    around = sum(one.count for one in fused) * tokens * (queries + keys) * element
    if not sizes.rotates or (_is_masked(step) and keys < queries):
        around = 0
    if step.attention == "eager":
        scores = _scores(sizes, step)
        # Keys and values are repeated for each head; probabilities in float32, and as they are multiplied.
        kept = 3 * tokens * queries * element + scores * (4 if element == 4 else 6)
        kept += scores * element if sizes.caps_scores else 0
        return count * kept
    masked = step.attention == "sdpa" and _is_masked(step)
    repeated = queries if masked else keys
    kept = tokens * (2 * queries + 2 * repeated) * element + 4 * tokens * sizes.heads
    if masked:
        # Each layer makes a bias in the type of the queries of it.
        kept += _mask(step) * element
    return count * kept + around


def _scores(sizes: ModelSizes, step: Step) -> int:
    """Elements of one layer's attention scores, where they are written out."""
    return sizes.heads * step.tokens * (step.tokens if step.shape.packed else step.shape.tokens)


def _feed_forward(body: _Body, sizes: ModelSizes, step: Step) -> int:
    """What activation functions and gates keep."""
    tokens, element = step.tokens, step.element
    by_parent: dict[str, list[_Linear]] = {}
    for linear in body.linears:
        if not linear.is_attention and not linear.is_router:
            by_parent.setdefault(linear.parent, []).append(linear)
    total = 0
    wide = _KEPT_IN_FLOAT32 if step.on_gpu and element == 2 else _KEPT_BY_ACTIVATION
    extra = wide.get(sizes.activation, _KEPT_BY_ACTIVATION.get(sizes.activation, 0))
    for linears in by_parent.values():
        downs = [one for one in linears if one.outputs == sizes.hidden and one.inputs != sizes.hidden]
        inner = downs[0].inputs if downs else 0
        ups = sum(one.outputs for one in linears if one.outputs != sizes.hidden)
        count = downs[0].count if downs else max(one.count for one in linears)
        gated = bool(inner) and ups >= 2 * inner
        # The input of the activation, what it made of it, and the other factor.
        kept = 3 * inner if gated else inner if inner else ups
        kept += extra * inner
        total += count * tokens * kept * element
    for experts in body.experts:
        routed = tokens * max(1, sizes.active_experts)
        # What goes in, comes out, and is activated; then what goes into the second projection and comes out of it.
        kept = sizes.hidden + experts.width + experts.width // 2 if experts.is_first else experts.width + sizes.hidden
        total += experts.count * routed * kept * element
    return total


def _backward(body: _Body, sizes: ModelSizes, step: Step, names: frozenset[str]) -> int:
    """What a layer's backward pass holds beside what was kept: gradients on their way, a weight made 16 bits wide."""
    tokens, element = step.tokens, step.element
    widest = max((max(one.inputs, one.outputs) for one in body.linears), default=0)
    largest = max((one.inputs * one.outputs for one in body.linears), default=0)
    experts = max((one.elements for one in body.experts if one.name in names), default=0)
    gradients = tokens * (2 * widest + 2 * sizes.hidden) * element
    if step.attention == "eager":
        # The gradient of the scores goes through the softmax in float32.
        gradients = max(gradients, _scores(sizes, step) * 4)
    unpacked = largest * element if step.quantized else 0
    if step.dora:
        # Rather while it goes forwards, which is when a layer is computed again too.
        sides = [(one.inputs, one.outputs) for one in body.linears if one.name in names]
        unpacked = max([unpacked, *(dora_working(step, *one) - gradients for one in sides)])
    return gradients + max(unpacked, experts * element)


def head_bytes(sizes: ModelSizes, step: Step, answer: float) -> tuple[int, int]:
    """What the loss keeps, and what it holds besides while it is computed backwards.

    `answer` is the bytes of what the last layer says of a token.
    """
    tokens = step.tokens
    scored = step.shape.real_tokens or tokens
    scored -= 1 if step.shape.packed else step.shape.rows
    if not step.on_gpu:
        scored = tokens
    kept = round(scored * answer) + scored * (8 + 4 * 4)
    if step.all_logits:
        # As they come, in float32, their log-softmax; and then the gradients of the first two.
        return tokens * sizes.vocabulary * (step.element + 8), tokens * sizes.vocabulary * (4 + step.element)
    # TRL allocates whole tiles, however small the vocabulary is.
    rows, columns = min(scored, _TILE_TOKENS), min(sizes.vocabulary, _TILE_VOCABULARY)
    tile = rows * _TILE_VOCABULARY * step.element
    table = sizes.vocabulary * sizes.hidden if step.trains_all else 0
    # Gradients are summed up in float32, and cast in the end.
    inside = 0 if step.element == 4 else round(scored * answer) + table * step.element
    if not step.on_gpu:
        # Without Triton, PyTorch computes with seven copies of the tile in float32, eight where a tanh caps it, and a
        # byte for each target; then it multiplies it with the weight, both in float32.
        copies = rows * columns * (4 * (8 if sizes.caps_logits else 7) + 1)
        factors = 0 if step.element == 4 else 4 * columns * (rows + sizes.hidden)
        inside = max(inside, copies, factors)
    return kept, tile + 4 * (scored * sizes.hidden + table) + inside


def table_gradients(weights: ModelWeights, sizes: ModelSizes, step: Step) -> int:
    """Bytes of the embedding's gradient when it is made, in the end, while what it is added to is there too.

    That is what the output head made of weights that they share, and what the micro-batch before left.
    """
    if not step.trains_all:
        return 0
    return (bool(weights.tied) + step.accumulates) * sizes.vocabulary * sizes.hidden * step.element


def cast_adapters(adapted: Collection[Adapted], step: Step) -> int:
    """Float32 adapters are cast once a forward pass to what is computed in."""
    if step.trains_all or step.adapter_element <= step.element:
        return 0
    return step.element * sum(len(one.names) * step.rank * sum(one.per_rank) for one in adapted)


def _adapted_names(adapted: Collection[Adapted]) -> frozenset[str]:
    return frozenset(starred(next(iter(one.names))) for one in adapted if one.names)


@functools.lru_cache(maxsize=8)
def _body(groups: tuple[WeightGroup, ...], sizes: ModelSizes) -> _Body:
    names = {group.names[0] for group in groups}
    linears: list[_Linear] = []
    norms: list[_Norm] = []
    experts: list[_Experts] = []
    for group in groups:
        weight, name = group.weight, group.names[0]
        if weight.part != "text" or not _LAYER.search(name):
            continue
        module, _, last = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        pattern = starred(name)
        if weight.is_fused_experts:
            if len(weight.shape) == 3:
                width = weight.elements // weight.shape[0] // sizes.hidden
                experts.append(_Experts(pattern, len(group.names), weight.elements, width, "down" not in last))
        elif weight.outputs:
            is_attention = bool(_ATTENTION.search(starred(parent)))
            linears.append(
                _Linear(
                    name=pattern,
                    count=len(group.names),
                    inputs=weight.elements // weight.outputs,
                    outputs=weight.outputs,
                    parent=starred(parent),
                    is_attention=is_attention,
                    is_attention_output=is_attention and leaf in _ATTENTION_OUTPUTS,
                    is_router=weight.all_linear is None,
                )
            )
        elif weight.is_parameter and last == "weight" and len(weight.shape) == 1:
            width = weight.shape[0]
            if width == sizes.head_dim != sizes.hidden:
                width *= sizes.kv_heads if leaf.startswith("k") else sizes.heads
            norms.append(_Norm(len(group.names), width, f"{module}.bias" in names))
    return _Body(tuple(linears), tuple(norms), tuple(experts))
