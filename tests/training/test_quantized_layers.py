"""8-bit layers keep nothing that their backward pass does not need, and their gradients are what they were."""

import logging
from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def libraries() -> None:
    from core.training.libraries import import_libraries

    import_libraries()


def gradients_of(mended: bool, *, checkpointing: bool) -> tuple[list[object], list[object]]:
    """What a small stack of 8-bit layers says and the gradients of what comes in; and which inputs are alive."""
    import gc
    import weakref

    import torch
    from bitsandbytes.nn import Linear8bitLt
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    from core.models.quantized_layers import mend_quantized_layers

    torch.manual_seed(0)
    model = nn.ModuleList(Linear8bitLt(32, 32, has_fp16_weights=False, threshold=6.0) for _ in range(3)).to("cpu")
    if mended:
        mend_quantized_layers(model)
    held = []

    def layer(module: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        inner = torch.nn.functional.gelu(inputs)
        held.append(weakref.ref(inner.untyped_storage()))
        return module(inner)

    given = torch.randn(2, 5, 32, requires_grad=True)
    hidden = given
    for module in model:
        hidden = checkpoint(layer, module, hidden, use_reentrant=False) if checkpointing else layer(module, hidden)
    gc.collect()
    alive = [one() for one in held if one() is not None]
    hidden.square().mean().backward()
    return [hidden.detach(), given.grad], alive


@pytest.mark.parametrize("checkpointing", [True, False])
def test_they_keep_no_inputs_and_have_the_same_gradients(checkpointing: bool) -> None:
    import torch

    before, held = gradients_of(False, checkpointing=checkpointing)
    after, left = gradients_of(True, checkpointing=checkpointing)
    assert len(held) == 3, "when bitsandbytes lets go by itself, the mend can go"
    assert not left
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_becomes_float16_inside_is_not_told_at_every_pass(caplog: pytest.LogCaptureFixture) -> None:
    import torch
    from bitsandbytes.nn import Linear8bitLt

    from core.models.quantized_layers import mend_quantized_layers

    layer = Linear8bitLt(8, 8, has_fp16_weights=False).to("cpu").eval()
    mend_quantized_layers(layer)
    with caplog.at_level(logging.WARNING):
        layer(torch.ones(1, 8, dtype=torch.bfloat16))
    assert not caplog.records
