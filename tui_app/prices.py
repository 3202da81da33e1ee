"""What an option costs or saves: the plan with it against the plan without it, and about how much time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.memory.fit import way_speed
from core.memory.speed import plan_choice
from core.models.attention import attention_choices
from core.spec.build import value_of
from core.text import human_bytes
from tui_app.widgets.spec_form import row_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.memory.estimate import MemoryEstimate
    from core.memory.plan import Plan
    from tui_app.draft import Draft

QUANTIZATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {"load_in_4bit": False, "load_in_8bit": False}),
    "int8": ("8-bit", {"load_in_4bit": False, "load_in_8bit": True}),
    "nf4": ("4-bit NF4", {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"}),
    "fp4": ("4-bit FP4", {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "fp4"}),
}
"""How the base model can be stored: by TRL's options, with what it is called."""
_SWITCHES = (
    "use_dora", "sftui.train_vision", "use_bnb_nested_quant", "use_peft", "activation_checkpointing", "packing",
    "padding_free",
)  # fmt: skip
_OPTIONAL = ("lora_modules_to_save", "lora_target_parameters")
_LISTS = (*_OPTIONAL, "sftui.skip_modules")
_NUMBERS = {
    "lora_r": ("rank", 1, 4096),
    "per_device_train_batch_size": ("batch", 1, 2**16),
    "max_length": ("", 8, 2**24),
}
_OPTIMIZERS = ("adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd")
_PRICED = (
    *_SWITCHES, *_LISTS, *_NUMBERS, "quantization", "dtype", "optim", "attn_implementation", "lora_target_modules",
)  # fmt: skip
_OF_ROW = {row_id(name): name for name in _PRICED}


@dataclass(frozen=True, slots=True)
class Price:
    """What changes with an option."""

    bytes: int
    speed: str
    """In words; empty where it hardly matters."""
    verdict: str
    """In words, where it becomes another one by this: "fits"."""

    def __str__(self) -> str:
        size = signed_bytes(self.bytes) if self.bytes else ""
        return ", ".join(filter(None, (size, self.speed, self.verdict)))


def signed_bytes(count: int) -> str:
    """ "+1.2 GB" or "−31.0 MB"."""
    return f"{'+' if count >= 0 else '−'}{human_bytes(abs(count))}"


def weight_bytes(plan: Plan | None) -> int | None:
    """Bytes of the base model as it would be loaded, with its quantization constants."""
    if plan is None or plan.memory is None:
        return None
    named = ("base_weights", "quantization_constants")
    sizes = [part.bytes for part in plan.memory.parts if part.name in named]
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


class WeightSizes:
    """Bytes of the base model by quantization, worked out again only when something changes them."""

    def __init__(self, variants: Mapping[str, Mapping[str, Any]]) -> None:
        self._variants = variants
        self._key: object = None
        self._sizes: list[tuple[str, int | None]] = []

    def of(self, draft: Draft) -> list[tuple[str, int | None]]:
        """(label, bytes) for each variant; nothing while no model is known."""
        if draft.model is None or draft.gpus is None:
            return []
        names = ("dtype", "use_bnb_nested_quant", "sftui.device")
        # The model's facts come after its name, and with them the sizes.
        key = (id(draft.model), *(value_of(draft.values, name) for name in names))
        if key != self._key:
            self._key = key
            self._sizes = [(label, weight_bytes(draft.plan_with(changes))) for label, changes in self._variants.items()]
        return self._sizes


def price(draft: Draft, changes: Mapping[str, Any]) -> Price | None:
    """What changes with `changes`; None where that is not known, or nothing does."""
    before, after = draft.plan_with({}), draft.plan_with(changes)
    spec, changed = draft.planned, draft.spec_with(changes)
    if before is None or after is None or before.memory is None or after.memory is None:
        return None
    if spec is None or changed is None or _known(before.memory) != _known(after.memory):
        return None
    verdict = after.verdict.replace("_", " ") if {before.verdict, after.verdict} == {"fits", "does_not_fit"} else ""
    size = after.memory.known_bytes - before.memory.known_bytes
    found = Price(size, way_speed(spec, before, changed, after), verdict)
    return found if str(found) else None


def _known(memory: MemoryEstimate) -> set[str]:
    return {part.name for part in memory.parts if part.bytes is not None}


def switch_price(draft: Draft, name: str) -> str:
    """What turning a switch over would cost or save: "off: +11.2 GB, about 20 % faster."."""
    on = value_of(draft.values, name) is True
    return _told("off" if on else "on", price(draft, {name: not on}))


def row_price(draft: Draft, row: str | None) -> str:
    """What other values of the option in a row of the form would cost or save; nothing where memory does not tell."""
    name = _OF_ROW.get(row or "")
    return option_price(draft, name) if name is not None else ""


def option_price(draft: Draft, name: str) -> str:
    """What other values of an option would cost or save; nothing where memory does not tell."""
    value = value_of(draft.values, name) if name != "quantization" else None
    if name in _SWITCHES:
        return switch_price(draft, name)
    if name in _LISTS and value:
        return _told("without", price(draft, {name: None if name in _OPTIONAL else []}))
    told = (_told(label, price(draft, changes)) for label, changes in _variants(draft, name, value).items())
    return " ".join(filter(None, told))


def _variants(draft: Draft, name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Other values that one may think of, by what they are called."""
    if name in _NUMBERS:
        word, least, most = _NUMBERS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            return {}
        others = [number for number in (value // 2, value * 2) if least <= number <= most]
        return {f"{word} {number:,}".strip(): {name: number} for number in others}
    if name == "quantization":
        now = draft.planned.quantization if draft.planned is not None else ""
        return {label: changes for kind, (label, changes) in QUANTIZATIONS.items() if kind != now}
    if name == "attn_implementation":
        return {other: {name: other} for other in _other_kernels(draft)}
    wanted: dict[str, list[Any]] = {
        "lora_target_modules": ["all-linear", ["q_proj", "v_proj"]],
        "lora_modules_to_save": [["embed_tokens"], ["lm_head"]],
        "sftui.skip_modules": [["down_proj"]],
        "dtype": ["bfloat16", "float32"],
        "optim": list(_OPTIMIZERS),
    }
    return {
        ", ".join(other) if isinstance(other, list) else other: {name: other}
        for other in wanted.get(name, ())
        if other != value
    }


def _other_kernels(draft: Draft) -> list[str]:
    now = plan_choice(draft.plan, "attn_implementation") if draft.plan is not None else ""
    kernels = attention_choices(draft.chosen_gpu, draft.model.architecture if draft.model is not None else None)
    # What compiles at the first step is not told by any figure.
    return [one.name for one in kernels if one.available and one.name not in (now, "flex_attention")]


def _told(label: str, found: Price | None) -> str:
    return f"{label}: {found}." if found is not None else ""
