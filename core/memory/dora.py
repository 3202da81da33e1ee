"""What DoRA adds to what a step holds, by arithmetic over the layers it adapts, as PEFT 0.21 computes it. Bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.memory.activations import Step


def dora_kept(step: Step, inputs: int, outputs: int, *, wants_gradient: bool) -> int:
    """What one layer keeps for the backward pass beside what an adapter without DoRA would.

    That is its own answer and its adapter's, for the magnitude's gradient. With dropout its answer is computed anew,
    and for that a weight that is not as wide as what it is computed with is kept so.
    """
    own = step.in_adapters if step.dropout > 0 else step.element
    kept = step.tokens * outputs * (own + step.in_adapters)
    if step.dropout > 0 and wants_gradient and (step.quantized or step.element == 2):
        kept += inputs * outputs * step.in_adapters
    return kept


def dora_working(step: Step, inputs: int, outputs: int) -> int:
    """What one layer holds while it finds out how large its weight has become.

    The identity by which A and B are multiplied, what comes of it, the weight, what is added to it, and their sum.
    """
    return inputs * inputs * step.in_adapters + 4 * inputs * outputs * step.adapter_element
