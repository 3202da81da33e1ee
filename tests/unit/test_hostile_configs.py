"""A model folder may hold anything: its files get an answer or an error in words, never a traceback."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import SftuiError
from core.models.architecture import detect

KEYS = [
    "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "vocab_size", "max_position_embeddings", "intermediate_size", "n_embd", "n_layer", "n_head", "n_inner", "d_model",
    "tie_word_embeddings", "tie_embedding", "sliding_window", "use_sliding_window", "layer_types", "layers_block_type",
    "num_local_experts", "num_experts_per_tok", "is_moe", "ffn_config", "attn_config", "multi_query", "text_config",
    "vision_config", "language_config", "quantization_config", "compression_config", "dtype", "torch_dtype",
    "is_encoder_decoder", "is_decoder", "auto_map", "num_layers", "qk_rope_head_dim", "_diffusers_version",
]  # fmt: skip
QUANTIZATION = ["bits", "w_bit", "load_in_4bit", "bnb_4bit_quant_type", "config_groups", "quant_type"]
INNER = ["model_type", "weights", "num_bits", "type", "kv_n_heads", "moe_num_experts", "AutoModelForCausalLM",
         "AutoConfig"]  # fmt: skip
TYPES = ["llama", "gpt2", "qwen3_5", "llava", "gemma3", "falcon", "dbrx", "bert", "blip-2", "bart", "longcat_flash",
         "mistral", "mamba", "nemotron_h", "emu3", "whisper", "vit", "mine", "../../etc", "", "\ud800"]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TYPES)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS + INNER + QUANTIZATION), inner, max_size=4)
    ),
    max_leaves=8,
)
quantizations = st.fixed_dictionaries(
    {"quant_method": st.sampled_from(["bitsandbytes", "gptq", "compressed-tensors"]) | values},
    optional=dict.fromkeys(QUANTIZATION, values),
)
configs = st.builds(
    lambda model_type, rest, quantization: {**rest, **quantization, "model_type": model_type},
    st.sampled_from(TYPES[:7]) | st.sampled_from(TYPES) | values,
    st.dictionaries(st.sampled_from(KEYS), values, max_size=12),
    st.just({}) | st.builds(lambda found: {"quantization_config": found}, quantizations),
)


def look_at(files: dict[str, str | bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            found = detect(Path(name))
        except SftuiError as error:
            assert error.message
            return
        json.dumps(dataclasses.asdict(found))
        numbers = (found.layers, found.hidden_size, found.heads, found.kv_heads, found.vocab_size, found.experts)
        assert all(number is None or (type(number) is int and number > 0) for number in numbers)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_any_config_is_answered(config: dict[str, Any]) -> None:
    look_at({"config.json": json.dumps(config)})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["tokenizer_config.json", "processor_config.json", "quantize_config.json", "hf_quant_config.json",
         "chat_template.jinja", "model.safetensors.index.json", "model.safetensors", "README.md", "modules.json"]
    ),
    values.map(json.dumps) | st.binary(max_size=40),
)  # fmt: skip
def test_any_file_beside_it_is_answered(name: str, content: str | bytes) -> None:
    look_at({"config.json": '{"model_type": "llama", "num_hidden_layers": 2}', name: content})


@pytest.mark.parametrize(
    "config",
    [
        lambda: '{"model_type": "llama", "a": ' + "[" * 200_000,
        lambda: '{"a":' * 100_000,
        lambda: '{"model_type": "llama", "hidden_size": ' + "9" * 10_000 + "}",
        lambda: json.dumps({"model_type": "llama", "architectures": ["A" * 5_000_000]}),
        lambda: json.dumps({"model_type": "l" * 5_000_000}),
        lambda: json.dumps({"model_type": "llava", "text_config": {"model_type": "x" * 5_000}}),
        lambda: json.dumps({"model_type": "llama", "hidden_size": 10**300, "num_attention_heads": 7}),
        lambda: json.dumps({"model_type": "llama", "num_hidden_layers": [1] * 1_000_000}),
        lambda: '{"model_type": "llama", "hidden_size": NaN, "vocab_size": Infinity}',
        lambda: "\x00",
        lambda: "",
    ],
)
def test_huge_and_deep_configs_are_answered(config: Callable[[], str]) -> None:
    look_at({"config.json": config()})


def test_a_config_too_big_to_be_one_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(SftuiError, match="no configuration"):
        detect(tmp_path)
