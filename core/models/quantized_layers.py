"""What bitsandbytes' layers fail at while a model is trained and evaluated, put right."""

from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt


def mend_quantized_layers(model: Any) -> None:
    """Let the model's 4-bit layers keep their gradients on a CPU, and its 8-bit layers take any number of dimensions.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a 4-bit layer at its first forward pass in evaluation mode and
    never unpacks it for training: from then on its backward pass is skipped, with a warning in the log and wrong
    gradients. Its 8-bit product in evaluation mode fails on inputs of four dimensions, as DeepSeek's attention has.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, Linear8bitLt):
            module.forward = partial(_in_three_dimensions, module.forward)


def _in_three_dimensions(forward: Any, inputs: torch.Tensor) -> torch.Tensor:
    if inputs.ndim <= 3:
        return forward(inputs)
    return forward(inputs.flatten(0, -3)).unflatten(0, inputs.shape[:-2])
