"""One tiny model of each family that is trained for real: two layers, 64 wide, and a byte a token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny import byte_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}


def _llama(tokens: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SMALL, **tokens)


def _qwen3(tokens: dict[str, Any]) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**SMALL, **tokens, tie_word_embeddings=True)


def _gemma3(tokens: dict[str, Any]) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**SMALL, **tokens, query_pre_attn_scalar=16, sliding_window=32)


def _phi3(tokens: dict[str, Any]) -> Any:
    from transformers import Phi3Config

    return Phi3Config(**SMALL, **tokens, original_max_position_embeddings=256)


def _mistral(tokens: dict[str, Any]) -> Any:
    from transformers import MistralConfig

    return MistralConfig(**SMALL, **tokens, sliding_window=32)


def _mixtral(tokens: dict[str, Any]) -> Any:
    from transformers import MixtralConfig

    return MixtralConfig(**SMALL, **tokens, num_local_experts=4, num_experts_per_tok=2)


def _gpt_neox(tokens: dict[str, Any]) -> Any:
    from transformers import GPTNeoXConfig

    kept = {name: value for name, value in SMALL.items() if name not in ("num_key_value_heads", "head_dim")}
    return GPTNeoXConfig(**kept, **tokens)


def _falcon_h1(tokens: dict[str, Any]) -> Any:
    from transformers import FalconH1Config

    return FalconH1Config(
        **SMALL, **tokens, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1
    )


def _llava(tokens: dict[str, Any]) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    return LlavaConfig(vision_config=vision, text_config=LlamaConfig(**SMALL, **tokens), image_token_index=3)


FAMILIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "gpt_neox": _gpt_neox,
    "falcon_h1": _falcon_h1,
    "llava": _llava,
}
"""Model type → the configuration of a tiny one, given the size and the special tokens of its tokenizer."""

_GROUPED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_MIXTURE = {key: value for key, value in SMALL.items() if key != "head_dim"}
_MIXTURE |= {"intermediate_size": 96, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OTHERS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**_MIXTURE, "num_experts": 4, "shared_expert_intermediate_size": 48, "mlp_only_layers": [0]},
    "deepseek_v3": {
        **_MIXTURE,
        **_GROUPED,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    },
    "glm4_moe": {**_MIXTURE, **_GROUPED, "head_dim": 16},
    "ernie4_5_moe": {
        **_MIXTURE,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
    "longcat_flash": {
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "expert_ffn_hidden_size": 32,
        "num_layers": 1,
        "num_attention_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
        "head_dim": 8,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "max_position_embeddings": 256,
    },
    "mamba": {"hidden_size": 64, "num_hidden_layers": 1, "state_size": 8, "time_step_rank": 8},
}
"""Model type → what makes a tiny one. In the first four, layer 0 is dense, and layer 1 has a shared expert."""


def build_family(name: str, folder: Path) -> Path:
    """Save a seeded model of the family or mixture in float32, with its tokenizer; returns the folder."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    tokenizer = byte_tokenizer()
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = FAMILIES[name](tokens) if name in FAMILIES else CONFIG_MAPPING[name](**OTHERS[name], **tokens)
    auto_class = AutoModelForImageTextToText if name == "llava" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto_class.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
