"""Goes through one layer of each kind of a model with fake tensors, forwards and backwards, and notes its sizes."""

import contextlib
import copy
import traceback
import weakref
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.masking_utils
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from core.errors import SftuiError
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
from core.memory.quick_fake import QuickFakeMode
from core.memory.simulated_gpu import AsOnGpu, replaced
from core.memory.simulated_memory import MemoryCount, in_8_bit_product
from core.memory.simulated_model import materialize
from core.memory.weights import starred
from core.models.architecture import AutoClass
from core.models.inventory import float32_names, trusts_own_code
from core.models.target_names import is_router
from core.models.towers import find_towers, within

# Multiples of what linear attention works through at a time; far enough apart to tell pairs from tokens.
_LENGTHS = (768, 1536, 3072)
# With one row, transposed tensors can be looked at without being copied: a rarer case.
_ROWS = 2
_RANK = 8
_DTYPES = {16: torch.bfloat16, 32: torch.float32}
_ATTENTIONS: dict[str, tuple[AttentionKind, ...]] = {"eager": ("eager",), "sdpa": ("fused", "masked")}


def trace_layers(folder: Path, auto_class: AutoClass, *, on_gpu: bool) -> LayerTraces:
    """What the layers of the model in `folder` hold on this kind of device, kept on disk as well; seconds.

    What the model's code does not do with fake tensors, or not in an implementation of attention, is left out.
    """
    trusted = trusts_own_code(folder)
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trusted, local_files_only=True)
    for part in (config, config.get_text_config()):
        part.__dict__.pop("quantization_config", None)
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
                    model = _Layers(config, auto_class, _DTYPES[bits], implementation, trusted)
                    for attention in attentions:
                        for trained in _kinds_of_training(model, bits, on_gpu=on_gpu):
                            name = condition(attention, trained, bits=bits, on_gpu=on_gpu)
                            found[name] = _trace(model, attention, trained, on_gpu=on_gpu)
    return LayerTraces(found, frozenset({"gpu" if on_gpu else "cpu"}))


@contextlib.contextmanager
def _other_attention_may_do() -> Iterator[None]:
    """Go on after what a model's code does not do with fake tensors, or with this implementation of attention."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the code of a model may raise anything
        traceback.print_exception(error)


def _kinds_of_training(model: "_Layers", bits: int, *, on_gpu: bool) -> Iterator[Trained]:
    yield "all"
    yield "adapters"
    if bits == 16:
        yield "adapters on 4 bit"
    if on_gpu:
        yield "adapters on 8 bit"
    if any(parameter.ndim == 3 for parameter in model.model.parameters()):
        yield "adapters on experts"


@dataclass(frozen=True, eq=False)
class _Storage:
    """A storage, which may be gone."""

    reference: weakref.ref[Any]
    bytes: int

    @property
    def is_alive(self) -> bool:
        return self.reference() is not None


@dataclass
class _Seen:
    """What one pass has shown of a layer, in bytes."""

    before: int = 0
    kept: int = 0
    working: int = 0
    stream: int = 0
    """Of what comes out."""
    given: "_Storage | None" = None
    """What comes in."""
    inputs: list[tuple[str, float, int, bool, "_Storage"]] = field(default_factory=list)


class _Layers:
    """A model of fake tensors with one layer of each kind, and before them the one that is the first."""

    def __init__(self, config: Any, auto_class: AutoClass, dtype: torch.dtype, attention: str, trusted: bool) -> None:
        with torch.device("meta"):
            whole = getattr(transformers, auto_class).from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation=attention, trust_remote_code=trusted
            )
        kept_in_float32 = float32_names(whole, dtype, whole.state_dict().keys())
        for name, parameter in whole.named_parameters():
            if name in kept_in_float32:
                parameter.data = parameter.data.float()
        self.dtype = dtype
        self.model = whole
        self.backbone = getattr(whole, whole.base_model_prefix)
        self.names = {module: name for name, module in whole.named_modules()}
        self.layers, self.counts = self._one_of_each()
        whole.train()
        self.mode = QuickFakeMode()
        with self.mode:
            materialize(whole, double_quant=False)

    def _one_of_each(self) -> tuple[list[nn.Module], list[int]]:
        """The layers that are left, and of how many those after the first are examples."""
        owner, attribute, layers = _decoder(self.model)
        text = self.model.config.get_text_config()
        types = getattr(text, "layer_types", None)
        if not isinstance(types, list) or len(types) != len(layers):
            types = None
        kinds: dict[Any, list[int]] = {}
        for index, layer in enumerate(layers):
            kinds.setdefault((types[index] if types else "", _likeness(layer)), []).append(index)
        # The last of each kind, so that the first one is not also its own example.
        examples = [indices[-1] for indices in kinds.values()]
        kept = [layers[0], *(layers[index] for index in examples)]
        if examples[0] == 0:
            kept[1] = copy.deepcopy(layers[0])
            for new, old in zip(kept[1].modules(), layers[0].modules(), strict=True):
                self.names[new] = self.names[old]
        setattr(owner, attribute, nn.ModuleList(kept))
        if types:
            text.layer_types = [types[index] for index in (0, *examples)]
        text.num_hidden_layers = len(kept)
        return kept, [len(indices) for indices in kinds.values()]


class _Pass(MemoryCount):
    """One pass over two rows of so many tokens: forwards, and unless only what is kept is asked for, backwards.

    What adapters add to what is kept is arithmetic, and when it goes again is not: backwards it goes with adapters.
    """

    def __init__(
        self, model: _Layers, attention: AttentionKind, tokens: int, trained: Trained, *, on_gpu: bool, backwards: bool
    ) -> None:
        super().__init__(1, masks_are_plain=attention != "masked", on_gpu=on_gpu)
        self.tokens = tokens
        self.seen = [_Seen() for _ in model.layers]
        self._current: _Seen | None = None
        self._hooks: list[Any] = []
        self._given_beside: set[_Storage] = set()
        self._storages: dict[int, _Storage] = {}
        for parameter in model.model.parameters():
            # What PEFT puts in an expert's place needs a gradient as much as the expert itself would.
            parameter.requires_grad = trained == "all" or (trained == "adapters on experts" and parameter.ndim == 3)
        self._on_8_bit = trained == "adapters on 8 bit"
        self._on_quantized = self._on_8_bit or trained == "adapters on 4 bit"
        self._with_adapters = backwards and trained != "all"
        self._backwards = backwards
        self.inside = 0
        self._adapters: dict[nn.Module, tuple[nn.Parameter, nn.Parameter]] = {}
        with model.mode:
            self._trained = nn.Parameter(torch.empty((), dtype=model.dtype))
        with contextlib.ExitStack() as stack:
            stack.callback(self._unhook)
            stack.enter_context(model.mode)
            for tensor in (*model.model.parameters(), *model.model.buffers()):
                self.take(tensor)
            self._watch(model)
            stack.enter_context(self)
            if on_gpu:
                stack.enter_context(AsOnGpu(self.pass_through))
            self._go(model)

    def is_in_line_with(self, longer: "_Pass") -> bool:
        """Whether every layer keeps as much for each token as in a longer pass, or nearly."""
        ratio = longer.tokens / self.tokens
        pairs = zip(self.seen, longer.seen, strict=True)
        return (
            all(other.kept <= one.kept * ratio * 1.001 for one, other in pairs)
            and longer.around <= self.around * ratio * 1.001
        )

    def _go(self, model: _Layers) -> None:
        self.part = "batch"
        ids = torch.empty((_ROWS, self.tokens), dtype=torch.long)
        mask = torch.empty_like(ids)
        self.part = "body"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype != torch.float32):
            output = model.backbone(input_ids=ids, attention_mask=mask, use_cache=False)
        hidden = output.last_hidden_state
        del output
        self.answer = hidden.numel() * hidden.element_size()
        for seen in self.seen:
            # What came in was there before: it is kept by this layer if by any.
            seen.kept += seen.given.bytes if seen.given is not None and seen.given.is_alive else 0
        first = self.seen[0].given
        self.entry = 0 if first is None else first.bytes
        self.embedded = 0 if self._embedding in (None, first) else self._embedding.bytes
        self.around = self.exact("body") - self.answer - sum(seen.kept for seen in self.seen)
        self.kept_inputs = {one for seen in self.seen for *_, one in seen.inputs if one.is_alive}
        self.passed = sum(storage.bytes for storage in self._given_beside if not storage.is_alive)
        if self._backwards:
            hidden.backward(torch.empty_like(hidden))

    def _watch(self, model: _Layers) -> None:
        for seen, layer in zip(self.seen, model.layers, strict=True):
            self._hooks += [
                layer.register_forward_pre_hook(
                    lambda _m, a, k, seen=seen: self._enter(seen, (a, k)), with_kwargs=True
                ),
                layer.register_forward_hook(lambda _m, _a, output, seen=seen: self._leave(seen, output)),
            ]
            for module in layer.modules():
                if isinstance(module, nn.Linear | Conv1D):
                    name = starred(f"{model.names[module]}.weight")
                    self._hooks += [
                        module.register_forward_pre_hook(lambda _m, a, name=name: self._given(name, a[0])),
                        module.register_forward_hook(self._answer),
                    ]
                    if self._with_adapters and not is_router(name):
                        self._adapters[module] = self._adapter(module)
        self._hooks.append(model.model.get_input_embeddings().register_forward_hook(self._embed))
        for parameter in model.model.parameters():
            if parameter.requires_grad:
                self._hooks.append(parameter.register_post_accumulate_grad_hook(_forget))

    def _adapter(self, module: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
        outputs, inputs = module.weight.shape if isinstance(module, nn.Linear) else module.weight.shape[::-1]
        # TRL makes adapters of quantized layers bfloat16.
        dtype = module.weight.dtype if self._on_quantized else torch.float32
        matrices = (
            nn.Parameter(torch.empty((_RANK, inputs), dtype=dtype)),
            nn.Parameter(torch.empty((outputs, _RANK), dtype=dtype)),
        )
        for matrix in matrices:
            self.take(matrix)
            self._hooks.append(matrix.register_post_accumulate_grad_hook(_forget))
        return matrices

    def _answer(self, module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """What a linear layer answers in the run, with its adapter where there is one."""
        if self._on_quantized:
            # It answers in the type of what it is given, and unpacks its weight: in 8 bits only to go backwards.
            output = output.to(given[0].dtype)
            weight = module.weight.numel() * module.weight.element_size()
            self.pass_through(*(in_8_bit_product(given[0], output) if self._on_8_bit else (weight,)))
            if output.requires_grad:
                size = given[0].numel() * module.weight.element_size()
                output.register_hook(lambda _gradient: self.pass_through(weight, size))
        if module in self._adapters:
            first, second = self._adapters[module]
            added = functional.linear(functional.linear(given[0].to(first.dtype), first), second)
            return (output + added * 2.0).to(output.dtype)
        # An adapter of the first layer makes gradients flow from there. The output itself, made to need one, would
        # be kept for its own sake.
        return output if output.requires_grad else output + self._trained

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _embed(self, _module: nn.Module, _given: Any, output: torch.Tensor) -> None:
        self._embedding = self._storage_of(output)

    def _enter(self, seen: _Seen, given: Any) -> None:
        self._current = seen
        hidden = given[0][0] if given[0] else given[1]["hidden_states"]
        seen.given = self._storage_of(hidden)
        beside = (self._storage_of(tensor) for tensor in tree_leaves(given) if isinstance(tensor, torch.Tensor))
        self._given_beside |= {storage for storage in beside if storage is not None and storage != seen.given}
        seen.before = self.exact("body")
        self._start()

    def _given(self, name: str, tensor: torch.Tensor) -> None:
        if self._current is not None and (storage := self._storage_of(tensor)) is not None:
            width = tensor.numel() / (_ROWS * self.tokens)
            self._current.inputs.append((name, width, tensor.element_size(), tensor.requires_grad, storage))

    def _leave(self, seen: _Seen, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self._current = None
        seen.stream = hidden.numel() * hidden.element_size()
        # What comes out is the next one's.
        seen.kept = self.exact("body") - seen.before - seen.stream
        seen.working = self._more()
        hidden.register_hook(lambda _gradient: self._turn(seen))

    def _turn(self, seen: _Seen) -> None:
        """The gradient of a layer's output is there: the one after it is done, and it begins."""
        if self._current is None:
            # The last norm has gone; the answer and its gradient are held by whoever asked for them.
            kept = sum(one.kept for one in self.seen)
            self.inside = self.exact("body") - kept - 2 * self.answer - seen.stream
        self._finish()
        self._current = seen
        self._start()

    def _finish(self) -> None:
        if self._current is not None:
            held = self._current.kept + self._more()
            self._current.working = max(self._current.working, held) + self._current.stream

    def _start(self) -> None:
        self._base = self.allocator.allocated_peak = self.allocator.allocated

    def _more(self) -> int:
        return self.allocator.allocated_peak - self._base

    def _storage_of(self, tensor: torch.Tensor) -> _Storage | None:
        reference, _, part, size = self._blocks[tensor.untyped_storage()._cdata]
        return self._storages.setdefault(id(reference), _Storage(reference, size)) if part == "body" else None


def _trace(model: _Layers, attention: AttentionKind, trained: Trained, *, on_gpu: bool) -> ModelTrace:
    def go(tokens: int, *, backwards: bool) -> _Pass:
        return _Pass(model, attention, tokens, trained, on_gpu=on_gpu, backwards=backwards)

    lengths = list(_LENGTHS[1:])
    worked = [go(tokens, backwards=True) for tokens in lengths]
    if not worked[0].is_in_line_with(worked[1]):
        lengths.insert(0, _LENGTHS[0])
        worked.insert(0, go(_LENGTHS[0], backwards=True))
    passes = worked if trained == "all" else [go(tokens, backwards=False) for tokens in lengths]
    kinds = [
        LayerKind(
            count=count,
            weights=sum(parameter.numel() for parameter in model.layers[index].parameters()),
            kept=_growth([one.seen[index].kept for one in passes]),
            beyond=_growth([one.seen[index].working - one.seen[index].kept for one in worked]),
            inputs=tuple(_inputs(passes[-1].seen[index], passes[-1].kept_inputs)),
        )
        for index, count in enumerate([1, *model.counts])
    ]
    longest = passes[-1]
    per_token = 1 / (_ROWS * longest.tokens)
    return ModelTrace(
        around=_growth([one.around for one in passes]),
        inside=_growth([one.inside for one in worked]),
        passed=_growth([one.passed for one in passes]),
        stream=longest.seen[-1].stream * per_token,
        entry=longest.entry * per_token,
        embedded=longest.embedded * per_token,
        answer=longest.answer * per_token,
        first=None if trained == "all" else kinds[0],
        kinds=tuple(kinds[1:]),
    )


def _inputs(seen: _Seen, kept: Collection[_Storage]) -> Iterable[Input]:
    numbers: dict[_Storage, int] = {}
    for name, width, element, wants_gradient, storage in seen.inputs:
        tensor = numbers.setdefault(storage, len(numbers))
        yield Input(name, width, element, tensor, storage in kept, wants_gradient)


def _growth(sizes: list[int]) -> Growth:
    """What goes through the sizes at the longest lengths: a parabola, or a line where they bend the other way."""
    *before, y, z = sizes
    a, b, c = _LENGTHS
    slope = (z - y) / (c - b)
    by_pair = (slope - (y - before[0]) / (b - a)) / (c - a) if before else 0.0
    by_pair = max(0.0, by_pair)
    by_token = slope - by_pair * (b + c)
    return Growth(max(0.0, z - c * (by_token + c * by_pair)), by_token / _ROWS, by_pair / _ROWS)


def _decoder(model: Any) -> tuple[nn.Module, str, list[nn.Module]]:
    """The list of the language model's layers: what holds it, by what name, and the layers."""
    towers = find_towers(model)
    found = [
        (owner, name, list(child))
        for path, owner in model.named_modules()
        if not within(path, towers.vision | towers.audio)
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList)
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in child)
        and len(child)
    ]
    text = model.config.get_text_config().num_hidden_layers
    for one in found:
        if len(one[2]) == text:
            return one
    raise SftuiError("No layers", f"{type(model).__name__} has no list of layers to trace.", "")


def _likeness(layer: nn.Module) -> tuple[Any, ...]:
    classes = tuple(type(module).__name__ for module in layer.modules())
    return classes, tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters())


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None
