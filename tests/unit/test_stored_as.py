"""How a checkpoint is stored: its parameters, quantization and chat template."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.models.architecture import detect
from tests.model_files import LLAMA, write_model, write_safetensors


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def test_parameters_are_counted_once_and_linear_layers_are_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="llama", tie_word_embeddings=False)
    write_safetensors(folder / "model.safetensors", LLAMA, dtype="F32")
    found = detect(folder)
    assert found.problems == ()
    assert found.parameters == 800 + 64 + 128 + 8 + 800
    assert found.lora_targets == ("down_proj", "q_proj")
    assert found.stored_dtype == "float32"
    write_model(tmp_path, model_type="llama", tie_word_embeddings=True)
    assert detect(folder).parameters == 800 + 64 + 128 + 8


def test_the_causal_masks_of_an_old_gpt2_are_no_parameters(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    tensors = {
        "wte.weight": (50, 4),
        "wpe.weight": (16, 4),
        "h.0.attn.bias": (1, 1, 16, 16),
        "h.0.attn.c_attn.weight": (4, 12),
        "h.0.attn.c_attn.bias": (12,),
        "h.0.ln_1.weight": (4,),
    }
    write_safetensors(folder / "model.safetensors", tensors)
    found = detect(folder)
    assert found.parameters == 200 + 64 + 48 + 12 + 4
    assert found.lora_targets == ("c_attn",)


def test_mamba_is_adapted_without_the_layer_that_peft_refuses(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="mamba", architectures=["MambaForCausalLM"])
    tensors: dict[str, tuple[int, ...]] = {
        f"backbone.layers.0.mixer.{name}.weight": (8, 8) for name in ("in_proj", "x_proj", "out_proj")
    }
    write_safetensors(folder / "model.safetensors", tensors)
    found = detect(folder)
    assert found.lora_targets == ("in_proj", "x_proj")
    assert "all-linear fails" in found.problems[0]


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit fp4"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
         "bitsandbytes 4-bit nf4, double"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit"),
        ({"quant_method": "gptq", "bits": 4}, "gptq 4-bit"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq 4-bit"),
        ({"quant_method": "awq", "w_bit": 4}, "awq 4-bit"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "int"}}, "group_1": {"weights": {"num_bits": 8,
            "type": "float"}}, "group_2": None}}, "compressed-tensors 4-bit int 8-bit float"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao int4_weight_only"),
        ({"quant_method": {"a": "\x1b[2J"}}, "{'a': '\\x1b[2J'}"),
    ],
)  # fmt: skip
def test_stored_quantization_is_named_and_parameters_are_not_guessed(
    quantization: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, model_type="llama", quantization_config=quantization, torch_dtype="float16")
    write_safetensors(folder / "model.safetensors", {"model.layers.0.mlp.up_proj.weight": (64, 1)}, dtype="U8")
    found = detect(folder)
    assert (found.stored_quantization, found.parameters, found.stored_dtype) == (words, None, "float16")
    assert found.lora_targets == ("up_proj",)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "gptq 4-bit"),
        ("quant_config.json", {"w_bit": 4, "zero_point": True}, "awq 4-bit"),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, "NVFP4"),
        ("quantize_config.json", [], None),
    ],
)
def test_quantization_told_in_a_file_of_its_own_is_found(
    name: str, content: Any, words: str | None, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, model_type="llama")
    (folder / name).write_text(json.dumps(content))
    assert detect(folder).stored_quantization == words


def test_a_quantized_text_part_is_a_quantized_model(tmp_path: Path) -> None:
    text = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 3}}
    assert detect(write_model(tmp_path, model_type="llava", text_config=text)).stored_quantization == "gptq 3-bit"


@pytest.mark.parametrize(
    ("name", "content", "there"),
    [
        (None, "", False),
        ("chat_template.jinja", "{{ messages }}", True),
        ("chat_template.json", "{}", True),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}', True),
        ("tokenizer_config.json", '{"chat_template": null}', False),
        ("tokenizer_config.json", "broken", False),
        ("processor_config.json", '{"chat_template": "{{ messages }}"}', True),
        ("tokenizer_config.json", "[]", False),
    ],
)
def test_a_chat_template_is_found_in_each_of_its_places(
    name: str | None, content: str, there: bool, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, model_type="llama")
    if name:
        (folder / name).write_text(content)
    assert detect(folder).chat_template is there
