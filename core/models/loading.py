"""Loading a base model in the precision and quantization that the spec asks for, whole or not at all."""

import contextlib
import copy
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from safetensors import SafetensorError
from transformers import AutoConfig, BitsAndBytesConfig
from transformers.integrations import hub_kernels
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.utils.logging import set_tqdm_hook

from core.errors import SftuiError
from core.models.architecture import Architecture
from core.models.checkpoint_files import read_config
from core.models.layers import never_quantized
from core.models.load_progress import LoadMeter
from core.models.prequantized import method_of
from core.models.quantized_layers import mend_quantized_layers
from core.models.remote_code import find_remote_code, is_allowed
from core.spec.run_spec import RunSpec
from core.text import safe, shorten

# What transformers and the libraries below it raise for a checkpoint that is not as it should be.
_LOAD_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, AssertionError,
    SafetensorError,
)  # fmt: skip
_DAMAGED = "The weights do not fit this model"
_TAKE_AGAIN = "Download the model again, with the config.json that belongs to its weights."
_get_kernel = hub_kernels.get_kernel


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Everything that decides how the weights come in."""

    folder: Path
    architecture: Architecture
    dtype: str
    attention: str | None
    """None takes what each part of the model does best."""
    device: str
    """`cpu`, or `cuda:0`: a process sees one GPU."""


def quantization_config(spec: RunSpec, dtype: str, skipped: list[str] | None = None) -> BitsAndBytesConfig | None:
    """How bitsandbytes stores the base weights; None for none. The compute dtype is always given, never its default."""
    if spec.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    if not spec.load_in_4bit:
        return None
    storage = spec.bnb_4bit_quant_storage
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=spec.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_quant_storage=getattr(torch, storage) if storage else None,
        llm_int8_skip_modules=skipped,
    )


def load_model(
    spec: RunSpec, request: LoadRequest, notice: Callable[[str, str], object], meter: LoadMeter | None = None
) -> Any:
    """The base model on its device, from safetensors only; its own code runs only where the user has allowed it.

    A quantized model goes wholly onto the one device: it cannot be moved afterwards. `notice` is told, by title and
    message, what a person should know; `meter` is told of each weight, and may end the loading with an exception of
    its own. Raises SftuiError when the checkpoint cannot be loaded, or not every weight is in it.
    """
    limit_hub_kernels(spec.sftui.allow_hub_kernels)
    trusted = trusts_own_code(request)
    auto_class = getattr(transformers, request.architecture.auto_class)
    report = _LoadReport()
    try:
        config = model_config(request, trusted)
        skipped = skipped_modules(spec, auto_class, config, trusted)
        with _watched(meter), report.listening():
            model, info = auto_class.from_pretrained(
                str(request.folder),
                config=config,
                dtype=getattr(torch, request.dtype),
                quantization_config=quantization_config(spec, request.dtype, skipped),
                device_map={"": request.device},
                trust_remote_code=trusted,
                use_safetensors=True,
                local_files_only=True,
                # Refused below, with the names of the tensors; transformers puts them into its log only.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except _LOAD_ERRORS as error:
        raise _cannot_load(error, report.text) from error
    _check_complete(model, info)
    left_out = sorted(info["unexpected_keys"])
    if left_out:
        count = "1 tensor" if len(left_out) == 1 else f"{len(left_out)} tensors"
        notice("Weights left out", f"{type(model).__name__} has no place for {count}: {_names(left_out)}.")
    mend_quantized_layers(model)
    return model


def trusts_own_code(request: LoadRequest) -> bool:
    """Whether the model is to run code of its own: what is there now must be what the user has allowed."""
    remote = request.architecture.remote_code
    if remote is None:
        return False
    # Reading it anew closes most of the gap in which the files could have been changed.
    return find_remote_code(request.folder, read_config(request.folder)) == remote and is_allowed(remote)


def limit_hub_kernels(allowed: list[str]) -> None:
    """Let transformers take these compiled kernels from the hub and no others, whatever a model or its config says.

    With the package `kernels` installed, it would otherwise fetch and run them for several kinds of layers unasked.
    """
    repositories = {name.partition(":")[0].partition("@")[0] for name in allowed}

    def get_kernel(kernel_name: str, *args: Any, **kwargs: Any) -> Any:
        if kernel_name not in repositories:
            # This very error makes layers fall back to PyTorch.
            raise FileNotFoundError(f"the hub kernel {kernel_name} is not in sftui.allow_hub_kernels")
        return _get_kernel(kernel_name, *args, **kwargs)

    hub_kernels.get_kernel = get_kernel


def model_config(request: LoadRequest, trusted: bool) -> Any:
    """The configuration that the model is built from."""
    config = AutoConfig.from_pretrained(str(request.folder), trust_remote_code=trusted, local_files_only=True)
    # A config.json may name kernels of its own; only the request decides.
    config._attn_implementation = request.attention
    config._experts_implementation = None
    stored = request.architecture.stored_quantization
    if stored is not None and method_of(stored) == "bitsandbytes":
        for part in (config, config.get_text_config()):
            found = getattr(part, "quantization_config", None)
            if isinstance(found, dict):
                found["bnb_4bit_compute_dtype"] = request.dtype
    return config


def skipped_modules(spec: RunSpec, auto_class: Any, config: Any, trusted: bool) -> list[str] | None:
    """The modules that are not quantized, or None for transformers' own list, which a list of ours would replace."""
    always = never_quantized(config.model_type)
    if spec.quantization == "none" or not (spec.sftui.skip_modules or always):
        return None
    with torch.device("meta"):
        empty = auto_class.from_config(copy.deepcopy(config), trust_remote_code=trusted)
    return [*get_keys_to_not_convert(empty), *always, *spec.sftui.skip_modules]


@contextlib.contextmanager
def _watched(meter: LoadMeter | None) -> Iterator[None]:
    if meter is None:
        yield
        return
    thread = threading.get_ident()

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() == thread and kwargs.get("desc") == "Loading weights":
            return meter.watch(args[0])
        return factory(*args, **kwargs) if before is None else before(factory, args, kwargs)

    before = set_tqdm_hook(hook)
    try:
        yield
    finally:
        set_tqdm_hook(before)


class _LoadReport(logging.Handler):
    """Keeps transformers' report: the exceptions in it, a lack of memory among them, are told nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if "LOAD REPORT" in (message := record.getMessage()):
            self.text += message

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while the block runs."""
        logger = logging.getLogger("transformers.modeling_utils")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def _cannot_load(error: Exception, report: str) -> Exception:
    if "OutOfMemoryError" in report or "CUDA out of memory" in report:
        lost: Exception = torch.OutOfMemoryError("CUDA out of memory while the weights were loaded")
        return lost
    text = str(error) or type(error).__name__
    if "automatic conversion of the weights" in text:
        lines = [line for line in report.splitlines() if line.startswith("Error") or "Error:" in line]
        said = shorten(safe(lines[-1].strip()), 300) if lines else "transformers could not convert them"
        return SftuiError(_DAMAGED, f"{said}.", _TAKE_AGAIN)
    if isinstance(error, SafetensorError):
        return SftuiError("A weight file is damaged", safe(text), "Delete the weight files and download them again.")
    return SftuiError(
        "The model cannot be loaded",
        f"{type(error).__name__}: {shorten(safe(' '.join(text.split())), 500)}",
        "Check that config.json belongs to these weights, and that this version of transformers knows the model.",
    )


def _check_complete(model: Any, info: dict[str, Any]) -> None:
    """Refuse what transformers fills with random numbers, and warns of in its log only."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = sorted(info["missing_keys"] & parameters)
    if missing:
        count = "1 weight is" if len(missing) == 1 else f"{len(missing)} weights are"
        raise SftuiError(
            "Weights are missing",
            f"{count} in no file of the checkpoint: {_names(missing)}. They would start as random numbers.",
            "Download the model again; if it is a base model without an output head, take the version that has one.",
        )
    # transformers compares no shapes of layers that it quantizes.
    wrong = sorted([*info["mismatched_keys"], *_wrong_quantized(model)])
    if wrong:
        name, stored, wanted = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise SftuiError(
            _DAMAGED,
            f"config.json asks for {safe(name)} of {_shape(wanted)}, and it is stored as {_shape(stored)}{more}.",
            _TAKE_AGAIN,
        )


def _wrong_quantized(model: Any) -> Iterator[tuple[str, Any, Any]]:
    for name, module in model.named_modules():
        stored = None
        if isinstance(module, Linear4bit) and module.weight.quant_state is not None:
            stored = module.weight.quant_state.shape
        elif isinstance(module, Linear8bitLt):
            stored = module.weight.shape
        wanted = (module.out_features, module.in_features) if stored is not None else None
        if stored is not None and tuple(stored) != wanted:
            yield f"{name}.weight", stored, wanted


def _names(keys: list[str]) -> str:
    return safe(", ".join(keys[:3])) + (", …" if len(keys) > 3 else "")


def _shape(shape: Any) -> str:
    return " × ".join(str(size) for size in shape) or "one number"


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
