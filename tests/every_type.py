"""A configuration of every language model type that transformers has: its own defaults, with as few layers as it takes.

Widths stay as they are: the models are built on the meta device, where they cost nothing.
"""

from typing import Any

_LAYERS = frozenset(
    {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers", "decoder_layers",
     "vision_layers", "num_global_layers", "num_blocks", "encoder_num_layers"}
)  # fmt: skip
_EXPERTS = frozenset({"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"})
_ROPE = {"rope_theta": 10_000.0, "rope_type": "default"}
_INDEXER = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256, "indexer_budget": 64,
            "indexer_compress_ratio": 4}  # fmt: skip
# Types that no class defaults make, with what they miss.
_NEEDED: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 1}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 48},
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
}
# Their layers differ from one another and name each other.
_WHOLE = frozenset(
    {"dory", "dots3_note", "dots3_note_text", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified",
     "gemma4_unified_text", "olmo_hybrid"}
)  # fmt: skip
# Both of their kinds of layers are in the first eight.
_EIGHT = frozenset({"jamba", "nemotron_h", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text",
                    "zamba2", "zamba", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "recurrent_gemma"})  # fmt: skip


def small_config(model_type: str) -> Any:
    """The configuration of a model of this type with two layers, or as many as show all its kinds."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    config = config_class(**_NEEDED.get(model_type, {}))
    if model_type in _WHOLE:
        return config
    return config_class.from_dict(_shrunk(config.to_dict(), 8 if model_type in _EIGHT else 2))


def _shrunk(values: dict[str, Any], layers: int) -> dict[str, Any]:
    counts = [values[name] for name in _LAYERS & values.keys() if isinstance(values[name], int)]
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in _LAYERS and isinstance(value, int):
            kept[name] = min(value, layers)
        elif name in _EXPERTS and isinstance(value, int):
            kept[name] = min(value, max(16, values.get("num_experts_per_tok") or 0))
        elif isinstance(value, list) and len(value) in counts:
            kept[name] = value[:layers]
        elif isinstance(value, dict):
            kept[name] = _shrunk(value, layers)
        else:
            kept[name] = value
    return kept
