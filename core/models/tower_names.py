"""Telling the language model from the towers for images and sound beside it by the names of weights alone. Light."""

import re
from collections.abc import Callable, Iterable
from typing import Literal

Part = Literal["text", "vision", "projector", "audio"]
"""A part of a model: what reads text, and the towers beside it with what projects into the language model."""

AUDIO_NAME = re.compile(r"(^|\.)[a-z0-9_]*(audio|speech)[a-z0-9_]*(\.|$)")
VISION_NAME = re.compile(r"(^|\.)[a-z0-9_]*(vision|visual|image|perceiver|multi_modal_projector)[a-z0-9_]*(\.|$)")
HEAD_NAME = re.compile(r"(^|\.)(lm_head|lm_heads|lm_loss|embed_out|output_projection|cls|generation_head)(\.|$)")
_LANGUAGE = re.compile(r"(^|\.)(language_model|text_model|language)\.")
_BESIDE = re.compile(r"(^|\.)[a-z0-9_]*(projector|aligner|merger|resampler|sam_model|mlp_AR)[a-z0-9_]*\.")
_PROJECTOR = re.compile(r"(^|\.)[a-z0-9_]*(projector|projection|connector|aligner|merger|adapter|embedder)[a-z0-9_]*\.")


def parts_by_name(names: Iterable[str]) -> Callable[[str], Part]:
    """Tell the part that each of a vision-language model's weights belongs to, whose names are these.

    Where the names set the language model apart, what lies outside of it reads no text.
    """
    apart = any(_LANGUAGE.search(name) for name in names)

    def part_of(name: str) -> Part:
        if AUDIO_NAME.search(name):
            return "audio"
        inside = _LANGUAGE.search(name) or HEAD_NAME.search(name) if apart else not _BESIDE.search(name)
        if inside and not VISION_NAME.search(name):
            return "text"
        return "projector" if _PROJECTOR.search(name) else "vision"

    return part_of
