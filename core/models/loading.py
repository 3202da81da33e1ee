"""Loading a base model and its tokenizer, in the precision and quantization that the spec asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.nn import Int8Params, Linear4bit, Params4bit
from transformers import AutoTokenizer, BitsAndBytesConfig

from core.errors import SftuiError
from core.models.architecture import Architecture
from core.spec.run_spec import RunSpec


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything that decides how the weights come in."""

    folder: Path
    architecture: Architecture
    dtype: str
    attention: str
    device: str
    """`cpu`, or `cuda:0`: a process sees one GPU."""


def quantization_config(spec: RunSpec, dtype: str) -> BitsAndBytesConfig | None:
    """How bitsandbytes stores the base weights; None for none. The compute dtype is always given, never its default."""
    if spec.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if not spec.load_in_4bit:
        return None
    storage = spec.bnb_4bit_quant_storage
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=spec.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_quant_storage=getattr(torch, storage) if storage else None,
    )


def load_model(spec: RunSpec, request: LoadRequest) -> Any:
    """The base model on its device, with safetensors only and no remote code.

    A quantized model goes wholly onto the one device: it cannot be moved afterwards.
    """
    auto_class = getattr(transformers, request.architecture.auto_class)
    model = auto_class.from_pretrained(
        str(request.folder),
        dtype=getattr(torch, request.dtype),
        quantization_config=quantization_config(spec, request.dtype),
        device_map={"": request.device},
        attn_implementation=request.attention,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    _keep_weights_trainable_on_cpu(model)
    return model


def _keep_weights_trainable_on_cpu(model: Any) -> None:
    """Switch off a repacking of 4-bit weights that would lose gradients.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks a layer at its first forward pass in evaluation mode and never
    unpacks it for training: from then on its backward pass is skipped, with a warning in the log and wrong gradients.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer, with a pad token. Raises SftuiError if there is no end-of-sequence token to stop at."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    if tokenizer.eos_token is None:
        raise SftuiError(
            "The tokenizer has no end token",
            f"{folder} names no eos_token, so that the model could not learn to stop.",
            "Set `eos_token` to one of the vocabulary's tokens.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def weight_bytes(model: Any) -> int:
    """The bytes that parameters, buffers and bitsandbytes' constants take, each storage once."""
    seen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        _count(tensor, seen)
        for constant in _constants(tensor):
            _count(constant, seen)
    return sum(seen.values())


def _constants(tensor: torch.Tensor) -> list[torch.Tensor]:
    if isinstance(tensor, Params4bit) and tensor.quant_state is not None:
        state, nested = tensor.quant_state, tensor.quant_state.state2
        found = [state.absmax, state.code, state.offset, *([nested.absmax, nested.code] if nested else [])]
        return [constant for constant in found if constant is not None]
    return [tensor.SCB] if isinstance(tensor, Int8Params) and tensor.SCB is not None else []


def _count(tensor: torch.Tensor, seen: dict[int, int]) -> None:
    storage = tensor.untyped_storage()
    seen[storage.data_ptr()] = storage.nbytes()


def parameter_count(model: Any) -> int:
    """Weights of the model, packed 4-bit ones counted as what they stand for."""
    return sum(
        parameter.quant_state.shape.numel()
        if isinstance(parameter, Params4bit) and parameter.quant_state is not None
        else parameter.numel()
        for parameter in model.parameters()
    )
