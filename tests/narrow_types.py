"""Configurations of every language model type, so narrow that a model with real weights takes a second."""

import re
from typing import Any

from tests.every_type import small_config

VOCABULARY = 128
_WIDTHS = re.compile(r"size|dim|rank|d_model|n_embd|d_ff|ffn|n_inner|width|channels|_expand$|lru")
_NO_WIDTHS = re.compile(
    r"vocab|window|chunk|kernel|d_conv|conv_size|conv_dim_list|patch|group|state|step|batch|image_size|num_|^n_head"
    r"|expand|cache|block_size|compress|ratio|per_layer_dim|position|budget|block"
)
_TOKENS = re.compile(r"_token_id$|_token_index$|_token$|^(bos|eos|pad|sep|cls|unk|mask)_")
_NARROWEST = 8
_GROUPS = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
_OWN: dict[str, dict[str, Any]] = {
    "deepseek_v2": _GROUPS,
    "dots1": _GROUPS,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}
"""What a type's defaults miss, or do not show of its kinds of layers."""


def narrow_config(model_type: str, narrower: int = 16) -> Any:
    """The configuration of a model of this type with few layers, so many times narrower, and a small vocabulary."""
    config = small_config(model_type)
    return type(config).from_dict({**_narrowed(config.to_dict(), narrower), **_OWN.get(model_type, {})})


def _narrowed(values: dict[str, Any], narrower: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kept[name] = _narrowed(value, narrower)
        elif not isinstance(value, int) or isinstance(value, bool):
            kept[name] = value
        elif "vocab_size" in name:
            kept[name] = VOCABULARY
        elif _TOKENS.search(name):
            kept[name] = min(value, VOCABULARY - 1)
        elif _WIDTHS.search(name) and not _NO_WIDTHS.search(name):
            kept[name] = max(value // narrower, min(value, _NARROWEST))
        else:
            kept[name] = value
    return kept
