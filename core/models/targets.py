"""Which weights of a loaded model get an adapter, and why.

`all-linear` means here: the linear layers of attention and feed-forward blocks of the language model, and the fused
experts of a mixture. Left alone are the output head, routers (small, and what they were balanced on is not in the
rows), vision and audio towers with their projectors, and layers through which no gradient comes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from peft.utils.transformers_weight_conversion import (
    _MODEL_TO_CONVERSION_PATTERN,
    _MOE_TARGET_MODULE_MAPPING,
    get_checkpoint_conversion_mapping,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.errors import SftuiError
from core.models.layers import refused_by_peft
from core.models.target_names import instead_of, is_called, is_router, means_fused, why_not_by_weight
from core.models.towers import find_towers, output_head, within
from core.spec.run_spec import RunSpec

# The choice of what a sparse attention looks at is made without a gradient, and so is BLT's cutting into patches.
_WITHOUT_GRADIENT = re.compile(r"(^|\.)(indexer|patcher|generation_aligner)(\.|$)")
# Fused kernels of Mamba layers, and of Bamba's and Jamba's, read these weights themselves, past any adapter.
_READ_BY_KERNELS = frozenset({"out_proj", "x_proj", "dt_proj"})
# What a product of two matrices can be added to.
_FULL_PRECISION = frozenset({torch.float32, torch.bfloat16, torch.float16})


@dataclass(frozen=True, slots=True)
class Targets:
    """What is adapted: full names, as `named_modules` and `named_parameters` give them."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    """Weights that PEFT takes one by one: fused experts, and layers whose names it would take for experts."""
    match: str | tuple[str, ...]
    """The modules as PEFT takes them: last parts of names, a regular expression, or full names; matches no other."""
    match_parameters: tuple[str, ...]
    reason: str


def choose_targets(model: Any, spec: RunSpec) -> Targets:
    """What gets an adapter under this spec; works on the meta device too.

    Raises SftuiError for a name that the model does not have, or that cannot be adapted, with what there is instead.
    """
    able, notes = _adaptable(model, spec)
    experts = _fused_experts(model, spec)
    wanted = spec.lora_target_modules
    parameters: list[str] = []
    if wanted == "all-linear":
        modules = able
        if spec.lora_target_parameters is None:
            parameters, note = _all_experts(experts, spec)
            notes += note
    else:
        modules, parameters = _named(model, wanted, able, experts)
        _refuse_unfit(parameters, spec)
    if spec.lora_target_parameters:
        parameters = sorted({*parameters, *_named_parameters(model, spec.lora_target_parameters, modules)})
        _refuse_unfit(parameters, spec)
    modules, through_weights, note = _around_claimed(model, modules, spec)
    notes += note
    # PEFT leaves out the modules that are trained whole by itself, but not the weights in them.
    saved = spec.lora_modules_to_save or []
    whole = {name for name, _ in model.named_modules() if any(is_called(name, one) for one in saved)}
    through_weights = [name for name in through_weights if not within(name, whole)]
    parameters = [name for name in parameters if not within(name.rpartition(".")[0], whole)]
    layers = [*modules, *through_weights]
    if not layers and not parameters:
        why = "; ".join(["The model has no layer that LoRA can adapt", *notes])
        raise SftuiError("No module to adapt", f"{why}.", "Train every weight.")
    kinds = sorted({name.rsplit(".", 1)[-1] for name in layers})
    said = f"{len(layers)} layers" + (f" ({', '.join(kinds)})" if len(kinds) <= 12 else "")
    said += f" and {len(parameters)} weights of fused experts" if parameters else ""
    parameters = [*parameters, *(f"{name}.weight" for name in through_weights)]
    return Targets(
        tuple(modules),
        tuple(parameters),
        _match(model, modules),
        _short_parameters(model, parameters),
        "; ".join([said, *notes]),
    )


def _adaptable(model: Any, spec: RunSpec) -> tuple[list[str], list[str]]:
    """The linear layers that all-linear means, and what is said about those it does not."""
    towers, head = find_towers(model), output_head(model)
    refused = refused_by_peft(model.config.model_type)
    frozen = towers.audio if spec.sftui.train_vision else towers.audio | towers.vision
    kernels, found, kept = _read_by_kernels(model), [], set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or within(name, head):
            continue
        if name in frozen:
            kept.add("vision tower and projector" if name in towers.vision else "audio tower")
        elif name.rsplit(".", 1)[-1] in refused or name in kernels:
            kept.add("layers that Mamba's kernels read past an adapter")
        elif is_router(name):
            kept.add("routers")
        elif not _WITHOUT_GRADIENT.search(name) and not _computes_otherwise(model, name, module):
            found.append(name)
    return found, [f"left as they are: {', '.join(sorted(kept))}"] if kept else []


def _read_by_kernels(model: Any) -> set[str]:
    return {
        f"{name}.{child}"
        for name, module in model.named_modules()
        if "amba" in type(module).__name__ and "conv1d" in dict(module.named_children())
        for child, _ in module.named_children()
        if child in _READ_BY_KERNELS
    }


def _computes_otherwise(model: Any, name: str, module: nn.Module) -> bool:
    # DeepSeek V4 multiplies group by group; torch's attention takes the weight of its out_proj itself.
    parent = model.get_submodule(name.rpartition(".")[0])
    return "Grouped" in type(module).__name__ or isinstance(parent, nn.MultiheadAttention)


def _fused_experts(model: Any, spec: RunSpec) -> list[str]:
    towers = find_towers(model)
    frozen = towers.audio if spec.sftui.train_vision else towers.audio | towers.vision
    return [
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if "Expert" in type(module).__name__ and name not in frozen
        for parameter, value in module.named_parameters(recurse=False)
        # DBRX stacks its experts into two dimensions.
        if value.ndim >= 2 and value.dtype.is_floating_point and not parameter.endswith("bias")
    ]


def _all_experts(experts: list[str], spec: RunSpec) -> tuple[list[str], list[str]]:
    why = why_not_by_weight(spec)
    if experts and why:
        return [], [f"fused experts are left as they are, since {why}"]
    return experts, []


def _refuse_unfit(parameters: Sequence[str], spec: RunSpec) -> None:
    why = why_not_by_weight(spec)
    if parameters and why:
        raise SftuiError("Fused experts cannot be adapted so", f"{parameters[0]} is named, but {why}.", "Leave it out.")


def _named(
    model: Any, wanted: Sequence[str], able: Sequence[str], experts: Sequence[str]
) -> tuple[list[str], list[str]]:
    modules: dict[str, None] = {}
    parameters: dict[str, None] = {}
    head = output_head(model)
    there = dict(model.named_modules())
    for name in wanted:
        fitting = [other for other in able if is_called(other, name)]
        # A router is left alone unless it is named.
        fitting = fitting or [
            other
            for other, module in there.items()
            if isinstance(module, nn.Linear) and is_called(other, name) and is_router(other)
        ]
        fused = [other for other in experts if is_called(other, name) or means_fused(name, other)]
        if fitting or fused:
            modules |= dict.fromkeys(fitting)
            # `down_proj` of a dense layer and of the experts are both meant.
            parameters |= dict.fromkeys(fused)
            continue
        same = [other for other in there if is_called(other, name)]
        if same and all(within(other, head) for other in same):
            message = f"{name} belongs to the output head, which TRL's fused loss computes past any adapter."
            raise SftuiError("The output head gets no adapter", message, "Train it whole: lora_modules_to_save.")
        if same:
            message = f"{name} is in the model, but no layer that an adapter can be put on here."
        else:
            message = f"lora_target_modules names {name}, and the model has no such module."
        raise SftuiError("No module to adapt", message, f"{instead_of(name, able)} all-linear takes them all.")
    return list(modules), list(parameters)


def _named_parameters(model: Any, wanted: Sequence[str], modules: Sequence[str]) -> list[str]:
    there = [
        name
        for name, value in model.named_parameters()
        if value.ndim in (2, 3) and value.dtype.is_floating_point and not isinstance(value, Params4bit)
    ]
    found: list[str] = []
    for name in wanted:
        fitting = [other for other in there if is_called(other, name)]
        if not fitting:
            raise SftuiError(
                "No weight to adapt",
                f"lora_target_parameters names {name}, and the model has no such matrix in full precision.",
                instead_of(name, there, parts=2),
            )
        twice = [other for other in fitting if other.rpartition(".")[0] in modules]
        if twice:
            message = f"lora_target_parameters names {name}, whose layer gets an adapter as a whole already."
            raise SftuiError("A weight would be adapted twice", message, "Leave it out of one of the two lists.")
        found += fitting
    return found


def claimed_by_peft(model_type: str) -> Mapping[str, str]:
    """Last names that PEFT takes for fused experts on this type, whichever module bears them.

    It rewrites such target modules, as full names and patterns too, so that adapters made with older transformers load.
    """
    if get_checkpoint_conversion_mapping(model_type) is None:
        return {}
    pattern = _MODEL_TO_CONVERSION_PATTERN.get(model_type)
    found: Mapping[str, str] = _MOE_TARGET_MODULE_MAPPING.get(pattern, {})
    return found


def _around_claimed(model: Any, modules: Sequence[str], spec: RunSpec) -> tuple[list[str], list[str], list[str]]:
    """The modules that PEFT adapts by their names, those that it adapts by their weights' names, and what is said.

    Target parameters are not rewritten. A layer that is adapted by its weight has the same matrices in the same places,
    and where bitsandbytes has quantized it, PEFT makes an ordinary adapter of it.
    """
    claimed = claimed_by_peft(model.config.model_type)
    by_name = [name for name in modules if name.rsplit(".", 1)[-1] not in claimed]
    others = sorted(set(modules) - set(by_name))
    why = why_not_by_weight(spec)
    by_weight = [] if why else [name for name in others if _has_plain_weight(model.get_submodule(name))]
    lost = _ends(set(others) - set(by_weight))
    notes = [f"{_ends(by_weight)} by their weights, since PEFT takes these names for the experts"] if by_weight else []
    if lost:
        why = why or "these hold no weight that it can adapt otherwise"
        notes.append(f"{lost} left out: PEFT takes these names for the experts, and {why}")
    return by_name, by_weight, notes


def _has_plain_weight(layer: nn.Module) -> bool:
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    return weight is not None and (isinstance(weight, Params4bit | Int8Params) or weight.dtype in _FULL_PRECISION)


def _ends(names: Collection[str]) -> str:
    parts = ([part for part in name.split(".") if not part.isdigit()] for name in names)
    return ", ".join(sorted({".".join(one[-2:]) for one in parts}))


def _match(model: Any, modules: Sequence[str]) -> str | tuple[str, ...]:
    names = [name for name, _ in model.named_modules()]
    targets = set(modules)
    leaves = tuple(sorted({name.rsplit(".", 1)[-1] for name in modules}))
    if {name for name in names if name.rsplit(".", 1)[-1] in leaves} == targets:
        return leaves
    # There PEFT takes a regular expression apart into last names.
    if not claimed_by_peft(model.config.model_type):
        shapes = dict.fromkeys(re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in modules)
        pattern = "|".join(shapes)
        if {name for name in names if re.fullmatch(pattern, name)} == targets:
            return pattern
    return tuple(modules)


def _short_parameters(model: Any, parameters: Sequence[str]) -> tuple[str, ...]:
    """The shortest ends of two parts or more that together mean these weights, and no other."""
    wanted = set(parameters)
    others = [name for name, _ in model.named_parameters() if name not in wanted]
    taken = {end for name in others for end in _long_ends(name)}
    return tuple(sorted({next((end for end in _long_ends(name) if end not in taken), name) for name in parameters}))


def _long_ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 2, -1, -1)]
