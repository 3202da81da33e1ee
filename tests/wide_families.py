"""Models of four layers, 256 wide: large enough that what each layer holds is not lost in what every run holds."""

from pathlib import Path
from typing import Any

from tests.tiny import byte_tokenizer

_SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 2048,
    "pad_token_id": 0,
}
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neox": {"num_key_value_heads": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 176},
    "phi3": {"original_max_position_embeddings": 2048},
    "qwen3": {"head_dim": 32},
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32},
    "glm4": {"head_dim": 32},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
}
WIDE = (
    "llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral", "phi3", "granite", "smollm3", "olmo2", "gemma",
    "starcoder2", "glm4", "gpt_neox", "mixtral", "qwen3_moe", "lfm2",
)  # fmt: skip
"""Model types, those that are trained most first."""


def wide_config(model_type: str) -> Any:
    """The configuration of a model of this type."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**{**_SIZES, **_OWN.get(model_type, {})})


def build_wide(model_type: str, folder: Path) -> Path:
    """Save a seeded model in bfloat16 with a tokenizer; returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(wide_config(model_type), dtype=torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
