"""Goes through one layer of each kind of a model with fake tensors, forwards and backwards, and notes its sizes."""

import contextlib
import traceback
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers.masking_utils
from transformers import AutoConfig

from core.memory.layer_pass import ROWS, ExampleLayers, Pass, Seen, Storage
from core.memory.layer_traces import (
    AttentionKind,
    Growth,
    Input,
    LayerKind,
    LayerTraces,
    ModelTrace,
    Trained,
    condition,
    keep_traces,
)
from core.memory.simulated_gpu import replaced
from core.models.architecture import AutoClass
from core.models.inventory import take_quantization_out, trusts_own_code

# Multiples of what linear attention works through at a time; far enough apart to tell pairs from tokens.
_LENGTHS = (768, 1536, 3072)
_SHORT = 256
DTYPES = {16: torch.bfloat16, 32: torch.float32}
# Others are offloaded much as these are.
_OFFLOADED: tuple[Trained, ...] = ("all", "adapters", "adapters on 4 bit")
_ATTENTIONS: dict[str, tuple[AttentionKind, ...]] = {"eager": ("eager",), "sdpa": ("fused", "masked")}


def trace_layers(folder: Path, auto_class: AutoClass, *, on_gpu: bool) -> LayerTraces:
    """What the layers of the model in `folder` hold on this kind of device, kept on disk as well; seconds.

    What the model's code does not do with fake tensors, or not in an implementation of attention, is left out.
    """
    trusted = trusts_own_code(folder)
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trusted, local_files_only=True)
    take_quantization_out(config)
    traces = traces_of(config, auto_class, on_gpu=on_gpu, trusted=trusted)
    keep_traces(folder, auto_class, traces, on_gpu=on_gpu)
    return traces


def traces_of(config: Any, auto_class: AutoClass, *, on_gpu: bool, trusted: bool = False) -> LayerTraces:
    """The traces of the model that a configuration describes: on a GPU in 16 bits, on the CPU in 32 as well."""
    found: dict[str, ModelTrace] = {}
    with replaced(transformers.masking_utils, "is_tracing", lambda _tensor=None: False):
        for bits in (16,) if on_gpu else (32, 16):
            for implementation, attentions in _ATTENTIONS.items():
                with _other_attention_may_do():
                    model = ExampleLayers(config, auto_class, DTYPES[bits], implementation, trusted)
                    for attention in attentions:
                        for trained in _kinds_of_training(model, bits, on_gpu=on_gpu):
                            name = condition(attention, trained, bits=bits, on_gpu=on_gpu)
                            found[name] = trace(model, attention, trained, on_gpu=on_gpu)
                            if attention == "eager" and holds_more_of_one_row(model, trained, on_gpu=on_gpu):
                                name = condition(attention, trained, bits=bits, on_gpu=on_gpu, one_row=True)
                                found[name] = trace(model, attention, trained, on_gpu=on_gpu, rows=1)
                            if on_gpu and attention != "eager" and trained in _OFFLOADED:
                                name = condition(attention, trained, bits=bits, on_gpu=True, offloads=True)
                                found[name] = trace(model, attention, trained, on_gpu=True, offloads=True)
    return LayerTraces(found, frozenset({"gpu" if on_gpu else "cpu"}))


@contextlib.contextmanager
def _other_attention_may_do() -> Iterator[None]:
    """Go on after what a model's code does not do with fake tensors, or with this implementation of attention."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the code of a model may raise anything
        traceback.print_exception(error)


def _kinds_of_training(model: "ExampleLayers", bits: int, *, on_gpu: bool) -> Iterator[Trained]:
    yield "all"
    yield "adapters"
    if bits == 16:
        yield "adapters on 4 bit"
    if on_gpu:
        yield "adapters on 8 bit"
    if any(parameter.ndim == 3 for parameter in model.model.parameters()):
        yield "adapters on experts"


def trace(
    model: ExampleLayers, attention: AttentionKind, trained: Trained, *, on_gpu: bool, offloads: bool = False,
    rows: int = ROWS,
) -> ModelTrace:  # fmt: skip
    """Go through the layers under these conditions."""

    def go(tokens: int, *, backwards: bool) -> Pass:
        return Pass(model, attention, tokens, trained, on_gpu=on_gpu, backwards=backwards, offloads=offloads, rows=rows)

    def growth(sizes: list[int]) -> Growth:
        return _growth(sizes, rows)

    lengths = list(_LENGTHS[1:])
    worked = [go(tokens, backwards=True) for tokens in lengths]
    if not worked[0].is_in_line_with(worked[1]):
        lengths.insert(0, _LENGTHS[0])
        worked.insert(0, go(_LENGTHS[0], backwards=True))
    short = go(_SHORT, backwards=True)
    passes = worked if trained == "all" else [go(tokens, backwards=False) for tokens in lengths]
    kinds = [
        LayerKind(
            count=count,
            weights=sum(parameter.numel() for parameter in model.layers[index].parameters()),
            kept=growth([one.seen[index].kept for one in passes]),
            beyond=growth([one.seen[index].working - one.seen[index].kept for one in worked]),
            least=short.seen[index].working - short.seen[index].kept,
            inputs=tuple(_inputs(passes[-1].seen[index], passes[-1].kept_inputs)),
        )
        for index, count in enumerate([1, *model.counts])
    ]
    longest = passes[-1]
    per_token = 1 / (rows * longest.tokens)
    return ModelTrace(
        around=growth([one.around for one in passes]),
        inside=growth([one.inside for one in worked]),
        passed=growth([one.passed for one in passes]),
        stream=longest.seen[-1].stream * per_token,
        entry=longest.entry * per_token,
        embedded=longest.embedded * per_token,
        answer=longest.answer * per_token,
        first=None if trained == "all" else kinds[0],
        kinds=tuple(kinds[1:]),
    )


def holds_more_of_one_row(model: ExampleLayers, trained: Trained, *, on_gpu: bool) -> bool:
    """Whether a row alone is kept larger than it is among others, as some models do with scores written out."""

    def kept(rows: int) -> list[float]:
        one = Pass(model, "eager", _SHORT, trained, on_gpu=on_gpu, backwards=False, rows=rows)
        return [seen.kept / rows for seen in one.seen]

    return any(alone > among * 1.01 for alone, among in zip(kept(1), kept(ROWS), strict=True))


def _inputs(seen: Seen, kept: Collection[Storage]) -> Iterable[Input]:
    numbers: dict[Storage, int] = {}
    for name, width, element, wants_gradient, storage in seen.inputs:
        tensor = numbers.setdefault(storage, len(numbers))
        yield Input(name, width, element, tensor, storage in kept, wants_gradient)


def _growth(sizes: list[int], rows: int) -> Growth:
    """What goes through the sizes at the longest lengths: a parabola, or a line where they bend the other way."""
    *before, y, z = sizes
    a, b, c = _LENGTHS
    slope = (z - y) / (c - b)
    by_pair = (slope - (y - before[0]) / (b - a)) / (c - a) if before else 0.0
    by_pair = max(0.0, by_pair)
    by_token = slope - by_pair * (b + c)
    return Growth(max(0.0, z - c * (by_token + c * by_pair)), by_token / rows, by_pair / rows)
