"""Whether an adapter to start from fits the base model that is loaded."""

from typing import Any

from peft import get_peft_model_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

from core.models.adapter_files import StartAdapter, layer_of, other_base
from core.models.targets import claimed_by_peft
from core.text import safe


def refuse_other_base(start: StartAdapter, model: Any) -> None:
    """Raise SftuiError where the adapter's matrices do not fit the model's layers."""
    if claimed_by_peft(model.config.model_type):
        # PEFT renames an adapter's weights on these types while it reads them.
        return
    there = dict(model.named_modules())
    for key, shape in start.shapes.items():
        if not key.endswith((".lora_A.weight", ".lora_B.weight")):
            continue
        name = layer_of(key)
        module = there.get(name)
        if module is None:
            raise other_base(start, f"there is no {safe(name)} in this one")
        features = _features(module)
        if features is None:
            continue
        inputs, outputs = features
        wanted, found = (inputs, shape[1]) if ".lora_A." in key else (outputs, shape[0])
        if wanted != found:
            words = f"{safe(name)} has {wanted:,} features here, and {found:,} there"
            raise other_base(start, words)


def refuse_unread(start: StartAdapter, adapted: Any) -> None:
    """Raise SftuiError where some of the adapter's weights found no place in the model, or some of its places none."""
    if claimed_by_peft(adapted.get_base_model().config.model_type):
        return
    expected = set(get_peft_model_state_dict(adapted))
    apart = sorted(expected ^ set(start.shapes))
    if apart:
        raise other_base(start, f"{len(apart)} of its weights do not match ({safe(apart[0])}, …)")


def _features(module: Any) -> tuple[int, int] | None:
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return None
