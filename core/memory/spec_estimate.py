"""What a spec means for the arithmetic of memory, and what the run decides about its adapters."""

from core.choice import Choice
from core.memory.adapters import adapts_fused_experts
from core.memory.estimate import MemoryEstimate, estimate
from core.memory.weight_problems import skip_patterns
from core.memory.weights import ModelWeights, Targets
from core.models.adapter_files import StartAdapter
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
        fused_experts=_adapts_experts(spec),
        dora=spec.use_dora,
        train_vision=spec.sftui.train_vision,
        skip_modules=skip_patterns(spec),
        modules_to_save=tuple(spec.lora_modules_to_save or ()),
        start=start,
    )


def _targets(spec: RunSpec) -> Targets:
    targets = spec.lora_target_modules
    return tuple(targets) if isinstance(targets, list) else "all-linear"


def _adapts_experts(spec: RunSpec) -> bool:
    # PEFT has neither for parameters that are no module.
    return not spec.use_dora and spec.sftui.init_lora_weights in ("default", "gaussian")


def adapter_choices(spec: RunSpec, weights: ModelWeights, start: StartAdapter | None) -> list[Choice]:
    """What the run decides about adapters against the spec, as far as the model is known."""
    if start is not None:
        if start.rank is None or start.rank == spec.lora_r:
            return []
        return [Choice("lora_r", str(start.rank), f"of the adapter that training starts from, made for {start.base}")]
    fused = spec.use_peft and adapts_fused_experts(
        weights, _targets(spec), spec.lora_target_parameters, fused_experts=_adapts_experts(spec)
    )
    if fused and spec.lora_dropout and spec.sftui.start_from_adapter is None:
        return [Choice("lora_dropout", "0", "PEFT cannot drop out what goes into fused experts")]
    return []
