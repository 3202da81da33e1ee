"""What bitsandbytes' layers fail at while a model is trained and evaluated, put right."""

import logging
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt


def mend_quantized_layers(model: Any) -> None:
    """Let 4-bit layers keep their gradients on a CPU, and 8-bit layers keep no inputs, of whatever shape those are.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a 4-bit layer at its first forward pass in evaluation mode and
    never unpacks it for training: from then on its backward pass is skipped, with a warning in the log and wrong
    gradients. Its 8-bit product in evaluation mode fails on inputs of four dimensions, as DeepSeek's attention has; and
    in training it holds on to its input beside autograd, where checkpointing does not reach: a model with 8-bit layers
    keeps as much as that of every layer, for the gradient of a weight that has none. DoRA on a CPU moves its weight to
    where it is, which loses the constants.
    """
    # It would tell of every 8-bit layer at every pass that bfloat16 becomes float16 inside: gigabytes of log.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, Linear8bitLt):
            module.forward = partial(_product_in_8_bit, module, module.forward)


def _product_in_8_bit(layer: Linear8bitLt, forward: Any, inputs: torch.Tensor) -> torch.Tensor:
    if layer.weight.SCB is None and layer.state.SCB is not None:
        # They are in the state already: the layer would put nothing in their place.
        layer.weight.CB = None
    output = forward(inputs if inputs.ndim <= 3 else inputs.flatten(0, -3))
    node = output.grad_fn
    # As the product for a GPU calls it, and the one for a CPU.
    if hasattr(node, "tensors"):
        node.tensors = None, None, None
    elif hasattr(node, "A"):
        node.A = None
    return output if inputs.ndim <= 3 else output.unflatten(0, inputs.shape[:-2])
