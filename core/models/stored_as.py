"""How a checkpoint is stored: the type of its weights, their quantization, its chat template."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.models.auto_tables import TEXT_CONFIGS
from core.models.checkpoint_files import TensorInfo, read_json_object
from core.text import safe, shorten

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_QUANTIZATION_FILES = (("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", ""))
_TEMPLATE_FILES = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")


def stored_dtype(config: dict[str, Any], parameters: tuple[TensorInfo, ...]) -> str | None:
    """Return the type of most of the weights, else the one that config.json names: "bfloat16"."""
    sizes: Counter[str] = Counter()
    for tensor in parameters:
        sizes[tensor.dtype] += tensor.byte_count
    if sizes:
        dtype = sizes.most_common(1)[0][0]
        return _DTYPES.get(dtype, dtype.lower())
    for values in _with_text_parts(config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(values.get(key), str):
                return str(values[key]).removeprefix("torch.")
    return None


def stored_quantization(folder: Path, config: dict[str, Any]) -> str | None:
    """Return how the weights are quantized on disk, with the bits where they are told; None for ordinary weights."""
    for values in _with_text_parts(config):
        for key in ("quantization_config", "compression_config"):
            if isinstance(values.get(key), dict) and values[key]:
                return _quantization(values[key])
    for name, method in _QUANTIZATION_FILES:
        found = _optional(folder / name)
        inner = found.get("quantization", found)
        if isinstance(inner, dict) and inner:
            return _quantization({"quant_method": method or inner.get("quant_algo", "modelopt"), **inner})
    return None


def _quantization(found: dict[str, Any]) -> str:
    # Without a method, transformers takes it for bitsandbytes.
    method = _word(found.get("quant_method") or "bitsandbytes")
    if method.startswith("bitsandbytes"):
        if found.get("load_in_4bit") is not True and not method.endswith("4bit"):
            return "bitsandbytes 8-bit"
        kind = f"bitsandbytes 4-bit {_word(found.get('bnb_4bit_quant_type', 'fp4'))}"
        return f"{kind}, double" if found.get("bnb_4bit_use_double_quant") is True else kind
    if isinstance(found.get("config_groups"), dict):
        kinds = [_group(group) for group in found["config_groups"].values()]
        return " ".join(dict.fromkeys([method, *filter(None, kinds)]))
    if isinstance(found.get("quant_type"), str | dict):
        return f"{method} {_word(found['quant_type'])}"
    bits = next((found[key] for key in ("bits", "w_bit", "nbits", "weight_bits") if type(found.get(key)) is int), None)
    return method if bits is None else f"{method} {bits}-bit"


def _group(group: Any) -> str:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict) or type(weights.get("num_bits")) is not int:
        return ""
    return f"{weights['num_bits']}-bit {_word(weights.get('type', 'int'))}"


def _word(value: Any) -> str:
    return safe(shorten(re.sub(r"\s+", " ", str(value)), 60))


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer or the processor brings a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return any(bool(_optional(folder / name).get("chat_template")) for name in _TEMPLATE_FILES)


def tokenizer_length(folder: Path) -> int | None:
    """Return the most tokens that the tokenizer's configuration gives the model, where it names a true limit."""
    found = _optional(folder / "tokenizer_config.json").get("model_max_length")
    # Tokenizers without a limit write 10**30.
    return found if type(found) is int and 0 < found < 10**9 else None


def _optional(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path, "") if path.is_file() else {}
    except (SftuiError, OSError):
        return {}


def _with_text_parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    yield from (config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict))
