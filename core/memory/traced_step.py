"""What a training step holds beside weights and training state, by arithmetic over what was traced of its layers.

The layers' own part is what their code was seen to hold; what adapters, quantized layers and TRL's fused output head
add follows from what PEFT 0.21, bitsandbytes 0.50 and TRL 1.16 keep. T is the tokens of the micro-batch. Bytes.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core.memory.adapters import Adapted
from core.memory.batch_shape import BatchShape
from core.memory.layer_traces import AttentionKind, Growth, Input, LayerKind, LayerTraces, ModelTrace

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")
# TRL's fused output head goes over so many tokens at a time, in tiles that are always as wide as this.
_TILE_TOKENS = 4096
_TILE_VOCABULARY = 32_768
# Without Triton, PyTorch computes with so many float32 copies of a tile.
_COPIES_OF_A_TILE = 7
# For each scored token: its number, and what becomes of its logits.
_BYTES_OF_A_SCORE = 25


@dataclass(frozen=True, slots=True)
class StepSettings:
    """All that decides what a step holds, beside the model."""

    shape: BatchShape
    bits: int
    """Of what is computed in: 16 or 32."""
    attention: str
    on_gpu: bool
    checkpointing: bool
    trains_all: bool
    rank: int
    dropout: float
    adapter_bytes: int
    """Of an element of an adapter."""
    dora: bool
    quantization: str
    accumulates: bool
    """Whether a micro-batch finds the gradients of the one before."""
    gradients: int
    """Bytes of all gradients, which are another part of the plan."""
    optimizer_working: int
    """Bytes that the optimizer's step needs for itself."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output head."""

    hidden: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class StepSizes:
    """At the peak of a step, beyond weights, gradients and optimizer state."""

    activations: int
    logits: int
    kept: int
    """Between the forward and the backward pass, of both."""


def traced_step(
    traces: LayerTraces, head: Head, step: StepSettings, adapted: Collection[Adapted], largest_weight: int
) -> StepSizes | None:
    """What a step holds at most; None where this kind of step was not traced.

    `largest_weight` is the number of elements of the largest quantized weight, which is unpacked while it is used.
    """
    trace = traces.find(
        _kind_of_attention(step), trains_all=step.trains_all, bits=step.bits, on_gpu=step.on_gpu
    )  # fmt: skip
    if trace is None:
        return None
    rows, tokens = (
        (1, step.shape.rows * step.shape.tokens) if step.shape.packed else (step.shape.rows, step.shape.tokens)
    )
    per_name = _counts(adapted)
    shares = _shares(trace, per_name)

    def size(growth: Growth) -> float:
        return growth.of(rows, tokens)

    def added(kind: LayerKind) -> tuple[float, float]:
        return _added(kind, shares, step, rows * tokens)

    stream = trace.stream * rows * tokens
    unpacked = largest_weight * (step.bits // 8) if step.quantization in ("nf4", "fp4") else 0
    around = size(trace.around)
    layers = sum(kind.count for kind in trace.kinds)
    extra = [added(kind) for kind in trace.kinds]
    working = [
        size(kind.working) + kept + more + unpacked for kind, (kept, more) in zip(trace.kinds, extra, strict=True)
    ]
    if step.checkpointing:
        around += size(trace.passed)
        body = around + layers * stream
    else:
        body = around + sum(
            kind.count * (size(kind.kept) + kept) for kind, (kept, _) in zip(trace.kinds, extra, strict=True)
        )
        if trace.first is not None:
            # It is of the kind of the first example.
            body += size(trace.first.kept) + added(trace.first)[0] - size(trace.kinds[0].kept) - extra[0][0]
    cast = _cast_adapters(adapted, step)
    body += 0 if step.checkpointing else cast
    head_kept, head_working = _head(head, step, trace.answer)
    missing = 0 if step.accumulates else step.gradients
    table = step.trains_all and not step.accumulates
    at_head = body + head_kept + head_working - missing
    top = trace.kinds[-1]
    # Without checkpointing, what the last layer keeps is part of the body already.
    last = working[-1] - (0 if step.checkpointing else size(top.kept) + extra[-1][0])
    at_last = body + last - missing + (head.vocabulary * head.hidden * step.bits // 8 if table else 0)
    at_first = max(working[0], working[-1]) + (around + stream if step.checkpointing else 0)
    at_update = float(step.optimizer_working)
    best = max(at_head, at_last, at_first, at_update, 0.0)
    logits = min(head_kept + head_working, at_head) if best == at_head else 0.0
    return StepSizes(round(best - logits), round(logits), round(body + head_kept))


def _kind_of_attention(step: StepSettings) -> AttentionKind:
    if step.attention == "eager":
        return "eager"
    if step.attention != "sdpa":
        return "fused"
    shape = step.shape
    padded = shape.real_tokens not in (None, shape.rows * shape.tokens)
    return "masked" if shape.packed or padded else "fused"


def _counts(adapted: Collection[Adapted]) -> Mapping[str, int]:
    """How many layers of a name, with a star for each number, get an adapter."""
    found: dict[str, int] = {}
    for one in adapted:
        if one.by_weight:
            continue
        first = _INDEX.sub("*", next(iter(one.names)))
        found[first] = found.get(first, 0) + len(one.names)
    return found


def _shares(trace: ModelTrace, adapted: Mapping[str, int]) -> Mapping[str, float]:
    """Which share of the layers of a name gets an adapter."""
    total: dict[str, int] = {}
    for kind in trace.kinds:
        for name in {one.name for one in kind.inputs}:
            total[name] = total.get(name, 0) + kind.count
    return {name: min(1.0, count / total[name]) for name, count in adapted.items() if name in total}


def _added(kind: LayerKind, shares: Mapping[str, float], step: StepSettings, tokens: int) -> tuple[float, float]:
    """Bytes that adapters and 8-bit layers keep in one layer, and what they hold besides while they work."""
    element = step.bits // 8
    kept = widest = 0.0
    shared: dict[int, float] = {}
    for one in kind.inputs:
        share = shares.get(one.name, 0.0)
        if step.quantization == "int8":
            _share(shared, one, 1.0)
        if not share:
            continue
        if step.dropout > 0:
            # Each layer drops out for itself: what is left, and what was dropped.
            mask = 1 if step.on_gpu else step.adapter_bytes
            kept += share * one.width * (element + mask)
        elif step.adapter_bytes == element == one.element_bytes:
            _share(shared, one, share)
        else:
            # What goes into an adapter of another type is cast for each of them.
            kept += share * one.width * element
        kept += share * step.rank * element
        widest = max(widest, share * one.width * (step.adapter_bytes + (element if step.dropout > 0 else 0)))
    kept += sum(shared.values())
    return kept * tokens, widest * tokens


def _share(shared: dict[int, float], one: Input, share: float) -> None:
    if not one.is_kept:
        shared[one.tensor] = max(shared.get(one.tensor, 0.0), share * one.width * one.element_bytes)


def _cast_adapters(adapted: Collection[Adapted], step: StepSettings) -> int:
    """Float32 adapters are cast once in a forward pass to what is computed in."""
    if step.trains_all or step.adapter_bytes * 8 == step.bits:
        return 0
    return step.bits // 8 * sum(len(one.names) * step.rank * sum(one.per_rank) for one in adapted)


def _head(head: Head, step: StepSettings, answer: float) -> tuple[float, float]:
    """What the fused output head keeps, and what it holds besides while it goes backwards."""
    shape, element = step.shape, step.bits // 8
    total = shape.rows * shape.tokens
    scored = shape.real_tokens or total
    scored -= 1 if shape.packed else shape.rows
    scored = scored if step.on_gpu else total
    at_once = min(scored, _TILE_TOKENS)
    kept = scored * (answer + _BYTES_OF_A_SCORE)
    working = at_once * _TILE_VOCABULARY * element + scored * (head.hidden * 4 + answer)
    if not step.on_gpu:
        working += _COPIES_OF_A_TILE * at_once * min(head.vocabulary, _TILE_VOCABULARY) * 4
    if step.trains_all:
        working += head.vocabulary * head.hidden * (4 + element)
    return kept, working
