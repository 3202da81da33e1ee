"""What is trained, and what the optimizer keeps for it."""

from dataclasses import dataclass

# bitsandbytes' optimizers: how many moments they keep. In the 8-bit ones, small tensors and (set by transformers'
# Trainer) embeddings keep float32 moments; the code table of a moment is shared by all tensors.
_STATES_32BIT = {"paged_adamw_32bit": 2, "lion_32bit": 1, "paged_lion_32bit": 1}
_STATES_8BIT = {"adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "paged_lion_8bit": 1}
_MIN_8BIT_ELEMENTS = 4096
_BLOCK = 256
_CODE_BYTES = 256 * 4


@dataclass(frozen=True, slots=True)
class Trained:
    """Trained tensors of one size."""

    count: int
    elements: int
    """Of one tensor."""
    element_bytes: int
    is_embedding: bool = False

    @property
    def total_elements(self) -> int:
        """Of all of them."""
        return self.count * self.elements

    @property
    def total_bytes(self) -> int:
        """Of all of them; their gradients take as much."""
        return self.total_elements * self.element_bytes


def optimizer_state(optimizer: str, trained: list[Trained]) -> tuple[int | None, str]:
    """Return the bytes of the optimizer's state for these tensors, None where it is not known, and how they come."""
    total = sum(one.total_elements for one in trained)
    paged = ", which the driver may move to the host" if optimizer.startswith("paged_") else ""
    if optimizer == "sgd":
        return 0, "SGD without momentum keeps no state"
    if optimizer in {"adamw_torch", "adamw_torch_fused"}:
        # The fused kernel keeps the step count of each tensor, a float32, on the device.
        steps = 4 * sum(one.count for one in trained) if optimizer.endswith("fused") else 0
        moments = 2 * sum(one.total_bytes for one in trained)
        return moments + steps, "AdamW: two moments in the dtype of the trained weights"
    if optimizer in _STATES_32BIT:
        return _STATES_32BIT[optimizer] * total * 4, f"float32 moments{paged}"
    if optimizer in _STATES_8BIT:
        return _state_8bit(trained, _STATES_8BIT[optimizer]), f"8-bit moments{paged}"
    return None, f"the state of {optimizer} is not known here"


def _state_8bit(trained: list[Trained], states: int) -> int:
    in_8bit = [one for one in trained if one.elements >= _MIN_8BIT_ELEMENTS and not one.is_embedding]
    elements = sum(one.total_elements for one in in_8bit)
    in_float32 = sum(one.total_elements for one in trained) - elements
    scales = sum(one.count * -(-one.elements // _BLOCK) for one in in_8bit)
    tables = _CODE_BYTES if in_8bit else 0
    return states * (in_float32 * 4 + elements + scales * 4 + tables)
