"""The tensors that adapters add to a model: LoRA matrices, and copies of modules that are trained whole."""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from core.memory.optimizer_state import Trained
from core.memory.weights import ModelWeights, Targets, Weight, WeightGroup
from core.models.adapter_files import StartAdapter, layer_of
from core.models.target_names import is_called, modules_above
from core.models.tower_names import Part

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Adapted:
    """Weights of one group that get an adapter."""

    weight: Weight
    names: Collection[str]
    per_rank: tuple[int, int]
    """Weights of A and B at rank 1, for each name."""
    by_weight: bool
    """Whether PEFT adapts the weight itself, and not the layer that it is in."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What PEFT keeps beside the modules that it trains whole."""

    trained: tuple[Trained, ...]
    buffer_bytes: int
    """Of their buffers, which are copied too."""

    @property
    def total_bytes(self) -> int:
        """Of weights and buffers."""
        return sum(one.total_bytes for one in self.trained) + self.buffer_bytes


def targeted(
    weights: ModelWeights,
    targets: Targets,
    parameters: Collection[str] | None,
    *,
    one_by_one: bool,
    train_vision: bool,
    whole: Collection[str] = (),
) -> list[Adapted] | None:
    """Return what is adapted; None when that is not known.

    Without `one_by_one`, what PEFT can adapt by its weight only (fused experts, and layers whose names it takes for
    them) is left out. Modules named in `whole` are trained themselves, and get no adapter.
    """
    parts = parts_trained(train_vision=train_vision)
    groups = [left for group in weights.groups if group.weight.part in parts and (left := _without(group, whole)).names]
    found: dict[int, Adapted] = {}
    if targets == "all-linear":
        if any(group.weight.adapters_unknown for group in groups):
            return None
        for index, group in enumerate(groups):
            weight = group.weight
            left_out = weight.only_by_weight and not one_by_one
            left_out |= weight.is_fused_experts and parameters is not None
            if weight.all_linear is not None and not left_out:
                found[index] = Adapted(weight, group.names, weight.all_linear, weight.only_by_weight)
    for target in () if targets == "all-linear" else targets:
        called = [(index, group, names) for index, group in enumerate(groups) if (names := group.named_by(target))]
        if any(group.weight.adapters_unknown for _, group, _ in called):
            return None
        # What all-linear leaves alone is adapted when a name can mean nothing else.
        usual = [one for one in called if one[1].weight.all_linear is not None]
        for index, group, names in usual or called:
            weight = group.weight
            if weight.named is not None and (one_by_one or not weight.only_by_weight):
                before = found[index].names if index in found else ()
                every = len(names) == len(group.names) or not before
                joined = names if every else tuple({*before, *names})
                found[index] = Adapted(weight, joined, weight.named, weight.only_by_weight)
    for target in parameters or ():
        for index, group in enumerate(groups):
            names = tuple(name for name in group.names if is_called(name, target))
            shape = group.weight.shape
            if names and len(shape) in (2, 3):
                # Each fused expert gets a rank of its own.
                experts = shape[0] if len(shape) == 3 else 1
                found[index] = Adapted(group.weight, names, (experts * shape[-1], experts * shape[-2]), True)
    return list(found.values())


def cast_bytes(weights: ModelWeights, dtype: str, *, quantized: bool) -> int | None:
    """Bytes of an element of what is trained beside the base, where TRL or we cast it; None where nobody does.

    `quantized` is whether bitsandbytes quantizes the weights as they are loaded.
    """
    if dtype == "float16":
        # Its scaler needs float32.
        return _FLOAT32
    # TRL casts what is trained on a base that bitsandbytes has quantized to bfloat16.
    return 2 if quantized or (weights.stored or "").startswith("bitsandbytes") else None


def parts_trained(*, train_vision: bool) -> tuple[Part, ...]:
    """The parts of a model that are not frozen."""
    return ("text", "vision", "projector") if train_vision else ("text",)


def lora_matrices(adapted: list[Adapted], rank: int, element_bytes: int, *, dora: bool) -> list[Trained]:
    """Return A and B for each target, and DoRA's magnitudes, which stay in float32."""
    found = []
    for one in adapted:
        count = len(one.names)
        found += [Trained(count, rank * side, element_bytes) for side in one.per_rank]
        if dora:
            found.append(Trained(count, one.per_rank[1], _FLOAT32))
    return found


def adapted_at_start(weights: ModelWeights, start: StartAdapter) -> list[Adapted] | None:
    """Return what an adapter to start from adapts; None where its names are not those of the weights."""
    layers = {f"{layer_of(key)}.weight" for key in start.shapes if ".lora_A." in key}
    found = []
    for group in weights.groups:
        names = tuple(name for name in group.names if name in layers)
        if names and group.weight.named is not None:
            found.append(Adapted(group.weight, names, group.weight.named, group.weight.only_by_weight))
    return found if sum(len(one.names) for one in found) == len(layers) else None


def stored_matrices(start: StartAdapter, element_bytes: int) -> list[Trained]:
    """Return what an adapter's file holds beside the modules that are trained whole."""
    return [
        Trained(1, math.prod(shape), _FLOAT32 if "lora_magnitude_vector" in name else element_bytes)
        for name, shape in start.shapes.items()
        if ".lora_" in name
    ]


def trained_biases(
    weights: ModelWeights, start: StartAdapter, dtype: str, trained_bytes: int | None
) -> tuple[list[Trained], int]:
    """Return the base's own biases that an adapter trains, and the bytes that they take more for being trained.

    Those are not in memory twice, but the trainer may turn them into a type of `trained_bytes`.
    """
    own = {name: group.weight for group in weights.groups for name in group.names if "bias" in name}
    found, more = [], 0
    for key, shape in start.shapes.items():
        name = layer_of(key)
        if name not in own or ".lora_" in key or is_within(name, start.modules_to_save):
            continue
        before, elements = own[name].element_bytes(dtype), math.prod(shape)
        found.append(Trained(1, elements, trained_bytes or before))
        more += elements * (found[-1].element_bytes - before)
    return found, more


def copies(
    weights: ModelWeights, whole: Collection[str], dtype: str, trained_bytes: int | None, *, keeps_tied: bool
) -> Copies:
    """Return what PEFT copies for modules trained whole: those whose full names end in one of `whole`.

    The copies are in the dtype of the originals unless the trainer turns them into one of `trained_bytes`. With
    `keeps_tied`, a weight that two of the modules share is copied once.
    """
    if not whole:
        return Copies((), 0)
    found, buffers = [], 0
    for group, count in _copied(weights, tuple(whole), keeps_tied=keeps_tied):
        weight = group.weight
        if weight.is_parameter:
            size = trained_bytes or weight.element_bytes(dtype)
            found.append(Trained(count, weight.elements, size, weight.is_embedding))
        else:
            buffers += count * weight.elements * weight.element_bytes(dtype)
    return Copies(tuple(found), buffers)


def _copied(weights: ModelWeights, whole: tuple[str, ...], *, keeps_tied: bool) -> Iterator[tuple[WeightGroup, int]]:
    # A name for the output head means the module whose weight it shares.
    owners = {first.rpartition(".")[0] for other, first in weights.tied if is_within(other, whole)}
    for group in weights.groups:
        own = sum(is_within(name, whole) for name in group.names)
        if keeps_tied:
            own = sum(is_within(name, whole) or name.rpartition(".")[0] in owners for name in group.names)
        else:
            own += sum(first in group.names and is_within(other, whole) for other, first in weights.tied)
        if own:
            yield group, own


def is_within(name: str, whole: Collection[str]) -> bool:
    """Whether PEFT copies this weight or buffer for one of the modules named in `whole`."""
    return any(module.endswith(tuple(whole)) for module in modules_above(name))


def _without(group: WeightGroup, whole: Collection[str]) -> WeightGroup:
    if not whole:
        return group
    # As PEFT excludes them; what it copies it finds by another rule.
    named = re.compile("|".join(rf"(.*\.)?{re.escape(name)}(\..*)?" for name in whole))
    names = tuple(name for name in group.names if not named.fullmatch(name.rpartition(".")[0]))
    return replace(group, names=names)
