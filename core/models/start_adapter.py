"""An existing adapter to train further: found, and refused unless it is safe to read and fits the base model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.errors import SftuiError
from core.models.targets import claimed_by_peft
from core.paths import expand
from core.text import safe

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
# What these start from is a base with other weights than the one in the model's files.
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga")


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """An adapter's folder, and what it says of itself."""

    folder: Path
    base: str
    """The model that it was made for, as text to be shown."""
    shapes: dict[str, tuple[int, ...]]
    """By the names in its file."""


def find_start(named: str) -> StartAdapter:
    """Read the adapter in a folder, or in that of a run. Raises SftuiError for what is missing, pickled or no LoRA."""
    folder = expand(named)
    if not (folder / _CONFIG).is_file() and (folder / "adapter" / _CONFIG).is_file():
        folder = folder / "adapter"
    where = safe(str(folder))
    if not (folder / _CONFIG).is_file():
        raise _unfit(f"{where} has no {_CONFIG}.", "Name the folder of an adapter, or of a run that left one.")
    if not (folder / _WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            hint = "Load it with PEFT where you trust it, and save it again: save_pretrained writes safetensors."
            raise _unfit(f"{where} holds adapter_model.bin, a pickle, which can run code; it is never loaded.", hint)
        raise _unfit(f"{where} has no {_WEIGHTS}.", "Copy the whole folder again.")
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    # A foreign file can be broken in any way.
    except Exception as error:
        raise _unfit(f"{where} cannot be read: {safe(str(error))}.", "Copy the whole folder again.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _unfit(f"{where} is no LoRA adapter, but {safe(str(kind))}.", "Choose a LoRA adapter.")
    first = str(config.get("init_lora_weights")).lower()
    if first.startswith(_CHANGED_BASE):
        raise _unfit(
            f"{where} was started with {safe(first)}, so that it fits only a changed base model.",
            "Convert it to plain LoRA with PEFT (path_initial_model_for_weight_conversion).",
        )
    return StartAdapter(folder, safe(str(config.get("base_model_name_or_path") or "an unnamed model")), shapes)


def refuse_other_base(start: StartAdapter, model: Any) -> None:
    """Raise SftuiError where the adapter's matrices do not fit the model's layers."""
    if claimed_by_peft(model.config.model_type):
        # PEFT renames an adapter's weights on these types while it reads them.
        return
    there = dict(model.named_modules())
    for key, shape in start.shapes.items():
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            continue
        name = key.removeprefix("base_model.model.").rsplit(".lora_", 1)[0].replace(".base_layer", "")
        module = there.get(name)
        if module is None:
            raise _unfit(_made_for(start, f"there is no {safe(name)} in this one"), "Choose the base it was made for.")
        features = _features(module)
        if features is None:
            continue
        inputs, outputs = features
        wanted, found = (inputs, shape[1]) if ".lora_A." in key else (outputs, shape[0])
        if wanted != found:
            words = f"{safe(name)} has {wanted:,} features here, and {found:,} there"
            raise _unfit(_made_for(start, words), "Choose the base it was made for.")


def refuse_unread(start: StartAdapter, adapted: Any) -> None:
    """Raise SftuiError where some of the adapter's weights found no place in the model, or some of its places none."""
    if claimed_by_peft(adapted.get_base_model().config.model_type):
        return
    expected = set(get_peft_model_state_dict(adapted))
    apart = sorted(expected ^ set(start.shapes))
    if apart:
        raise _unfit(
            _made_for(start, f"{len(apart)} of its weights do not match ({safe(apart[0])}, …)"),
            "Choose the base it was made for.",
        )


def _features(module: Any) -> tuple[int, int] | None:
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return None


def _made_for(start: StartAdapter, words: str) -> str:
    return f"The adapter was made for {start.base}: {words}."


def _unfit(message: str, hint: str) -> SftuiError:
    return SftuiError("Training cannot start from this adapter", message, hint)
