"""What a checkpoint is and which auto class loads it, from its files alone: nothing heavy is imported."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from core.errors import SftuiError
from core.models.auto_tables import Table, auto_tables
from core.models.checkpoint_files import NotSafetensorsError, TensorInfo, read_config, read_tensors
from core.models.config_lookup import ConfigLookup
from core.models.layers import is_linear, leaf_name, parameter_tensors, refused_by_peft
from core.models.model_card import read_license
from core.models.refusals import (
    CAUSAL_TABLE,
    IMAGE_TEXT_TABLE,
    REFUSED,
    REFUSED_HINT,
    in_words,
    refuse,
    refuse_embedding_model,
    unknown,
    unnamed,
)
from core.models.remote_code import CodeNotAllowedError, CodeNotHereError, RemoteCode, find_remote_code, is_allowed
from core.models.stored_as import has_chat_template, stored_dtype, stored_quantization, tokenizer_length
from core.text import safe

AutoClass = Literal["AutoModelForCausalLM", "AutoModelForImageTextToText"]
Preference = Literal["text", "vision"]

_NO_OTHER_WAY = frozenset({"emu3"})
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers")
_LAYER_LISTS = ("layers_block_type", "hybrid_override_pattern")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "model_max_length",
)
_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_ACTIVATION = ("hidden_activation", "hidden_act", "activation_function")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k", "top_k_experts")


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
    """Routed experts of a layer; None for a dense model."""
    active_experts: int | None
    """Experts that each token passes through."""
    sliding_window: int | None
    """Tokens that a layer with local attention sees."""
    stored_dtype: str | None
    """Of most of the weights: "bfloat16"."""
    stored_quantization: str | None
    """"bitsandbytes 4-bit nf4", "gptq 4-bit", …; None for ordinary weights."""
    chat_template: bool
    parameters: int | None
    """Counted in the files, tied weights once; None without files or when the weights are stored quantized."""
    lora_targets: tuple[str, ...]
    """Last names of the linear layers ("q_proj"), guessed from the names and shapes of the weights."""
    problems: tuple[str, ...]
    alternatives: tuple[AutoClass, ...] = ()
    """Both classes where either can load the checkpoint and they differ: with its vision tower, or without."""
    license: str | None = None
    """As the model card names it: "apache-2.0"."""
    remote_code: RemoteCode | None = None
    """Code of the model's own, allowed by the user, without which it cannot be loaded."""
    activation: str | None = None
    """The function in its feed-forward layers: "silu"."""
    caps_logits: bool = False
    """Whether a tanh keeps the output head's answers small."""


@dataclass(frozen=True)
class _Way:
    """How a checkpoint is to be loaded."""

    auto_class: AutoClass
    reason: str
    vision: bool
    alternatives: tuple[AutoClass, ...] = ()
    remote_code: RemoteCode | None = None


def detect(folder: Path, prefer: Preference | None = None) -> Architecture:
    """Return the architecture of the checkpoint in `folder`.

    `prefer` decides where the same weights load with or without their vision tower; where there is no choice it
    changes nothing. Raises SftuiError when config.json is missing or broken, for models that are no generating
    language models or run code of their own that is not allowed, and for weights that have to be converted first.
    Weights that are missing or damaged are among the problems.
    """
    try:
        return _detect(folder, prefer)
    except OSError as error:
        where = safe(str(error.filename or folder))
        raise SftuiError("The model's folder cannot be read", f"{where}: {error.strerror}.") from error


def _detect(folder: Path, prefer: Preference | None) -> Architecture:
    config = read_config(folder)
    model_type = config.get("model_type")
    refuse_embedding_model(folder)
    if not isinstance(model_type, str) or not model_type:
        raise unnamed(folder, config)
    named = config.get("architectures")
    architectures = tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()
    first = architectures[0] if architectures else ""
    tables = auto_tables()
    # As AutoConfig does: the two differ in nothing but the layers' windows.
    effective = "ministral" if model_type == "mistral" and "layer_types" in config else model_type
    look = ConfigLookup(config, effective)
    if any(effective in table for name, table in tables.items() if name.endswith("_MAPPING_NAMES")):
        refuse(effective, first, tables, look)
        way = _choose(effective, first, config, tables, look, prefer)
    else:
        way = _with_own_code(folder, config, model_type, look)

    problems = _remarks(config, effective, first, tables, way)
    tensors: tuple[TensorInfo, ...] = ()
    try:
        tensors = read_tensors(folder)
    except NotSafetensorsError:
        raise
    except SftuiError as error:
        problems.append(str(error))
    found = _describe(folder, config, look, tensors, way)
    return replace(found, model_type=model_type, architectures=architectures, problems=tuple(problems))


def _describe(
    folder: Path, config: dict[str, Any], look: ConfigLookup, tensors: tuple[TensorInfo, ...], way: _Way
) -> Architecture:
    model_type = str(config["model_type"])
    text_only = way.auto_class == "AutoModelForCausalLM" and bool(way.alternatives)
    heads, hidden, tied = look.number(*_HEADS), look.number("hidden_size", "n_embed"), look.tied(text_only=text_only)
    quantization = stored_quantization(folder, config)
    parameters = parameter_tensors(tensors, tied)
    unfit = refused_by_peft(model_type)
    linear = dict.fromkeys(leaf_name(tensor) for tensor in tensors if is_linear(tensor))
    experts = look.experts(*_EXPERTS)
    mixture = experts is not None and experts > 1
    layers = look.number(*_LAYERS) or look.length(*_LAYER_LISTS) or look.number("num_layers")
    if model_type == "longcat_flash" and (pairs := look.number("num_layers")):
        layers = 2 * pairs
    elif model_type == "dory" and layers and "mlp" in (look.value("layer_types") or ()):
        # A released config.json counts attention and MLP as a layer each.
        layers //= 2
    return Architecture(
        model_type=model_type,
        architectures=(),
        auto_class=way.auto_class,
        reason=way.reason,
        vision=way.vision,
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=look.kv_heads(heads),
        # With latent attention, transformers calls the rotated part of a head its size.
        head_dim=look.number("head_dim", "kv_channels")
        or look.number("qk_rope_head_dim")
        or (hidden // heads if hidden and heads else None),
        intermediate_size=look.number(*_INTERMEDIATE) or look.inner_default(hidden),
        vocab_size=look.number("vocab_size", "padded_vocab_size"),
        context_length=look.number(*_CONTEXT) or tokenizer_length(folder),
        tied_embeddings=tied,
        experts=experts if mixture else None,
        active_experts=look.experts(*_ACTIVE_EXPERTS) if mixture else None,
        sliding_window=None if look.value("use_sliding_window") is False else look.number("sliding_window"),
        stored_dtype=stored_dtype(config, () if quantization else parameters),
        stored_quantization=quantization,
        chat_template=has_chat_template(folder),
        parameters=sum(tensor.elements for tensor in parameters) if parameters and quantization is None else None,
        lora_targets=tuple(name for name in linear if name not in unfit),
        problems=(),
        alternatives=way.alternatives,
        license=read_license(folder),
        remote_code=way.remote_code,
        activation=next((name for key in _ACTIVATION if isinstance(name := look.value(key), str)), None),
        caps_logits=look.value("final_logit_softcapping") is not None,
    )


def _choose(
    model_type: str,
    named: str,
    config: dict[str, Any],
    tables: dict[str, Table],
    look: ConfigLookup,
    prefer: Preference | None,
) -> _Way:
    causal, image_text = tables[CAUSAL_TABLE].get(model_type), tables[IMAGE_TEXT_TABLE].get(model_type)
    if image_text is None:
        vision = look.visual()
        kind = "is a text model" if not vision else "reads images too"
        return _Way("AutoModelForCausalLM", f"{model_type} {kind}: transformers loads it as {causal}.", vision)
    if causal is None or causal == image_text:
        vision = look.visual()
        kind = "reads images and text" if vision else "reads text, though transformers lists it with image-text models"
        reason = f"{model_type} {kind}: transformers loads it as {image_text}."
        return _Way("AutoModelForImageTextToText", reason, vision)
    # Emu3 names its weights differently in its two classes, so that each loads only its own.
    with_tower = "vision_config" in config or (model_type in _NO_OTHER_WAY and named != causal)
    both = (with_tower or named == image_text) and model_type not in _NO_OTHER_WAY
    ways: tuple[AutoClass, ...] = get_args(AutoClass) if both else ()
    if ways and prefer is not None:
        vision, why = prefer == "vision", f"{prefer} was asked for"
    elif named == image_text:
        vision, why = True, f"config.json names {named}"
    elif named == causal:
        vision, why = False, f"config.json names {named}"
    else:
        vision = with_tower
        why = f"config.json names no class{', but has a' if vision else ' and has no'} vision_config"
    chosen: AutoClass = "AutoModelForImageTextToText" if vision else "AutoModelForCausalLM"
    if ways:
        reason = (
            f"{model_type} can be loaded with its vision tower, as {image_text}, or without it, as {causal}; {why}."
        )
    elif vision:
        reason = f"{model_type} reads images and text: transformers loads it as {image_text}."
    else:
        reason = f"{model_type} without a vision tower: transformers loads it as {causal}; {why}."
    return _Way(chosen, reason, vision, ways)


def _with_own_code(folder: Path, config: dict[str, Any], model_type: str, look: ConfigLookup) -> _Way:
    remote = find_remote_code(folder, config)
    if remote is None:
        raise unknown(model_type)
    if not is_allowed(remote):
        raise CodeNotAllowedError(in_words(model_type), remote)
    if remote.missing:
        raise CodeNotHereError(folder, remote)
    offered = config["auto_map"] if isinstance(config["auto_map"], dict) else {}
    auto_class: AutoClass
    for auto_class in get_args(AutoClass):
        if isinstance(offered.get(auto_class), str):
            reason = (
                f"the model's own code, which is allowed at {remote.revision}, offers {offered[auto_class]} for it."
            )
            vision = look.visual() and auto_class == "AutoModelForImageTextToText"
            return _Way(auto_class, reason, vision or "vision_config" in config, (), remote)
    there = safe(", ".join(str(name) for name in offered)) or "nothing"
    raise SftuiError(REFUSED, f"The model's own code offers no class that generates text, but {there}.", REFUSED_HINT)


def _remarks(config: dict[str, Any], model_type: str, named: str, tables: dict[str, Table], way: _Way) -> list[str]:
    problems = []
    if "auto_map" in config and way.remote_code is None:
        problems.append("The repository brings its own code; it is not run, transformers' own class is used.")
    elif named and way.remote_code is None and not any(named in table.values() for table in tables.values()):
        problems.append(f"config.json names {in_words(named)}, which transformers does not have: check the answers.")
    if refused_by_peft(model_type):
        problems.append("LoRA cannot adapt out_proj of Mamba layers, so all-linear fails: name the layers to adapt.")
    return problems
