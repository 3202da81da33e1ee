"""The tensors that adapters add to a model: LoRA matrices, and copies of modules that are trained whole."""

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from core.memory.optimizer_state import Trained
from core.memory.weights import ModelWeights, Targets, WeightGroup, is_called, modules_above
from core.models.adapter_files import StartAdapter

_FLOAT32 = 4


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
    groups: list[WeightGroup],
    targets: Targets,
    parameters: tuple[str, ...] | None,
    *,
    fused_experts: bool,
    whole: Collection[str] = (),
) -> list[tuple[int, tuple[int, int]]] | None:
    """Return (how many, weights of A and B at rank 1) of what is adapted; None when that is not known.

    Modules named in `whole` are trained themselves, and get no adapter.
    """
    groups = [left for group in groups if (left := _without(group, whole)).names]
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


def adapts_fused_experts(
    weights: ModelWeights, targets: Targets, parameters: Collection[str] | None, *, fused_experts: bool
) -> bool:
    """Whether a part of the adapters lies on weights that are no module of their own."""
    if parameters:
        return True
    experts = [group for group in weights.groups if group.weight.is_fused_experts and group.weight.part == "text"]
    if targets == "all-linear":
        return fused_experts and parameters is None and bool(experts)
    return any(group.named_by(target) for group in experts for target in targets)


def lora_matrices(
    adapted: list[tuple[int, tuple[int, int]]], rank: int, element_bytes: int, *, dora: bool
) -> list[Trained]:
    """Return A and B for each target, and DoRA's magnitudes, which stay in float32."""
    found = []
    for count, per_rank in adapted:
        found += [Trained(count, rank * side, element_bytes) for side in per_rank]
        if dora:
            found.append(Trained(count, per_rank[1], _FLOAT32))
    return found


def stored_matrices(start: StartAdapter, element_bytes: int) -> list[Trained]:
    """Return what an adapter's file holds beside the modules that are trained whole."""
    return [
        Trained(1, math.prod(shape), _FLOAT32 if "lora_magnitude_vector" in name else element_bytes)
        for name, shape in start.shapes.items()
        if ".lora_" in name
    ]


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
