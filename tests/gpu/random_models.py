"""Models with random weights in the sizes of published ones, so that no network is needed to measure what they take.

python -m tests.gpu.random_models NAME FOLDER [--tiny]
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from tests.families import SMALL

# The sizes in config.json of huggingface.co/meta-llama/Llama-3.1-8B, huggingface.co/Qwen/Qwen3-4B and
# huggingface.co/google/gemma-3-1b-pt.
MODELS: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
    },
    "qwen3-4b": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    # Of no published model: large enough for its activations to be counted in gigabytes, small enough to load at once.
    "wide": {
        "model_type": "llama",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 512,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}
_TINY = SMALL | {"vocab_size": 512, "max_position_embeddings": 1024}
_SHARD = "4GB"


def build_random(name: str, folder: Path, *, tiny: bool = False) -> dict[str, Any]:
    """Save a seeded model in bfloat16, made on the GPU if there is one, with a tokenizer that spells a byte a token.

    The folder is there whole or not at all. Returns what of PyTorch is told by PyTorch alone.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from tests.tiny import byte_tokenizer

    values = MODELS[name] | (_TINY if tiny else {})
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = values["max_position_embeddings"]
    config = CONFIG_MAPPING[values["model_type"]](
        **{key: value for key, value in values.items() if key != "model_type"},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    beside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(beside, max_shard_size=_SHARD)
    tokenizer.save_pretrained(beside)
    beside.rename(folder)
    return {"torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> None:
    """Build one, and print what PyTorch is as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="in the same family, but small")
    options = parser.parse_args()
    print(json.dumps(build_random(options.name, options.folder, tiny=options.tiny)))


if __name__ == "__main__":
    main()
