"""Attaching LoRA adapters to a loaded base model."""

from typing import Any

from peft import LoraConfig, get_peft_model

from core.errors import SftuiError
from core.spec.run_spec import RunSpec


def attach_adapters(model: Any, spec: RunSpec) -> Any:
    """The base model wrapped with adapters that are trainable; the base is frozen. Raises SftuiError for no target."""
    targets = spec.lora_target_modules
    config = LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout,
        target_modules=targets,
        use_rslora=spec.use_rslora,
        use_dora=spec.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        if "Target modules" not in str(error) and "target_modules" not in str(error):
            raise
        there = sorted(
            {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if not list(module.children())}
        )
        raise SftuiError(
            "No module to adapt",
            f"lora_target_modules names {targets}, and the model has none of them.",
            f"Use all-linear, or some of: {', '.join(there[:20])}.",
        ) from error


def adapted_modules(model: Any) -> tuple[str, ...]:
    """The last part of the names of all modules that got an adapter."""
    names = {
        name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if name.endswith("lora_A.default")
    }
    return tuple(sorted({name.rsplit(".", 1)[-1] for name in names}))


def trainable_parameters(model: Any) -> int:
    """Weights that get a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def keep_trained_weights_in_float32(model: Any) -> None:
    """For float16: its scaler refuses 16-bit gradients, and TRL turns adapters on a quantized base to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
