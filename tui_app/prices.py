"""What an option costs or saves: the plan with it against the plan without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.spec.build import value_of
from core.text import human_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.memory.estimate import MemoryEstimate
    from core.memory.plan import Plan
    from tui_app.draft import Draft


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
            self._sizes = [
                (label, weight_bytes(draft.changed(changes).plan)) for label, changes in self._variants.items()
            ]
        return self._sizes


def difference(draft: Draft, changes: Mapping[str, Any]) -> int | None:
    """By how many bytes the run grows with `changes`; None if a part is not estimated on one side only."""
    before, after = draft.plan, draft.changed(changes).plan
    if before is None or after is None or before.memory is None or after.memory is None:
        return None
    if _known(before.memory) != _known(after.memory):
        return None
    return after.memory.known_bytes - before.memory.known_bytes


def _known(memory: MemoryEstimate) -> set[str]:
    return {part.name for part in memory.parts if part.bytes is not None}


def in_words(delta: int | None) -> str:
    """ "+1.2 GB", "saves 31 MB", or nothing where it is not known or nothing changes."""
    if not delta:
        return ""
    return f"+{human_bytes(delta)}" if delta > 0 else f"saves {human_bytes(-delta)}"


def switch_price(draft: Draft, name: str, *, on: bool) -> str:
    """What a switch saves or costs by being on."""
    delta = difference(draft, {name: not on})
    if not delta:
        return ""
    return f"on: {in_words(-delta)}." if on else f"on: {in_words(delta)}."


def option_price(draft: Draft, name: str) -> str:
    """What other values of an option would cost or save, or what is set does; nothing where memory does not tell."""
    value = value_of(draft.values, name)
    if name in _SWITCHES:
        return switch_price(draft, name, on=value is True)
    if name in _LISTS and value:
        return _told("without", difference(draft, {name: None if name in _OPTIONAL else []}))
    variants = {label: changes for label, changes in _variants(name, value).items() if changes[name] != value}
    return " ".join(filter(None, (_told(label, difference(draft, changes)) for label, changes in variants.items())))


_SWITCHES = ("use_dora", "sftui.train_vision")
_OPTIONAL = ("lora_modules_to_save", "lora_target_parameters")
_LISTS = (*_OPTIONAL, "sftui.skip_modules")


def _variants(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Other values that one may think of, by what they are called."""
    if name == "lora_r" and isinstance(value, int) and 1 <= value <= 2048:
        return {f"{rank}:": {name: rank} for rank in (value // 2, value * 2) if rank}
    if name == "lora_target_modules":
        return {"all-linear:": {name: "all-linear"}, "q_proj, v_proj:": {name: ["q_proj", "v_proj"]}}
    if name == "lora_modules_to_save":
        return {"embed_tokens:": {name: ["embed_tokens"]}, "lm_head:": {name: ["lm_head"]}}
    if name == "sftui.skip_modules":
        return {"down_proj:": {name: ["down_proj"]}}
    if name == "dtype":
        return {f"{dtype}:": {name: dtype} for dtype in ("bfloat16", "float32")}
    return {}


def _told(label: str, delta: int | None) -> str:
    words = in_words(delta)
    return f"{label} {words}." if words else ""
