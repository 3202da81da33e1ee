"""Names of what shall be adapted that the run would refuse."""

from collections.abc import Iterable, Iterator

from core.memory.estimate import is_skipped
from core.memory.spec_estimate import adapted_by
from core.memory.weight_problems import skip_patterns
from core.memory.weights import ModelWeights, Weight
from core.models.prequantized import only_bitsandbytes
from core.models.target_names import instead_of, is_called, why_not_by_weight
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.text import safe

_MODULES, _PARAMETERS = "lora_target_modules", "lora_target_parameters"
_LINEAR = "all-linear takes them all."


def target_problems(spec: RunSpec, weights: ModelWeights) -> list[Problem]:
    """Return what is wrong with the targets of a spec; nothing while the model's own modules are not known."""
    if not weights.exact or not only_bitsandbytes(weights.stored):
        return []
    found = [*_module_problems(spec, weights), *_parameter_problems(spec, weights)]
    if not found and adapted_by(spec, weights) == []:
        message = "leave nothing that LoRA can adapt."
        found.append(Problem(_MODULES, "error", message, "Name others, or train every weight."))
    return found


def _module_problems(spec: RunSpec, weights: ModelWeights) -> Iterator[Problem]:
    targets = spec.lora_target_modules
    for target in targets if isinstance(targets, list) else ():
        named = [group.weight for group in weights.groups if group.named_by(target)]
        named = [weight for weight in named if weight.named is not None]
        if any(weight.is_fused_experts for weight in named) and (why := why_not_by_weight(spec)):
            yield _unfit(_MODULES, target, why)
        if named:
            continue
        same = [module for module in weights.modules if is_called(module, target)]
        heads = {module for group in weights.groups if group.weight.is_head for module in _owners(group.names)}
        heads |= {name.rpartition(".")[0] for name, _ in weights.tied}
        if same and heads.issuperset(same):
            message = f"names {safe(target)}, the output head, which TRL's fused loss computes past any adapter."
            yield Problem(_MODULES, "error", message, "Train it whole: lora_modules_to_save.")
            continue
        message = f"names “{safe(target)}”, and the model has no such module."
        if same:
            message = f"names {safe(target)}, which is in the model, but no layer that an adapter can be put on."
        able = {name.removesuffix(".weight") for group in weights.groups if group.weight.named for name in group.names}
        yield Problem(_MODULES, "error", message, f"{instead_of(target, able)} {_LINEAR}")


def _parameter_problems(spec: RunSpec, weights: ModelWeights) -> Iterator[Problem]:
    by_modules = adapted_by(spec.model_copy(update={_PARAMETERS: None}), weights) or ()
    layers = {module for one in by_modules if not one.weight.is_fused_experts for module in _owners(one.names)}
    skipped, kept = skip_patterns(spec), set()
    for group in weights.groups:
        if group.weight.is_parameter and len(group.weight.shape) in (2, 3):
            packed = _is_quantized(spec, group.weight)
            kept |= {name for name in group.names if not packed or is_skipped(name, skipped)}
    for target in spec.lora_target_parameters or ():
        named = [name for name in kept if is_called(name, target)]
        if why := why_not_by_weight(spec):
            yield _unfit(_PARAMETERS, target, why)
        elif not named:
            message = f"names “{safe(target)}”, and the model has no such matrix in full precision."
            yield Problem(_PARAMETERS, "error", message, instead_of(target, kept, parts=2))
        elif layers.intersection(_owners(named)):
            message = f"names {safe(target)}, whose layer gets an adapter as a whole already."
            yield Problem(_PARAMETERS, "error", message, "Leave it out of one of the two lists.")


def _is_quantized(spec: RunSpec, weight: Weight) -> bool:
    return weight.stored is not None or (weight.quantizable and spec.quantization != "none")


def _unfit(field: str, target: str, why: str) -> Problem:
    return Problem(field, "error", f"names {safe(target)}, which is adapted by its weight, but {why}.", "Leave it out.")


def _owners(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}
