"""The settings that make a run smaller or faster: for each part of a spec what it may become, one after the other."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.devices.gpu import GpuSnapshot
from core.memory.plan import Plan
from core.memory.speed import plan_choice
from core.models.architecture import Architecture
from core.models.attention import attention_choices
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING, argument_names

_SMALLER_OPTIMIZERS = {
    "adamw_torch": ("adamw_8bit", "paged_adamw_8bit"),
    "adamw_torch_fused": ("adamw_8bit", "paged_adamw_8bit"),
    "paged_adamw_32bit": ("paged_adamw_8bit",),
    "lion_32bit": ("lion_8bit", "paged_lion_8bit"),
    "paged_lion_32bit": ("paged_lion_8bit",),
}
_FASTER_OPTIMIZERS = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit")
# As the presets have it: adapters start from nothing and learn with larger steps than weights that know much already.
_ADAPTER_LEARNING_RATE = 2e-4
_ATTENTION_BY_SPEED = ("flash_attention_3", "flash_attention_2", "sdpa")
_BF16_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Rung:
    """What a part of the spec may become."""

    title: str
    reason: str
    sets: Mapping[str, Any]
    """Options by name; what is no option is an argument of SFTConfig that is passed on."""
    last_resort: bool = False
    """Another kind of training: only where nothing else fits."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One part of the spec; `rungs` go on from what it is now, the first is the nearest."""

    name: str
    rungs: tuple[Rung, ...]


def applied(spec: RunSpec, sets: Mapping[str, Any]) -> RunSpec:
    """Return the spec with these options set; a value of None takes a passed-on argument away."""
    fields = {name: value for name, value in sets.items() if name in RunSpec.model_fields}
    passed_on = {name: value for name, value in sets.items() if name not in RunSpec.model_fields}
    if passed_on:
        more = {**spec.extra_arguments, **passed_on}
        fields["extra_arguments"] = {name: value for name, value in more.items() if value is not None}
    return spec.model_copy(update=fields)


def smaller(spec: RunSpec, plan: Plan, architecture: Architecture, gpu: GpuSnapshot | None) -> tuple[Axis, ...]:
    """Return what takes less memory, in the order in which it is told."""
    attention = plan_choice(plan, "attn_implementation")
    found = {"attention": _better_attention(spec, attention, architecture, gpu)}
    if not spec.activation_checkpointing:
        reason = "keeps one hidden state for each layer, and computes the rest again in the backward pass"
        found["checkpointing"] = [Rung("Checkpointing on", reason, {"activation_checkpointing": True})]
    found["batch"] = _batches(spec, smaller=True)
    if gpu is not None:
        found["optimizer"] = _smaller_optimizers(spec)
        found["dtype"] = _sixteen_bits(spec, plan_choice(plan, "dtype"), gpu)
    found["weights"] = _smaller_weights(spec, architecture)
    if gpu is not None and not spec.extra_arguments.get(OFFLOADING) and OFFLOADING in argument_names():
        reason = "what the backward pass needs waits in the host's memory meanwhile"
        found["offloading"] = [Rung("Activations offloaded", reason, {OFFLOADING: True})]
    return _axes(found)


def faster(spec: RunSpec, plan: Plan, architecture: Architecture, gpu: GpuSnapshot | None) -> tuple[Axis, ...]:
    """Return what uses memory that is left over, in the order in which it is told."""
    attention = plan_choice(plan, "attn_implementation")
    found = {"attention": _better_attention(spec, attention, architecture, gpu)}
    if spec.extra_arguments.get(OFFLOADING):
        reason = "nothing waits for the way to the host and back"
        found["offloading"] = [Rung("No offloading", reason, {OFFLOADING: None})]
    if spec.activation_checkpointing:
        reason = "nothing is computed twice"
        found["checkpointing"] = [Rung("Checkpointing off", reason, {"activation_checkpointing": False})]
    found["batch"] = _batches(spec, smaller=False)
    if spec.optim in _FASTER_OPTIMIZERS:
        reason = "moments are updated as they are, in one kernel"
        found["optimizer"] = [Rung("adamw_torch_fused", reason, {"optim": "adamw_torch_fused"})]
    if spec.use_peft and spec.quantization != "none":
        reason = "no weight has to be unpacked before it is multiplied"
        sets = {"load_in_4bit": False, "load_in_8bit": False, "use_bnb_nested_quant": False}
        found["weights"] = [Rung("Base model in 16 bit", reason, sets)]
    return _axes(found)


def _axes(found: Mapping[str, list[Rung]]) -> tuple[Axis, ...]:
    return tuple(Axis(name, tuple(rungs)) for name, rungs in found.items() if rungs)


def _better_attention(spec: RunSpec, attention: str, architecture: Architecture, gpu: GpuSnapshot | None) -> list[Rung]:
    """Return the fastest kernel that is there, if that is another one than the plan's."""
    there = {one.name for one in attention_choices(gpu, architecture, spec.sftui.allow_hub_kernels) if one.available}
    best = next((name for name in _ATTENTION_BY_SPEED if name in there), attention)
    known = (*_ATTENTION_BY_SPEED, "eager")
    if attention not in known or known.index(best) >= known.index(attention):
        return []
    return [Rung(best, "never holds the whole attention matrix", {"attn_implementation": best})]


def _batches(spec: RunSpec, *, smaller: bool) -> list[Rung]:
    """Return the other ways to make the same effective batch, the nearest first."""
    now, total = spec.per_device_train_batch_size, spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    sizes = [size for size in range(1, total + 1) if total % size == 0]
    found = [size for size in reversed(sizes) if size < now] if smaller else [size for size in sizes if size > now]
    reason = f"the effective batch stays {total}: "
    reason += "fewer rows are in memory at a time" if smaller else "fewer passes for one step"
    return [
        Rung(
            f"Batch {size}, accumulation {total // size}",
            reason,
            {"per_device_train_batch_size": size, "gradient_accumulation_steps": total // size},
        )
        for size in found
    ]


def _smaller_optimizers(spec: RunSpec) -> list[Rung]:
    if importlib.util.find_spec("bitsandbytes") is None:
        return []
    reason = "its moments take a byte each"
    return [
        Rung(name, f"{reason}, and may move to the host" if name.startswith("paged_") else reason, {"optim": name})
        for name in _SMALLER_OPTIMIZERS.get(spec.optim, ())
    ]


def _sixteen_bits(spec: RunSpec, dtype: str, gpu: GpuSnapshot) -> list[Rung]:
    if dtype != "float32":
        return []
    if gpu.compute_capability is not None and gpu.compute_capability < _BF16_CAPABILITY:
        if not spec.use_peft:
            return []
        return [Rung("float16", "half the bytes of float32, and faster on this GPU", {"dtype": "float16"})]
    reason = "half the bytes of float32, and faster on this GPU"
    if not spec.use_peft:
        reason += "; steps of less than a 256th of a weight are lost"
    return [Rung("bfloat16", reason, {"dtype": "bfloat16"}, last_resort=not spec.use_peft)]


def _smaller_weights(spec: RunSpec, architecture: Architecture) -> list[Rung]:
    if architecture.stored_quantization is not None:
        return []
    four_bit: dict[str, Any] = {"load_in_4bit": True, "load_in_8bit": False, "use_bnb_nested_quant": True}
    if spec.quantization in ("nf4", "fp4"):
        if spec.use_bnb_nested_quant:
            return []
        return [Rung("Double quant", "the constants are quantized too", {"use_bnb_nested_quant": True})]
    four_bit["bnb_4bit_quant_type"] = "nf4"
    if spec.use_peft:
        packed = Rung("Base model in 4 bit", "a weight takes half a byte while adapters are trained", four_bit)
        if spec.quantization == "int8":
            return [packed]
        eight = {"load_in_8bit": True, "load_in_4bit": False}
        return [Rung("Base model in 8 bit", "a weight takes a byte while adapters are trained", eight), packed]
    adapters = {"use_peft": True, "learning_rate": max(spec.learning_rate, _ADAPTER_LEARNING_RATE)}
    reason = f"every weight cannot be trained in this memory: adapters of rank {spec.lora_r} learn beside them"
    return [
        Rung("LoRA", reason, adapters, last_resort=True),
        Rung("QLoRA", f"{reason}, which take half a byte each", {**adapters, **four_bit}, last_resort=True),
    ]
