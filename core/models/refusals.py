"""Which models are no generating language models, and what they are instead, in one sentence each."""

import re
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.models.auto_tables import Table
from core.models.config_lookup import ConfigLookup
from core.text import safe, shorten

CAUSAL_TABLE = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
IMAGE_TEXT_TABLE = "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"
REFUSED = "This model cannot be fine-tuned here"
REFUSED_HINT = "Choose a causal language model, or an image-text model that generates text."

_SPEECH = "a speech recognition model"
_SOUND = "a model that generates speech or music"
_SEQ2SEQ = "an encoder-decoder model, which is trained on pairs of input and output"
_ENCODER = "an encoder: it reads text and does not generate it"
_IMAGE = "an image model"
_UNSHIFTED = "and transformers' loss for it compares each token with itself instead of the next one"
_DRAFTER = "a drafter: it runs only on the states of the larger model that it speeds up"
# What a model type is by the tables that list it; the first that fits names it best.
_KINDS = (
    (("TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM"), _SOUND),
    (("MULTIMODAL_LM",), "a multimodal model with other inputs than images and text"),
    (("SPEECH_SEQ_2_SEQ", "CTC", "RNNT", "TDT"), _SPEECH),
    (("SEQ_TO_SEQ_CAUSAL_LM",), _SEQ2SEQ),
    (("MASKED_LM", "NEXT_SENTENCE_PREDICTION"), _ENCODER),
    (("RETRIEVAL",), "an embedding model: it turns its input into vectors"),
    (("AUDIO_CLASSIFICATION", "AUDIO_XVECTOR", "AUDIO_FRAME_CLASSIFICATION"), "an audio model"),
    (
        ("TIME_SERIES_PREDICTION", "TIME_SERIES_REGRESSION", "TIME_SERIES_CLASSIFICATION"),
        "a model of time series",
    ),
    (("VIDEO_CLASSIFICATION",), "a video model"),
    (
        (
            "IMAGE",
            "IMAGE_CLASSIFICATION",
            "ZERO_SHOT_IMAGE_CLASSIFICATION",
            "OBJECT_DETECTION",
            "ZERO_SHOT_OBJECT_DETECTION",
            "BACKBONE",
            "DEPTH_ESTIMATION",
            "KEYPOINT_DETECTION",
            "KEYPOINT_MATCHING",
            "MASK_GENERATION",
            "IMAGE_TO_IMAGE",
            "TEXT_RECOGNITION",
            "TABLE_RECOGNITION",
        ),
        _IMAGE,
    ),
)
# Types that transformers lists with the language models, though nothing can teach them the next token.
_NEVER_CAUSAL = {
    "cpmant": f"a model that reads its prompt in both directions, {_UNSHIFTED}",
    "diffusion_gemma": "a text diffusion model: it fills whole blocks of text instead of writing from left to right",
    "evolla": "a model of proteins, which transformers' auto classes do not load",
    "gemma4_assistant": _DRAFTER,
    "gemma4_unified_assistant": _DRAFTER,
    "musicgen": _SOUND,
    "musicgen_melody": _SOUND,
    "pi0": "a robot policy: it generates movements, not text",
    "trocr": f"the text decoder of a model that reads images, {_UNSHIFTED}",
    "xlm": f"an encoder, {_UNSHIFTED}",
    "xlnet": f"a permutation language model, {_UNSHIFTED}",
}
_PART = re.compile(
    r"(?<!_to)_(text|text_model|vision|vision_model|audio|audio_model|(mask_|prompt_)?(en|de)coder(_model)?|qformer|vqgan)$"
)
# In no table of encoders, but bidirectional unless it is told to decode.
_ALSO_ENCODERS = frozenset({"bert-generation"})


def refuse(model_type: str, named: str, tables: dict[str, Table], look: ConfigLookup) -> None:
    """Raise SftuiError, saying what the model is, unless it generates text from left to right."""
    kind = _kind(model_type, named, tables, look)
    if not kind and named not in (tables[CAUSAL_TABLE].get(model_type), tables[IMAGE_TEXT_TABLE].get(model_type)):
        if named in _classes(tables, "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING"):
            kind = "a classifier: it has no language-model head"
        elif named and named == tables.get("MODEL_MAPPING_NAMES", {}).get(model_type):
            kind = "saved without a language-model head, as embedding models are"
    if kind:
        raise SftuiError(REFUSED, f"{in_words(named or model_type)} ({in_words(model_type)}) is {kind}.", REFUSED_HINT)


def _kind(model_type: str, named: str, tables: dict[str, Table], look: ConfigLookup) -> str:
    causal, image_text = tables[CAUSAL_TABLE].get(model_type), tables[IMAGE_TEXT_TABLE].get(model_type)
    kinds = [kind for names, kind in _KINDS if any(model_type in _table(tables, name) for name in names)]
    if model_type in _NEVER_CAUSAL:
        return _NEVER_CAUSAL[model_type]
    if causal is None and image_text is None:
        if not kinds and _PART.search(model_type):
            return "a part of a larger model: it has no language-model head of its own"
        return kinds[0] if kinds else "a model without a language-model head in transformers"
    if look.outer("is_encoder_decoder") is True:
        return _SPEECH if _SPEECH in kinds else _SEQ2SEQ
    if look.text_type in _table(tables, "SEQ_TO_SEQ_CAUSAL_LM") and look.text_type not in tables[CAUSAL_TABLE]:
        return _SEQ2SEQ
    whole = _table(tables, "SEQ_TO_SEQ_CAUSAL_LM").get(model_type) or _table(tables, "SPEECH_SEQ_2_SEQ").get(model_type)
    if causal is not None and whole is not None and causal != whole:
        return f"the decoder of an encoder-decoder model, {_UNSHIFTED}"
    if (_ENCODER in kinds or model_type in _ALSO_ENCODERS) and (
        look.outer("is_decoder") is not True or (named and named != causal)
    ):
        return _ENCODER
    return ""


def refuse_embedding_model(folder: Path) -> None:
    """Raise SftuiError for a folder of sentence-transformers."""
    for marker in ("config_sentence_transformers.json", "modules.json"):
        if (folder / marker).is_file():
            raise SftuiError(
                REFUSED,
                f"{safe(folder.name)} is a sentence embedding model ({marker}): it turns text into vectors.",
                REFUSED_HINT,
            )


def unnamed(folder: Path, config: dict[str, Any]) -> SftuiError:
    """Return the error for a config.json without a model type."""
    if "_diffusers_version" in config:
        return SftuiError(
            REFUSED, f"{safe(folder.name)} is a part of a diffusion pipeline, which makes images.", REFUSED_HINT
        )
    return SftuiError(
        "The model does not say what it is",
        f"{safe(str(folder / 'config.json'))} has no model_type, so no class to load it can be chosen.",
        "Add the model_type of the model that this one was made from.",
    )


def unknown(model_type: str) -> SftuiError:
    """Return the error for a type that transformers does not have."""
    return SftuiError(
        REFUSED,
        f"The installed transformers does not know the model type “{in_words(model_type)}”.",
        "A newer transformers may: pip install --upgrade transformers",
    )


def in_words(foreign: str) -> str:
    """Return a name out of a config.json as a sentence can hold it."""
    return safe(shorten(foreign, 80))


def _table(tables: dict[str, Table], name: str) -> Table:
    return tables.get(f"MODEL_FOR_{name}_MAPPING_NAMES", {})


def _classes(tables: dict[str, Table], *names: str) -> set[str]:
    return {value for name in names for value in _table(tables, name).values()}
