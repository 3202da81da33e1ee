"""The model of a run as it stands before its first step, quantized and with adapters, with no weight in memory."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import peft.tuners.lora.dora
import torch
import transformers
from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizer_bnb_8bit import Bnb8BitHfQuantizer

from core.memory.simulated_gpu import replaced
from core.memory.stored_weights import comes_as_stored
from core.models.adapter_files import start_of
from core.models.adapters import attach_adapters, freeze_towers, keep_trained_weights_in_float32
from core.models.checkpoint_files import read_tensors
from core.models.inventory import keep_in_float32, take_quantization_out
from core.models.loading import LoadRequest, model_config, quantization_config, skipped_modules, trusts_own_code
from core.models.quantized_layers import mend_quantized_layers
from core.models.token_rows import show_head_bias
from core.spec.run_spec import RunSpec

_NESTED_BLOCK = 256
_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def meta_model(spec: RunSpec, request: LoadRequest, again: Callable[[], AbstractContextManager[Any]]) -> Any:
    """The base model, quantized and with adapters, on the meta device, as SFTTrainer gets it and changes it.

    A backward pass runs without the modes that are on around it: with checkpointing, `again` brings them back where
    layers are computed again. Raises what building the model raises.
    """
    trusted = trusts_own_code(request)
    auto_class = getattr(transformers, request.architecture.auto_class)
    config = model_config(request, trusted)
    dtype = getattr(torch, request.dtype)
    skipped = skipped_modules(spec, auto_class, config, trusted)
    quantization = quantization_config(spec, request.dtype, skipped)
    stored = take_quantization_out(config)
    if stored is not None:
        quantization = BitsAndBytesConfig.from_dict(stored)
    with torch.device("meta"):
        model = auto_class.from_config(
            copy.deepcopy(config),
            dtype=dtype,
            attn_implementation=request.attention,
            trust_remote_code=trusted,
        )
        keep_in_float32(model, dtype)
        if stored is not None:
            _keep_as_stored(model, request.folder)
        if quantization is not None:
            kind = Bnb4BitHfQuantizer if quantization.load_in_4bit else Bnb8BitHfQuantizer
            kind(quantization, pre_quantized=False).preprocess_model(model=model, device_map={"": "cpu"})
            # PEFT asks for one of these.
            model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantization.load_in_4bit, quantization.load_in_8bit
            mend_quantized_layers(model)
        if spec.use_peft:
            model = _adapted(model, spec)
        else:
            freeze_towers(model, spec)
    if quantization is not None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    if request.dtype == "float16":
        keep_trained_weights_in_float32(model)
    if spec.activation_checkpointing:
        base = model.get_base_model() if spec.use_peft else model
        contexts = lambda: (contextlib.nullcontext(), again())  # noqa: E731
        how = {"use_reentrant": False, "context_fn": contexts}
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
        if spec.use_peft:
            model.enable_input_require_grads()
    model.train()
    return model


def _adapted(model: Any, spec: RunSpec) -> Any:
    """The model with adapters; what those start from changes numbers, and none of their sizes."""
    if spec.sftui.start_from_adapter is None:
        first = spec.sftui.model_copy(update={"init_lora_weights": "default"})
        return attach_adapters(model, spec.model_copy(update={"sftui": first}))
    config = PeftConfig.from_pretrained(str(start_of(spec.sftui.start_from_adapter).folder))
    config.inference_mode, config.init_lora_weights = False, True
    adapted = get_peft_model(model, config)
    show_head_bias(adapted)
    return adapted


def materialize(model: Any) -> None:
    """Give a model on the meta device the tensors of the FakeTensorMode that is on; what was shared is shared again."""
    # By the identity of tensors that are kept alive, so that none is taken for another.
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in model.modules():
        if isinstance(module, Linear4bit):
            made[id(module.weight)] = module.weight, _packed(module)
        elif isinstance(module, Linear8bitLt):
            made[id(module.weight)] = module.weight, _in_8_bit(module)
        _fill(module._parameters, made)
        _fill(module._buffers, made)


def _fill(tensors: dict[str, Any], made: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if id(tensor) not in made:
            new = torch.empty(tensor.shape, dtype=tensor.dtype)
            new = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
            made[id(tensor)] = tensor, new
        tensors[name] = made[id(tensor)][1]


def _packed(layer: Linear4bit) -> nn.Parameter:
    """The weight of a 4-bit layer with its constants. bitsandbytes' own class takes no fake tensor."""
    double_quant = layer.weight.compress_statistics
    shape = torch.Size((layer.out_features, layer.in_features))
    blocks = math.ceil(shape.numel() / layer.weight.blocksize)
    nested = None
    if double_quant:
        outer = math.ceil(blocks / _NESTED_BLOCK)
        nested = QuantState(
            absmax=torch.empty(outer), code=torch.empty(256), blocksize=_NESTED_BLOCK, dtype=torch.float32
        )
    state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if double_quant else torch.float32),
        shape=shape,
        code=torch.empty(16),
        blocksize=layer.weight.blocksize,
        quant_type=layer.weight.quant_type,
        dtype=layer.compute_dtype,
        offset=torch.empty(()) if double_quant else None,
        state2=nested,
    )
    packed = nn.Parameter(torch.empty((-(-shape.numel() // 2), 1), dtype=torch.uint8), requires_grad=False)
    packed.quant_state = state
    packed.bnb_quantized = True
    layer.quant_state = state
    return packed


def _in_8_bit(layer: Linear8bitLt) -> nn.Parameter:
    """The weight of an 8-bit layer, which its state holds with its constants, as after the first forward pass."""
    weight = torch.empty((layer.out_features, layer.in_features), dtype=torch.int8)
    layer.state.CB, layer.state.SCB = weight, torch.empty(layer.out_features)
    packed = nn.Parameter(weight, requires_grad=False)
    packed.CB = packed.SCB = None
    return packed


@contextlib.contextmanager
def weights_unpacked_by_size() -> Iterator[None]:
    """Let DoRA, which asks for the weights of quantized layers, have as much without bitsandbytes' own classes."""

    def unpacked(layer: nn.Module) -> torch.Tensor:
        if not isinstance(layer, Linear4bit | Linear8bitLt):
            return layer.weight
        if layer.weight.is_meta:
            dtype = layer.compute_dtype if isinstance(layer, Linear4bit) else torch.float32
            return torch.empty((layer.out_features, layer.in_features), dtype=dtype, device="meta")
        if isinstance(layer, Linear4bit):
            return dequantize_4bit(layer.weight, layer.quant_state)
        return int8_vectorwise_dequant(layer.weight, layer.state.SCB)

    with replaced(peft.tuners.lora.dora, "dequantize_module_weight", unpacked):
        yield


def constants(model: Any) -> list[torch.Tensor]:
    """The quantization constants of all layers."""
    found = []
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state, nested = module.weight.quant_state, module.weight.quant_state.state2
            found += [state.absmax, state.code]
            found += [state.offset, nested.absmax, nested.code] if nested is not None else []
        elif isinstance(module, Linear8bitLt):
            # bitsandbytes moves them to the state at the first forward pass.
            found.append(module.weight.SCB if module.state.SCB is None else module.state.SCB)
    return found


def used_twice(model: Any) -> frozenset[torch.Size]:
    """The shape of an embedding that is the output head too."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shares = head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", embedding)
    return frozenset([embedding.weight.shape]) if shares else frozenset()


def _keep_as_stored(model: Any, folder: Path) -> None:
    """Give weights that are not quantized the types of the files, where they keep them: see comes_as_stored."""
    types = {tensor.name: _STORED[tensor.dtype] for tensor in read_tensors(folder) if tensor.dtype in _STORED}
    for name, parameter in model.named_parameters():
        if name in types and comes_as_stored(name, "bitsandbytes"):
            parameter.data = parameter.data.to(types[name])
