"""Attaching LoRA adapters to a loaded base model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.choice import Choice
from core.errors import SftuiError
from core.models import first_weights
from core.models.adapter_files import find_start
from core.models.start_adapter import refuse_other_base, refuse_unread
from core.models.targets import Targets, choose_targets
from core.models.token_rows import show_head_bias, trained_rows
from core.models.towers import find_towers
from core.spec.run_spec import RunSpec

Tell = Callable[[Choice], object]
# How PEFT calls the ways to start that it computes by itself while it attaches.
_INIT = {
    "default": True,
    "gaussian": "gaussian",
    "pissa": "pissa_niter_16",
    "olora": "olora",
    "loftq": True,
    "eva": "eva",
}


def _tell_nobody(choice: Choice) -> None:
    pass


def attach_adapters(model: Any, spec: RunSpec, tell: Tell = _tell_nobody, new_tokens: Sequence[int] = ()) -> Any:
    """The base model wrapped with adapters that are trainable; the base is frozen. `tell` gets each choice made.

    Of `new_tokens`, the rows in the embedding and the head are trained and saved too.
    Raises SftuiError for names that the model does not have and for an adapter to start from that does not fit.
    """
    if spec.sftui.start_from_adapter is not None:
        return _continue(model, spec, tell, new_tokens)
    targets = choose_targets(model, spec)
    tell(Choice("lora_target_modules", ", ".join(_last_names(targets)), targets.reason))
    if targets.parameters and spec.lora_dropout:
        into = "fused experts" if _adapts_experts(model, targets) else "a layer that it adapts by its weight"
        tell(Choice("lora_dropout", "0", f"PEFT cannot drop out what goes into {into}"))
    saved = _saved_whole(model, spec)
    rows = _rows_of_tokens(model, new_tokens, saved)
    config = LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=0.0 if targets.parameters else spec.lora_dropout,
        target_modules=targets.match if isinstance(targets.match, str) else list(targets.match),
        target_parameters=list(targets.match_parameters) or None,
        modules_to_save=saved or None,
        trainable_token_indices=rows or None,
        # Without it, a trained embedding and the head that shares its weight would part.
        ensure_weight_tying=bool(saved) and _ties_embeddings(model),
        use_rslora=spec.use_rslora,
        use_dora=spec.use_dora,
        init_lora_weights=_INIT[spec.sftui.init_lora_weights],
        # Every layer keeps the rank that the memory was planned with.
        eva_config=EvaConfig(rho=1.0) if spec.sftui.init_lora_weights == "eva" else None,
        fan_in_fan_out=_are_transposed(model, targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    if first_weights.changes_base(spec):
        # The random SVD of PiSSA must find the same when a run is resumed.
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            adapted = get_peft_model(model, config)
    else:
        adapted = get_peft_model(model, config)
    show_head_bias(adapted)
    if spec.sftui.init_lora_weights == "loftq":
        error = first_weights.start_with_loftq(adapted)
        tell(Choice("init_lora_weights", "loftq", f"makes up for {error:.0%} of what 4 bits lose"))
    return adapted


def freeze_towers(model: Any, spec: RunSpec) -> None:
    """For full fine-tuning: leave vision and audio towers as they are, unless they are to be trained."""
    towers = find_towers(model)
    frozen = towers.audio if spec.sftui.train_vision else towers.audio | towers.vision
    for name in frozen:
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad = False


def adapted_modules(model: Any) -> tuple[str, ...]:
    """The last part of the names of all modules that got an adapter; of fused experts, their weights' names."""
    names = set()
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper) and not isinstance(module.get_base_layer(), nn.Linear):
            names.add(f"{name.replace('.base_layer', '').rsplit('.', 1)[-1]}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            names.add(name.rsplit(".", 1)[-1])
    return tuple(sorted(names))


def trainable_parameters(model: Any) -> int:
    """Weights that get a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def keep_trained_weights_in_float32(model: Any) -> None:
    """For float16: its scaler refuses 16-bit gradients, and TRL turns adapters on a quantized base to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _rows_of_tokens(model: Any, new_tokens: Sequence[int], saved: Sequence[str]) -> dict[str, list[int]]:
    """The modules in which rows of new tokens are trained; none of those that are trained whole."""
    if not new_tokens:
        return {}
    rows = trained_rows(model, new_tokens)
    whole = {name for name, _ in model.named_modules() for last in saved if name == last or name.endswith(f".{last}")}
    if _ties_embeddings(model) and any(model.get_submodule(name) is model.get_output_embeddings() for name in whole):
        return {}
    return {module: tokens for module, tokens in rows.items() if module not in whole}


def _continue(model: Any, spec: RunSpec, tell: Tell, new_tokens: Sequence[int]) -> Any:
    start = find_start(str(spec.sftui.start_from_adapter))
    refuse_other_base(start, model)
    device = next(model.parameters()).device
    adapted = PeftModel.from_pretrained(model, str(start.folder), is_trainable=True, torch_device=str(device))
    refuse_unread(start, adapted)
    show_head_bias(adapted)
    rows = adapted.peft_config["default"].trainable_token_indices or {}
    known = {token for tokens in (rows.values() if isinstance(rows, dict) else [rows]) for token in tokens}
    if not known.issuperset(new_tokens):
        raise SftuiError(
            "The adapter does not know the new tokens",
            "The chat template needs new tokens, and the adapter that training starts from has no rows for them.",
            "Take the chat template that it was trained with, or start without an adapter.",
        )
    why = f"of the adapter that training starts from, made for {start.base}"
    tell(Choice("lora_target_modules", ", ".join(adapted_modules(adapted)), why))
    config = adapted.peft_config["default"]
    for name, value in (("lora_r", config.r), ("lora_alpha", config.lora_alpha), ("lora_dropout", config.lora_dropout)):
        if value != getattr(spec, name):
            tell(Choice(name, str(value), why))
    return adapted


def _saved_whole(model: Any, spec: RunSpec) -> list[str]:
    saved = spec.lora_modules_to_save or []
    there = [name for name, _ in model.named_modules() if name]
    for name in saved:
        fitting = [other for other in there if other == name or other.endswith(f".{name}")]
        if not fitting:
            last = sorted({other.rsplit(".", 1)[-1] for other in there if not other.rsplit(".", 1)[-1].isdigit()})
            raise SftuiError(
                "No module to train whole",
                f"lora_modules_to_save names {name}, and the model has no such module.",
                f"It has: {', '.join(last[:40])}.",
            )
        weights = [weight for other in fitting for weight in model.get_submodule(other).parameters()]
        if any(isinstance(weight, Params4bit | Int8Params) for weight in weights):
            message = f"lora_modules_to_save names {name}, whose weights are quantized and cannot be trained."
            raise SftuiError("A quantized module cannot be trained", message, "Name it in sftui.skip_modules too.")
    return saved


def _ties_embeddings(model: Any) -> bool:
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight is embeddings.weight


def _adapts_experts(model: Any, targets: Targets) -> bool:
    owners = (model.get_submodule(name.rpartition(".")[0]) for name in targets.parameters)
    return any(not isinstance(owner, nn.Linear) for owner in owners)


def _are_transposed(model: Any, targets: Targets) -> bool:
    return any(isinstance(model.get_submodule(name), Conv1D) for name in targets.modules)


def _last_names(targets: Targets) -> list[str]:
    return [*sorted({name.rsplit(".", 1)[-1] for name in targets.modules}), *targets.match_parameters]
