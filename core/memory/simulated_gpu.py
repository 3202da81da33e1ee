"""Lets fake tensors on the CPU be computed with as a GPU would: what is cast, what is fused, what is saved."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import bitsandbytes
import torch
import trl.kernels.chunked_logprob as trl_kernels
import trl.trainer.utils as trl_utils
from bitsandbytes.autograd._functions import MatMul8bitLt
from torch.overrides import TorchFunctionMode

_FLOAT32_OPERATIONS = frozenset(
    (
        "acos", "asin", "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_similarity", "cumprod", "cumsum",
        "erfinv", "exp", "expm1", "group_norm", "kl_div", "l1_loss", "layer_norm", "log", "log10", "log1p", "log2",
        "log_softmax", "logsumexp", "mse_loss", "nll_loss", "norm", "pow", "__pow__", "__rpow__", "prod", "reciprocal",
        "renorm", "rms_norm", "rsqrt", "sinh", "softmax", "softplus", "sum", "tan",
    )
)  # fmt: skip
"""Those that autocast computes in float32 on CUDA; on the CPU it leaves most of them alone."""

PassThrough = Callable[..., None]
"""Tells of bytes that an operation holds inside."""


class AsOnGpu(TorchFunctionMode):  # type: ignore[misc]
    """While it is on, functions of torch do what they would do on CUDA."""

    def __init__(self, pass_through: PassThrough) -> None:
        super().__init__()
        self._pass_through = pass_through

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        """Do one function."""
        keywords = keywords or {}
        name = getattr(function, "__name__", "")
        if name == "scaled_dot_product_attention":
            return self._attention(*arguments, **keywords)
        if name == "dropout" and isinstance(arguments[0], torch.Tensor):
            return _dropout(*arguments, **keywords)
        if name in _FLOAT32_OPERATIONS and torch.is_autocast_enabled("cpu") and keywords.get("dtype") is None:
            arguments = tuple(_in_float32(argument) for argument in arguments)
        return function(*arguments, **keywords)

    def _attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        del dropout_p, is_causal, scale, enable_gqa
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        output: torch.Tensor = _Attention.apply(query, key, value, attn_mask, self._pass_through)
        return output


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """What the flash and memory-efficient kernels of torch take and keep."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None,
        pass_through: PassThrough,
    ) -> torch.Tensor:  # fmt: skip
        *outer, tokens, _ = query.shape
        if mask is not None:
            # A mask becomes a bias in the type of the query, each row of which starts on a multiple of 16 elements.
            width = -(-mask.shape[-1] // 16) * 16
            if mask.dtype == torch.bool or width != mask.shape[-1]:
                mask = query.new_empty((*mask.shape[:-1], width))
        # Both kernels lay tokens before heads.
        output = query.new_empty((outer[0], tokens, *outer[1:], value.shape[-1])).transpose(1, 2)
        logsumexp = query.new_empty((*outer, tokens), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, logsumexp, mask)
        ctx.pass_through = pass_through
        return output

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        query, key, value = ctx.saved_tensors[:3]
        # A float32 gradient of the query, and key and value for each of its heads.
        repeated = [2 * query.numel() * query.element_size()] if key.shape[1] != query.shape[1] else []
        ctx.pass_through(4 * query.numel(), *repeated)
        made = [one.new_empty(one.shape) if needed else None for one, needed in
                zip((query, key, value), ctx.needs_input_grad[:3], strict=True)]  # fmt: skip
        return *made, None, None


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, *_: Any, **__: Any) -> torch.Tensor:
    if not training or not 0 < p < 1:
        return input
    # The fused kernel keeps a byte for each element; the CPU keeps what it multiplies with.
    return torch.native_dropout(input, p, True)[0]


def _in_float32(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor) and argument.dtype in (torch.bfloat16, torch.float16):
        return argument.float()
    return argument


@contextlib.contextmanager
def trl_as_on_gpu() -> Iterator[None]:
    """Let TRL's fused head score the trained tokens only, with kernels that need no memory of their own."""

    def nothing(*arguments: Any, **keywords: Any) -> None:
        pass

    with (
        replaced(trl_utils, "_use_triton", lambda _device: True),
        replaced(trl_kernels, "_forward_tile", nothing),
        replaced(trl_kernels, "_backward_tile", nothing),
        replaced(trl_kernels, "_addmm_fp32", nothing),
    ):
        yield


@contextlib.contextmanager
def bitsandbytes_as_on_gpu() -> Iterator[None]:
    """Let 8-bit layers be computed with in 8 bits, which they are not on a CPU while they are trained beside."""

    def product(inputs: torch.Tensor, weight: torch.Tensor, *, bias: torch.Tensor | None, state: Any) -> Any:
        return MatMul8bitLt.apply(inputs, weight, None, bias, state)

    with replaced(bitsandbytes, "matmul", product):
        yield


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a name of a module mean something else while the block runs."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
