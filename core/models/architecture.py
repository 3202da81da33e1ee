"""What a checkpoint is and which auto class loads it, from its files alone: nothing heavy is imported."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import SftuiError
from core.models.auto_tables import Table, auto_tables
from core.models.checkpoint_files import TensorInfo, read_config, read_tensors
from core.models.config_lookup import TEXT_CONFIGS, ConfigLookup
from core.models.layers import is_linear, leaf_name, parameter_tensors, refused_by_peft
from core.text import safe

AutoClass = Literal["AutoModelForCausalLM", "AutoModelForImageTextToText"]

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
_TABLE = "MODEL_FOR_{}_MAPPING_NAMES"
_SPEECH = "a speech recognition model"
_SEQ2SEQ = "an encoder-decoder model, which is trained on pairs of input and output"
_ENCODER = "an encoder: it reads text and does not generate it"
# What a model type is by the tables that list it; the first that fits names it best.
_KINDS = (
    (("TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM"), "a model that generates speech or music"),
    (("MULTIMODAL_LM",), "a multimodal model with other inputs than images and text"),
    (("SPEECH_SEQ_2_SEQ", "CTC", "RNNT", "TDT"), _SPEECH),
    (("SEQ_TO_SEQ_CAUSAL_LM",), _SEQ2SEQ),
    (("MASKED_LM",), _ENCODER),
    (("AUDIO_CLASSIFICATION", "AUDIO_XVECTOR", "AUDIO_FRAME_CLASSIFICATION"), "an audio model"),
    (
        ("IMAGE", "IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION", "OBJECT_DETECTION"),
        "an image model",
    ),
)
_REFUSED = "This model cannot be fine-tuned here"
_REFUSED_HINT = "Choose a causal language model, or an image-text model that generates text."


@dataclass(frozen=True)
class Architecture:
    """A checkpoint's architecture; a number is None where neither its files nor transformers tell it."""

    model_type: str
    architectures: tuple[str, ...]
    auto_class: AutoClass
    reason: str
    """Why this class, in one sentence."""
    vision: bool
    """The chosen class also loads a vision tower."""
    layers: int | None
    hidden_size: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    intermediate_size: int | None
    vocab_size: int | None
    context_length: int | None
    """Tokens."""
    tied_embeddings: bool
    experts: int | None
    active_experts: int | None
    """Experts that each token passes through."""
    sliding_window: int | None
    """Tokens that a layer with local attention sees."""
    stored_dtype: str | None
    """Of most of the weights: "bfloat16"."""
    stored_quantization: str | None
    """"bitsandbytes 4-bit", "gptq", …; None for ordinary weights."""
    chat_template: bool
    parameters: int | None
    """Counted in the files, tied weights once; None without files or when the weights are stored quantized."""
    lora_targets: tuple[str, ...]
    """Last names of the linear layers ("q_proj"), guessed from the names and shapes of the weights."""
    problems: tuple[str, ...]


def detect(folder: Path) -> Architecture:
    """Return the architecture of the checkpoint in `folder`.

    Raises SftuiError when config.json is missing or broken, and for models that are no generating language models
    or need code of their own. Weights that are missing or damaged are among the problems.
    """
    config = read_config(folder)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise _unnamed(folder)
    named = config.get("architectures")
    architectures = tuple(str(name) for name in named) if isinstance(named, list) else ()
    tables = auto_tables()
    _refuse_embedding_models(folder)
    _refuse(config, model_type, architectures[0] if architectures else "", tables)
    auto_class, reason = _choose(model_type, architectures[0] if architectures else "", config, tables)

    problems = []
    if "auto_map" in config:
        problems.append("The repository brings its own code; it is not run, transformers' own class is used.")
    unfit = refused_by_peft(model_type)
    if unfit:
        problems.append("LoRA cannot adapt out_proj of Mamba layers, so all-linear fails: name the layers to adapt.")
    tensors: tuple[TensorInfo, ...] = ()
    try:
        tensors = read_tensors(folder)
    except SftuiError as error:
        problems.append(str(error))

    look = ConfigLookup(config)
    heads, hidden, tied = look.number("num_attention_heads"), look.number("hidden_size"), look.tied()
    quantization = _stored_quantization(config)
    parameters = parameter_tensors(tensors, tied)
    linear = filter(is_linear, tensors)
    countable = parameters and quantization is None
    return Architecture(
        model_type=model_type,
        architectures=architectures,
        auto_class=auto_class,
        reason=reason,
        vision=auto_class == "AutoModelForImageTextToText",
        layers=look.number("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=look.kv_heads(heads),
        head_dim=look.number("head_dim") or (hidden // heads if hidden and heads else None),
        intermediate_size=look.number(*_INTERMEDIATE) or look.inner_default(hidden),
        vocab_size=look.number("vocab_size"),
        context_length=look.number(*_CONTEXT),
        tied_embeddings=tied,
        experts=look.number(*_EXPERTS),
        active_experts=look.number(*_ACTIVE_EXPERTS) if look.number(*_EXPERTS) else None,
        sliding_window=None if look.value("use_sliding_window") is False else look.number("sliding_window"),
        stored_dtype=_stored_dtype(config, () if quantization else parameters),
        stored_quantization=quantization,
        chat_template=_has_chat_template(folder),
        parameters=sum(tensor.elements for tensor in parameters) if countable else None,
        lora_targets=tuple(name for name in dict.fromkeys(map(leaf_name, linear)) if name not in unfit),
        problems=tuple(problems),
    )


def _choose(model_type: str, named: str, config: dict[str, Any], tables: dict[str, Table]) -> tuple[AutoClass, str]:
    causal = tables["MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"].get(model_type)
    image_text = tables["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"].get(model_type)
    if image_text is None:
        return "AutoModelForCausalLM", f"{model_type} is a text model: transformers loads it as {causal}."
    if causal is None:
        return (
            "AutoModelForImageTextToText",
            f"{model_type} reads images and text: transformers loads it as {image_text}.",
        )
    both = f"{model_type} can be loaded with or without its vision tower"
    if named == image_text:
        return "AutoModelForImageTextToText", f"{both}; config.json names {named}, which has it."
    if named == causal:
        return "AutoModelForCausalLM", f"{both}; config.json names {named}, which reads text only."
    if "vision_config" in config:
        return "AutoModelForImageTextToText", f"{both}; config.json names no class, but has a vision_config."
    return "AutoModelForCausalLM", f"{both}; config.json names no class and has no vision_config."


def _refuse(config: dict[str, Any], model_type: str, named: str, tables: dict[str, Table]) -> None:
    """Raise SftuiError, saying what the model is, unless it generates text from left to right."""
    shown = f"{safe(named or model_type)} ({safe(model_type)})"
    types = {name: set(table) for name, table in tables.items()}
    causal = tables["MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"].get(model_type)
    image_text = tables["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"].get(model_type)
    if not any(model_type in of_table for name, of_table in types.items() if name.endswith("_MAPPING_NAMES")):
        raise _unknown(config, safe(model_type))

    kinds = [kind for names, kind in _KINDS if any(model_type in types.get(_TABLE.format(n), ()) for n in names)]
    # Names a class that generates although its type is listed with encoders too, such as a BERT decoder.
    generates = named in {causal, image_text} - {None}
    kind = ""
    if causal is None and image_text is None:
        kind = kinds[0] if kinds else "a model without a language-model head in transformers"
    elif config.get("is_encoder_decoder") is True:
        kind = kinds[0] if _SPEECH in kinds else _SEQ2SEQ
    elif _SPEECH in kinds or _SEQ2SEQ in kinds:
        kind = kinds[0] if config.get("is_encoder_decoder") is None or not generates else ""
    elif generates:
        return
    elif _ENCODER in kinds:
        kind = _ENCODER
    elif named in _classes(tables, "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING"):
        kind = "a classifier: it has no language-model head"
    elif named and named == tables.get("MODEL_MAPPING_NAMES", {}).get(model_type):
        kind = "saved without a language-model head, as embedding models are"
    if kind:
        raise SftuiError(_REFUSED, f"{shown} is {kind}.", _REFUSED_HINT)


def _classes(tables: dict[str, Table], *names: str) -> set[str]:
    return {value for name in names for value in tables.get(_TABLE.format(name), {}).values()}


def _unnamed(folder: Path) -> SftuiError:
    return SftuiError(
        "The model does not say what it is",
        f"{safe(str(folder / 'config.json'))} has no model_type, so no class to load it can be chosen.",
        "Add the model_type of the model that this one was made from.",
    )


def _unknown(config: dict[str, Any], model_type: str) -> SftuiError:
    if "auto_map" in config:
        return SftuiError(
            _REFUSED,
            f"“{model_type}” is not a model of transformers: it is loaded by code from its own repository "
            "(auto_map), which could do anything on this machine.",
            "Choose a version of the model that transformers supports itself.",
        )
    return SftuiError(
        _REFUSED,
        f"The installed transformers does not know the model type “{model_type}”.",
        "A newer transformers may: pip install --upgrade transformers",
    )


def _refuse_embedding_models(folder: Path) -> None:
    for marker in ("config_sentence_transformers.json", "modules.json"):
        if (folder / marker).is_file():
            raise SftuiError(
                _REFUSED,
                f"{safe(folder.name)} is a sentence embedding model ({marker}): it turns text into vectors.",
                _REFUSED_HINT,
            )


def _stored_dtype(config: dict[str, Any], parameters: tuple[TensorInfo, ...]) -> str | None:
    sizes: Counter[str] = Counter()
    for tensor in parameters:
        sizes[tensor.dtype] += tensor.byte_count
    if sizes:
        dtype = sizes.most_common(1)[0][0]
        return _DTYPES.get(dtype, dtype.lower())
    nested = [config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict)]
    for values in (config, *nested):
        for key in ("dtype", "torch_dtype"):
            if isinstance(values.get(key), str):
                return str(values[key]).removeprefix("torch.")
    return None


def _stored_quantization(config: dict[str, Any]) -> str | None:
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    method = str(found.get("quant_method", "bitsandbytes"))
    if method == "bitsandbytes":
        return f"bitsandbytes {4 if found.get('load_in_4bit') else 8}-bit"
    return safe(re.sub(r"\s+", " ", method))


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(tokenizer, dict) and bool(tokenizer.get("chat_template"))
