"""What a training step holds beside weights and training state, by arithmetic over what was traced of its layers.

The layers' own part is what their code was seen to hold; what adapters, quantized layers and the head add follows
from what PEFT 0.21, bitsandbytes 0.50 and TRL 1.16 keep. T is the tokens of the micro-batch. Bytes.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from core.memory.activations import ModelSizes, Step, StepBytes, cast_adapters, head_bytes, table_gradients
from core.memory.adapters import Adapted
from core.memory.dora import dora_kept, dora_working
from core.memory.estimate import Quantization
from core.memory.layer_traces import AttentionKind, Input, LayerKind, LayerTraces, ModelTrace, Trained
from core.memory.weights import ModelWeights, starred


def traced_step(
    traces: LayerTraces,
    weights: ModelWeights,
    sizes: ModelSizes,
    step: Step,
    quantization: Quantization,
    adapted: Collection[Adapted],
) -> StepBytes | None:
    """What a step holds at most; None where this kind of step was not traced."""
    experts = [one for one in adapted if one.by_weight and one.weight.is_fused_experts]
    trained: Trained = "all" if step.trains_all else "adapters on experts" if experts else "adapters"
    if trained == "adapters" and quantization != "none":
        trained = "adapters on 8 bit" if quantization == "int8" else "adapters on 4 bit"
    element, attention = step.element, _kind_of_attention(step)
    shape = step.shape
    rows, tokens = (1, shape.rows * shape.tokens) if shape.packed else (shape.rows, shape.tokens)
    alone = attention == "eager" and rows == 1
    trace = traces.find(attention, trained, bits=8 * element, on_gpu=step.on_gpu, one_row=alone)
    if trace is None:
        return None
    away = traces.find(attention, trained, bits=8 * element, on_gpu=True, offloads=True) if step.offloads else None
    shares = _shares(trace, _counts(adapted))
    sides = {starred(next(iter(one.names))): one.per_rank for one in adapted} if step.dora else {}
    # PEFT adds what it has learnt to the experts' weights, and keeps the sum.
    summed = sum(one.weight.elements for one in experts) * element

    def layer(kind: LayerKind) -> tuple[float, float]:
        kept = kind.kept.of(rows, tokens) + _added(kind, shares, step) + summed
        beyond = kind.beyond_of(rows, tokens) - _gone_early(kind, shares, step) + _dropped_out(kind, shares, step)
        for one in kind.inputs:
            if one.name in sides:
                share = shares.get(one.name, 0.0)
                kept += share * dora_kept(step, *sides[one.name], wants_gradient=one.wants_gradient)
                beyond = max(beyond, dora_working(step, *sides[one.name]))
        return kept, beyond

    def left(kind: LayerKind, whole: LayerKind) -> tuple[float, float]:
        return kind.kept.of(rows, tokens) + _twice(whole, shares, step), kind.beyond_of(rows, tokens)

    stays = away or trace
    stream, entry = (one * rows * tokens * (away is None) for one in (trace.stream, trace.entry))
    around, inside = stays.around.of(rows, tokens), stays.inside.of(rows, tokens)
    # A layer that is computed again is not offloaded.
    layers = [layer(kind) for kind in trace.kinds]
    first = None if trace.first is None else layer(trace.first)
    if away is not None and not step.checkpointing:
        layers = [left(*kinds) for kinds in zip(away.kinds, trace.kinds, strict=True)]
        first = None if away.first is None or trace.first is None else left(away.first, trace.first)
    counts = [kind.count for kind in trace.kinds]
    last_kept, last_beyond = layers[-1]
    at_first = sum(layers[0])
    if step.checkpointing:
        around += trace.passed.of(rows, tokens)
        inside += trace.passed.of(rows, tokens)
        body = around + (sum(counts) - 1) * stream + entry
        body += 0 if step.trains_all else trace.embedded * rows * tokens
        at_last = body + last_kept + last_beyond
        at_first += inside + stream
    else:
        body = around + sum(count * kept for count, (kept, _) in zip(counts, layers, strict=True))
        if first is not None:
            # It is counted among the first kind too.
            body += first[0] - layers[0][0]
        body += cast_adapters(adapted, step)
        at_last = body + last_beyond
        at_first += inside
    at_last += inside - around
    table = sizes.vocabulary * sizes.hidden * element if step.trains_all else 0
    if step.trains_all and not step.accumulates:
        # Neither its own gradients nor those of the embedding are there yet.
        at_first -= trace.kinds[0].weights * element + (0 if weights.tied else table)
    head_kept, head_working = head_bytes(sizes, step, trace.answer)
    at_head = body + head_kept + head_working
    if not step.accumulates:
        # Gradients are counted elsewhere as if all were there, which they are when the first layer is done.
        at_head -= step.gradients
        at_last -= step.gradients - table
    at_embedding = table_gradients(weights, sizes, step) + trace.entry * rows * tokens * step.trains_all
    peak = max(at_head, at_last, at_first, at_embedding)
    logits = min(head_kept + head_working, at_head) if peak == at_head else 0.0
    return StepBytes(round(peak - logits), round(logits), round(body + head_kept))


def _kind_of_attention(step: Step) -> AttentionKind:
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
        first = starred(next(iter(one.names)))
        found[first] = found.get(first, 0) + len(one.names)
    return found


def _shares(trace: ModelTrace, adapted: Mapping[str, int]) -> Mapping[str, float]:
    """Which share of the layers of a name gets an adapter."""
    total: dict[str, int] = {}
    for kind in trace.kinds:
        for name in {one.name for one in kind.inputs}:
            total[name] = total.get(name, 0) + kind.count
    return {name: min(1.0, count / total[name]) for name, count in adapted.items() if name in total}


def _added(kind: LayerKind, shares: Mapping[str, float], step: Step) -> float:
    """Bytes that adapters keep in one layer."""
    element = step.in_adapters
    kept = 0.0
    shared: dict[int, float] = {}
    for one in kind.inputs:
        share = shares.get(one.name, 0.0)
        if not share:
            continue
        if step.dropout > 0:
            # Each layer drops out for itself: what is left, and what was dropped.
            kept += share * one.width * (element + _mask(one, step))
        elif step.adapter_element == step.element == one.element_bytes:
            _share(shared, one, share)
        else:
            # What goes into an adapter of another type is cast for each of them.
            kept += share * one.width * element
        kept += share * step.rank * element
    return (kept + sum(shared.values())) * step.tokens


def _twice(kind: LayerKind, shares: Mapping[str, float], step: Step) -> float:
    """Bytes that TRL leaves where they are, since what adapters keep is kept more than once."""
    if step.dropout > 0 or step.adapter_element != step.element:
        return 0.0
    adapted = [one for one in kind.inputs if shares.get(one.name)]
    users = Counter(one.tensor for one in adapted)
    twice = {one.tensor: one.width * one.element_bytes for one in adapted if one.is_kept or users[one.tensor] > 1}
    return sum(twice.values()) * step.tokens


def _gone_early(kind: LayerKind, shares: Mapping[str, float], step: Step) -> float:
    """Of what adapters keep, the masks of the last one: they are gone when the layer holds most."""
    if not kind.inputs or not step.dropout:
        return 0.0
    last = kind.inputs[-1]
    return shares.get(last.name, 0.0) * last.width * _mask(last, step) * step.tokens


def _dropped_out(kind: LayerKind, shares: Mapping[str, float], step: Step) -> float:
    """Bytes of the widest tensor with something dropped out of it, in an adapter's own type until it is cast."""
    if not step.dropout or step.adapter_element <= step.element:
        return 0.0
    widest = max((one.width for one in kind.inputs if shares.get(one.name)), default=0.0)
    return widest * step.adapter_element * step.tokens


def _mask(one: Input, step: Step) -> int:
    """Bytes that tell what of an element was dropped, which only its gradient needs."""
    if not one.wants_gradient:
        return 0
    return 1 if step.on_gpu else step.adapter_element


def _share(shared: dict[int, float], one: Input, share: float) -> None:
    if not one.is_kept:
        shared[one.tensor] = max(shared.get(one.tensor, 0.0), share * one.width * one.element_bytes)
