"""What a spec means for the arithmetic of memory, and what the run decides about its adapters."""

from core.choice import Choice
from core.memory.adapters import Adapted, adapted_at_start, targeted
from core.memory.estimate import MemoryEstimate, estimate
from core.memory.weight_problems import skip_patterns
from core.memory.weights import ModelWeights, Targets, Weight
from core.models.adapter_files import StartAdapter
from core.models.target_names import why_not_by_weight
from core.spec.run_spec import RunSpec


def estimate_of(spec: RunSpec, weights: ModelWeights, dtype: str, start: StartAdapter | None) -> MemoryEstimate | None:
    """Return what this spec takes, its weights loaded in `dtype`; None where it would train stored quantized ones."""
    stored = weights.stored is not None
    if stored and not spec.use_peft:
        return None
    parameters = spec.lora_target_parameters
    return estimate(
        weights,
        quantization="none" if stored else spec.quantization,
        double_quant=spec.use_bnb_nested_quant,
        dtype=dtype,
        method="lora" if spec.use_peft else "full",
        lora_r=spec.lora_r,
        lora_targets=_targets(spec),
        optimizer=spec.optim,
        lora_target_parameters=None if parameters is None else tuple(parameters),
        one_by_one=not why_not_by_weight(spec),
        dora=spec.use_dora,
        train_vision=spec.sftui.train_vision,
        skip_modules=skip_patterns(spec),
        modules_to_save=tuple(spec.lora_modules_to_save or ()),
        start=start,
    )


def _targets(spec: RunSpec) -> Targets:
    targets = spec.lora_target_modules
    return tuple(targets) if isinstance(targets, list) else "all-linear"


def adapter_choices(spec: RunSpec, weights: ModelWeights, start: StartAdapter | None) -> list[Choice]:
    """What the run decides about adapters against the spec, as far as the model is known."""
    if start is not None:
        if start.rank is None or start.rank == spec.lora_r:
            return []
        return [Choice("lora_r", str(start.rank), f"of the adapter that training starts from, made for {start.base}")]
    if not spec.use_peft or spec.sftui.start_from_adapter is not None:
        return []
    why = why_not_by_weight(spec)
    if why and spec.lora_target_modules == "all-linear" and any(_is_left_out(group.weight) for group in weights.groups):
        reason = f"all but experts and what PEFT takes for them: {why}"
        return [Choice("lora_target_modules", "all-linear", reason)]
    by_weight = [one.weight for one in adapted_by(spec, weights) or () if one.by_weight]
    if not by_weight or not spec.lora_dropout:
        return []
    into = "a layer that it adapts by its weight" if all(one.outputs for one in by_weight) else "fused experts"
    return [Choice("lora_dropout", "0", f"PEFT cannot drop out what goes into {into}")]


def _is_left_out(weight: Weight) -> bool:
    return weight.only_by_weight and weight.all_linear is not None and weight.part == "text"


def as_started(spec: RunSpec, start: StartAdapter | None) -> RunSpec:
    """The spec with what the adapter that it starts from decides in its place."""
    if start is None:
        return spec
    own = {"lora_r": start.rank or spec.lora_r, "lora_dropout": start.dropout, "use_dora": start.uses_dora}
    return spec.model_copy(update=own)


def adapted_by(spec: RunSpec, weights: ModelWeights, start: StartAdapter | None = None) -> list[Adapted] | None:
    """What gets an adapter under this spec; None when that is not known."""
    if not spec.use_peft:
        return []
    if start is not None:
        return adapted_at_start(weights, start)
    return targeted(
        weights, _targets(spec), spec.lora_target_parameters, one_by_one=not why_not_by_weight(spec),
        train_vision=spec.sftui.train_vision, whole=spec.lora_modules_to_save or (),
    )  # fmt: skip
