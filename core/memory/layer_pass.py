"""One layer of each kind of a model with fake tensors, and a pass through them that is watched."""

import contextlib
import copy
import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from core.errors import SftuiError
from core.memory.layer_traces import AttentionKind, Trained
from core.memory.quick_fake import QuickFakeMode
from core.memory.simulated_gpu import AsOnGpu
from core.memory.simulated_memory import MemoryCount, in_8_bit_product
from core.memory.simulated_model import materialize
from core.memory.simulated_offloading import offloading
from core.memory.weights import starred
from core.models.architecture import AutoClass
from core.models.inventory import keep_in_float32
from core.models.target_names import is_router
from core.models.towers import find_towers, within

# With one row, transposed tensors can be looked at without being copied: another case for some models.
ROWS = 2
_RANK = 8


@dataclass(frozen=True, eq=False)
class Storage:
    """A storage, which may be gone."""

    reference: weakref.ref[Any]
    bytes: int

    @property
    def is_alive(self) -> bool:
        return self.reference() is not None


@dataclass
class Seen:
    """What one pass has shown of a layer, in bytes."""

    before: int = 0
    kept: int = 0
    working: int = 0
    stream: int = 0
    """Of what comes out."""
    given: "Storage | None" = None
    """What comes in."""
    inputs: list[tuple[str, float, int, bool, "Storage"]] = field(default_factory=list)


class ExampleLayers:
    """A model of fake tensors with one layer of each kind, and before them the one that is the first."""

    def __init__(self, config: Any, auto_class: AutoClass, dtype: torch.dtype, attention: str, trusted: bool) -> None:
        with torch.device("meta"):
            whole = getattr(transformers, auto_class).from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation=attention, trust_remote_code=trusted
            )
        keep_in_float32(whole, dtype)
        self.dtype = dtype
        self.model = whole
        self.backbone = getattr(whole, whole.base_model_prefix)
        self.names = {module: name for name, module in whole.named_modules()}
        self.layers, self.counts = self._one_of_each()
        whole.train()
        self.mode = QuickFakeMode()
        with self.mode:
            materialize(whole)

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


class Pass(MemoryCount):
    """One pass over rows of so many tokens: forwards, and unless only what is kept is asked for, backwards.

    What adapters add to what is kept is arithmetic, and when it goes again is not: backwards it goes with adapters.
    """

    def __init__(
        self, model: ExampleLayers, attention: AttentionKind, tokens: int, trained: Trained, *, on_gpu: bool,
        backwards: bool, offloads: bool = False, rows: int = ROWS,
    ) -> None:  # fmt: skip
        super().__init__(1, masks_are_plain=attention != "masked", on_gpu=on_gpu)
        self.rows, self.tokens = rows, tokens
        self.seen = [Seen() for _ in model.layers]
        self._current: Seen | None = None
        self._hooks: list[Any] = []
        self._given_beside: set[Storage] = set()
        self._storages: dict[int, Storage] = {}
        for parameter in model.model.parameters():
            # What PEFT puts in an expert's place needs a gradient as much as the expert itself would.
            parameter.requires_grad = trained == "all" or (trained == "adapters on experts" and parameter.ndim == 3)
        self._on_8_bit = trained == "adapters on 8 bit"
        self._on_quantized = self._on_8_bit or trained == "adapters on 4 bit"
        self._with_adapters = backwards and trained != "all"
        self._backwards = backwards
        self._offloading: Any = None
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
            around: AbstractContextManager[Any] = contextlib.nullcontext()
            if offloads:
                around = stack.enter_context(offloading(model.model, self))
                self._offloading = around
            stack.enter_context(self)
            if on_gpu:
                stack.enter_context(AsOnGpu(self.pass_through))
            with around:
                self._go(model)

    def is_in_line_with(self, longer: "Pass") -> bool:
        """Whether every layer keeps as much for each token as in a longer pass, or nearly."""
        ratio = longer.tokens / self.tokens
        pairs = zip(self.seen, longer.seen, strict=True)
        return (
            all(other.kept <= one.kept * ratio * 1.001 for one, other in pairs)
            and longer.around <= self.around * ratio * 1.001
        )

    def _go(self, model: ExampleLayers) -> None:
        self.part = "batch"
        ids = torch.empty((self.rows, self.tokens), dtype=torch.long)
        mask = torch.empty_like(ids)
        self.part = "body"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=model.dtype != torch.float32):
            output = model.backbone(input_ids=ids, attention_mask=mask, use_cache=False)
        hidden = output.last_hidden_state
        del output
        self._arrive()
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

    def _watch(self, model: ExampleLayers) -> None:
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

    def _enter(self, seen: Seen, given: Any) -> None:
        self._current = seen
        hidden = given[0][0] if given[0] else given[1]["hidden_states"]
        seen.given = self._storage_of(hidden)
        beside = (self._storage_of(tensor) for tensor in tree_leaves(given) if isinstance(tensor, torch.Tensor))
        self._given_beside |= {storage for storage in beside if storage is not None and storage != seen.given}
        self._arrive()
        seen.before = self.exact("body")
        self._start()

    def _arrive(self) -> None:
        """Let what is on its way to the host be there, so that each layer has its own only."""
        if self._offloading is not None:
            self._offloading.fwd_stash.clear()
            self._offloading.storage_to_tensor_id.clear()

    def _given(self, name: str, tensor: torch.Tensor) -> None:
        if self._current is not None and (storage := self._storage_of(tensor)) is not None:
            width = tensor.numel() / (self.rows * self.tokens)
            self._current.inputs.append((name, width, tensor.element_size(), tensor.requires_grad, storage))

    def _leave(self, seen: Seen, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self._current = None
        self._arrive()
        seen.stream = hidden.numel() * hidden.element_size()
        # What comes out is the next one's.
        seen.kept = self.exact("body") - seen.before - seen.stream
        seen.working = self._more()
        hidden.register_hook(lambda _gradient: self._turn(seen))

    def _turn(self, seen: Seen) -> None:
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

    def _storage_of(self, tensor: torch.Tensor) -> Storage | None:
        reference, _, part, size = self._blocks[tensor.untyped_storage()._cdata]
        return self._storages.setdefault(id(reference), Storage(reference, size)) if part == "body" else None


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
