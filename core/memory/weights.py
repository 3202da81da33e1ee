"""The weights of a model as the arithmetic of memory needs them: grouped by likeness, from files or an inventory."""

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.models.checkpoint_files import TensorInfo
from core.models.inventory_file import Inventory, InventoryParameter, element_bytes
from core.models.layers import (
    attention_outputs,
    is_embedding,
    is_expert,
    is_linear,
    is_output_head,
    output_features,
    parameter_tensors,
)
from core.models.target_names import is_called, is_router, means_fused, modules_above
from core.models.tower_names import Part, parts_by_name

Targets = Literal["all-linear"] | tuple[str, ...]
"""What `lora_target_modules` holds."""

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Weight:
    """What the weights of one group have in common."""

    shape: tuple[int, ...]
    fixed_dtype: str | None
    float32_in: tuple[str, ...]
    is_parameter: bool
    """Otherwise a buffer, which is never trained."""
    quantizable: bool
    outputs: int
    """Of a linear layer: LLM.int8 keeps a scale for each."""
    all_linear: tuple[int, int] | None
    """Weights of A and B at rank 1 that "all-linear" adds."""
    named: tuple[int, int] | None
    """The same for what is adapted only when a target names it; None for what cannot be."""
    is_fused_experts: bool
    by_weight: bool
    """A linear layer whose name PEFT takes for the fused experts'."""
    is_embedding: bool
    is_head: bool
    adapters_unknown: bool
    """A part of a mixture, as its files hold it: the model's class fuses them in ways that they do not tell."""
    part: Part
    stored: tuple[int, int] | None = None
    """Bytes of the weight and of its constants, where the checkpoint holds it quantized."""

    @property
    def only_by_weight(self) -> bool:
        """Whether PEFT can adapt it by its weight only: it has no layer of its own, or one whose name is taken."""
        return self.by_weight or self.is_fused_experts

    @property
    def elements(self) -> int:
        """Number of elements of one weight."""
        return math.prod(self.shape)

    def element_bytes(self, dtype: str) -> int:
        """Bytes of one element, not quantized, of a model that is loaded in `dtype`."""
        return element_bytes(dtype, self.fixed_dtype, self.float32_in)


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Weights that differ in nothing but their name."""

    weight: Weight
    names: tuple[str, ...]

    def named_by(self, target: str) -> tuple[str, ...]:
        """Those of them that a target names, as peft matches names."""
        # Names of one group differ in their indices alone: one stands for all unless the target has an index too.
        if not any(piece.isdigit() for piece in target.split(".")):
            return self.names if self._is_named(self.names[0], target) else ()
        return tuple(name for name in self.names if self._is_named(name, target))

    def _is_named(self, name: str, target: str) -> bool:
        # Linear layers are targeted by their module, fused experts by the parameter or by what they were fused from.
        return (
            is_called(name.removesuffix(".weight"), target)
            or is_called(name, target)
            or (self.weight.is_fused_experts and means_fused(target, name))
        )


@dataclass(frozen=True)
class ModelWeights:
    """All weights of a model, each storage once."""

    groups: tuple[WeightGroup, ...]
    exact: bool
    """From the model's own modules; otherwise guessed from the names and shapes in its files."""
    tied: tuple[tuple[str, str], ...] = ()
    """(name, the name under which its storage is among the groups) of weights that share another one's storage."""
    stored: str | None = None
    """How the checkpoint is quantized, if it is: "gptq 4-bit"."""

    @functools.cached_property
    def modules(self) -> frozenset[str]:
        """Names of all modules that hold weights, and of those around them."""
        names = [*(name for group in self.groups for name in group.names), *(name for name, _ in self.tied)]
        return frozenset(module for name in names for module in modules_above(name))


def weights_in_files(tensors: tuple[TensorInfo, ...], *, tied_embeddings: bool, vision: bool = False) -> ModelWeights:
    """The weights that the headers of a checkpoint's (unquantized) files tell of.

    With `vision`, the model has a tower for images, which its names tell from the language model.
    """
    parameters = parameter_tensors(tensors, tied_embeddings)
    never_quantized = attention_outputs(parameters)
    part_of = parts_by_name([tensor.name for tensor in parameters])

    def weight(tensor: TensorInfo) -> Weight:
        part = part_of(tensor.name) if vision else "text"
        return weight_in_file(tensor, part, quantizable=tensor.name not in never_quantized)

    groups = grouped((tensor.name, weight(tensor)) for tensor in parameters)
    return ModelWeights(groups, exact=False, tied=tied_in_files(parameters, tied_embeddings))


def tied_in_files(parameters: Iterable[TensorInfo], tied_embeddings: bool) -> tuple[tuple[str, str], ...]:
    """The output head that shares the weight of the embedding, by the names that most models give them."""
    tables = [tensor.name for tensor in parameters if is_embedding(tensor)] if tied_embeddings else []
    return (("lm_head.weight", tables[0]),) if tables else ()


def weight_in_file(
    tensor: TensorInfo, part: Part, *, quantizable: bool = True, stored: tuple[int, int] | None = None
) -> Weight:
    """What the name and the shape of a tensor in a checkpoint tell of it."""
    linear = is_linear(tensor)
    per_rank = (tensor.shape[-1], tensor.shape[0]) if linear or is_embedding(tensor) else None
    return Weight(
        shape=tensor.shape,
        fixed_dtype=None,
        float32_in=(),
        is_parameter=True,
        quantizable=linear and quantizable,
        outputs=output_features(tensor) if linear else 0,
        all_linear=per_rank if linear else None,
        named=per_rank,
        is_fused_experts=False,
        by_weight=False,
        is_embedding=is_embedding(tensor),
        is_head=is_output_head(tensor),
        adapters_unknown=is_expert(tensor),
        part=part,
        stored=stored,
    )


def weights_of(inventory: Inventory) -> ModelWeights:
    """The weights that a model's own modules tell of, its buffers among them."""
    pairs = ((parameter.name, weight_of(parameter)) for parameter in inventory.parameters if parameter.tied_to is None)
    tied = tuple((one.name, one.tied_to) for one in inventory.parameters if one.tied_to is not None)
    return ModelWeights(grouped(pairs), exact=True, tied=tied)


def weight_of(parameter: InventoryParameter) -> Weight:
    """What the model's own modules tell of a parameter."""
    shape = parameter.shape
    # A router is adapted only when it is named; what else all-linear leaves alone, never.
    named = (shape[-1], shape[0]) if parameter.module_class == "Linear" and is_router(parameter.module) else None
    outputs = 0
    if parameter.kind == "linear":
        outputs = shape[1] if parameter.module_class == "Conv1D" else shape[0]
    return Weight(
        shape=shape,
        fixed_dtype=parameter.fixed_dtype,
        float32_in=parameter.float32_in,
        is_parameter=parameter.kind != "buffer",
        quantizable=parameter.quantizable,
        outputs=outputs,
        all_linear=parameter.lora_elements,
        named=parameter.lora_elements or named,
        is_fused_experts=parameter.kind == "experts",
        by_weight=parameter.by_weight,
        is_embedding=parameter.kind == "embedding",
        is_head=parameter.kind == "head",
        adapters_unknown=False,
        part=parameter.part,
    )


def starred(name: str) -> str:
    """A name with a star for each number between its dots: what the layers of a model have in common."""
    return _INDEX.sub("*", name)


def grouped(weights: Iterable[tuple[str, Weight]]) -> tuple[WeightGroup, ...]:
    """Put together, by their names but for indices, what is alike."""
    groups: dict[tuple[str, Weight], list[str]] = {}
    for name, weight in weights:
        groups.setdefault((starred(name), weight), []).append(name)
    return tuple(WeightGroup(weight, tuple(names)) for (_, weight), names in groups.items())
