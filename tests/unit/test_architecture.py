"""What a checkpoint's files tell about it, and which of them are refused, in words."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.models import auto_tables
from core.models.architecture import Preference, detect
from core.models.checkpoint_files import adapter_base, read_tensors, resolve_model_folder

CAUSAL = "AutoModelForCausalLM"
IMAGE_TEXT = "AutoModelForImageTextToText"
SIZES = {"F32": 4, "BF16": 2, "U8": 1, "I8": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def write_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_safetensors(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str = "BF16", cut: int = 0) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        size = SIZES[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * (end - cut))


LLAMA = {
    "model.embed_tokens.weight": (100, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 16),
    "model.layers.0.input_layernorm.weight": (8,),
    "lm_head.weight": (100, 8),
}


def test_a_llama_tells_its_shape_and_why_it_is_causal(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path,
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=8192,
        vocab_size=128256,
        max_position_embeddings=131072,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
    )
    found = detect(folder)
    assert (found.auto_class, found.vision) == (CAUSAL, False)
    assert "LlamaForCausalLM" in found.reason
    assert (found.layers, found.hidden_size, found.heads, found.kv_heads, found.head_dim) == (16, 2048, 32, 8, 64)
    assert (found.intermediate_size, found.vocab_size, found.context_length) == (8192, 128256, 131072)
    assert found.tied_embeddings
    assert (found.experts, found.active_experts, found.sliding_window) == (None, None, None)
    assert (found.stored_dtype, found.stored_quantization, found.parameters) == ("bfloat16", None, None)
    assert len(found.problems) == 1
    assert "model.safetensors" in found.problems[0]


TEXT_MODELS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("qwen3", "Qwen3ForCausalLM", {"head_dim": 128, "num_attention_heads": 16}, {"head_dim": 128, "heads": 16}),
    ("gemma3_text", "Gemma3ForCausalLM", {}, {"tied_embeddings": True, "head_dim": 256, "sliding_window": 4096}),
    ("phi3", "Phi3ForCausalLM", {"sliding_window": 2047}, {"sliding_window": 2047, "layers": 32}),
    ("mistral", "MistralForCausalLM", {"sliding_window": None}, {"sliding_window": None, "kv_heads": 8}),
    ("mistral", "MistralForCausalLM", {}, {"sliding_window": 4096}),
    ("qwen2", "Qwen2ForCausalLM", {"sliding_window": 32768, "use_sliding_window": False}, {"sliding_window": None}),
    ("mixtral", "MixtralForCausalLM", {"num_local_experts": 8}, {"experts": 8, "active_experts": 2}),
    ("gpt_neox", "GPTNeoXForCausalLM", {"hidden_size": 512}, {"hidden_size": 512, "heads": 64, "kv_heads": 64}),
    (
        "gpt2",
        "GPT2LMHeadModel",
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024},
        {"hidden_size": 768, "layers": 12, "heads": 12, "head_dim": 64, "context_length": 1024,
         "intermediate_size": 3072, "tied_embeddings": True},
    ),
    ("mamba", "MambaForCausalLM", {"num_hidden_layers": 24}, {"layers": 24, "heads": None, "kv_heads": None}),
    ("falcon_h1", "FalconH1ForCausalLM", {}, {"layers": 32, "experts": None}),
    ("falcon", "FalconForCausalLM", {"multi_query": True}, {"kv_heads": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "named", "config", "expected"), TEXT_MODELS)
def test_text_models_under_their_own_key_names_and_defaults(
    model_type: str, named: str, config: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    found = detect(write_model(tmp_path, model_type=model_type, architectures=[named], **config))
    assert (found.auto_class, found.vision, found.model_type) == (CAUSAL, False, model_type)
    assert {field: getattr(found, field) for field in expected} == expected


VISION_MODELS = [
    ("gemma3", "Gemma3ForConditionalGeneration", {"model_type": "gemma3_text", "hidden_size": 2560}),
    ("llava", "LlavaForConditionalGeneration", {"model_type": "llama", "hidden_size": 2560}),
    ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", {"model_type": "qwen2_5_vl_text", "hidden_size": 2560}),
]


@pytest.mark.parametrize(("model_type", "named", "text"), VISION_MODELS)
def test_image_text_models_are_described_by_their_text_part(
    model_type: str, named: str, text: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_model(
        tmp_path, model_type=model_type, architectures=[named], text_config=text, vision_config={"hidden_size": 9}
    )
    found = detect(folder)
    assert (found.auto_class, found.vision, found.hidden_size) == (IMAGE_TEXT, True, 2560)
    assert found.layers is not None
    assert model_type in found.reason


@pytest.mark.parametrize(
    ("named", "extra", "auto_class"),
    [
        (["Qwen3_5ForConditionalGeneration"], {"vision_config": {}}, IMAGE_TEXT),
        (["Qwen3_5ForCausalLM"], {"vision_config": {}}, CAUSAL),
        ([], {"vision_config": {}}, IMAGE_TEXT),
        ([], {}, CAUSAL),
    ],
)
def test_a_type_in_both_tables_follows_what_the_config_names(
    named: list[str], extra: dict[str, Any], auto_class: str, tmp_path: Path
) -> None:
    found = detect(write_model(tmp_path, model_type="qwen3_5", architectures=named, **extra))
    assert found.auto_class == auto_class
    assert (named[0] if named else "names no class") in found.reason
    # Without a vision_config there is no tower to choose.
    assert found.alternatives == ((CAUSAL, IMAGE_TEXT) if extra else ())


@pytest.mark.parametrize(
    ("prefer", "auto_class", "vision"),
    [("text", CAUSAL, False), ("vision", IMAGE_TEXT, True), (None, IMAGE_TEXT, True)],
)
def test_one_may_ask_for_a_model_with_or_without_its_vision_tower(
    prefer: Preference | None, auto_class: str, vision: bool, tmp_path: Path
) -> None:
    text = {"model_type": "qwen3_5_text", "tie_word_embeddings": True}
    named = ["Qwen3_5ForConditionalGeneration"]
    folder = write_model(
        tmp_path,
        model_type="qwen3_5",
        architectures=named,
        text_config=text,
        vision_config={},
        tie_word_embeddings=False,
    )
    found = detect(folder, prefer)
    assert (found.auto_class, found.vision, found.alternatives) == (auto_class, vision, (CAUSAL, IMAGE_TEXT))
    assert "Qwen3_5ForCausalLM" in found.reason
    assert "Qwen3_5ForConditionalGeneration" in found.reason
    assert ("was asked for" in found.reason) == (prefer is not None)
    # The text part loaded alone is its own model: its key counts.
    assert found.tied_embeddings == (prefer == "text")


@pytest.mark.parametrize("prefer", ["text", "vision"])
@pytest.mark.parametrize(
    ("model_type", "named", "auto_class"),
    [
        ("llama", "LlamaForCausalLM", CAUSAL),
        ("gemma3", "Gemma3ForConditionalGeneration", IMAGE_TEXT),
        ("emu3", "Emu3ForConditionalGeneration", IMAGE_TEXT),
    ],
)
def test_a_wish_changes_nothing_where_there_is_one_way(
    prefer: Preference, model_type: str, named: str, auto_class: str, tmp_path: Path
) -> None:
    found = detect(write_model(tmp_path, model_type=model_type, architectures=[named], vision_config={}), prefer)
    assert (found.auto_class, found.alternatives) == (auto_class, ())
    assert "asked" not in found.reason


@pytest.mark.parametrize(
    ("model_type", "auto_class", "vision"),
    [("mistral4", IMAGE_TEXT, False), ("phi4_multimodal", CAUSAL, True), ("fuyu", IMAGE_TEXT, True)],
)
def test_a_vision_tower_is_told_apart_from_the_table_that_lists_the_type(
    model_type: str, auto_class: str, vision: bool, tmp_path: Path
) -> None:
    found = detect(write_model(tmp_path, model_type=model_type))
    assert (found.auto_class, found.vision) == (auto_class, vision)


def test_a_name_that_transformers_does_not_have_is_doubted(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="llama", architectures=["LlamaMedusaForCausalLM", {"not": "a name"}])
    write_safetensors(folder / "model.safetensors", LLAMA)
    found = detect(folder)
    assert found.architectures == ("LlamaMedusaForCausalLM",)
    assert "LlamaMedusaForCausalLM" in found.problems[0]
    assert "LlamaForCausalLM" in found.reason


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "an encoder"),
        ({"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"]}, "an encoder"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        (
            {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True},
            "encoder-decoder",
        ),
        ({"model_type": "t5gemma2", "architectures": ["T5Gemma2ForConditionalGeneration"]}, "encoder-decoder"),
        (
            {"model_type": "whisper", "architectures": ["WhisperForCausalLM"], "is_encoder_decoder": True},
            "speech recognition",
        ),
        ({"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}, "speech recognition"),
        ({"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]}, "speech recognition"),
        ({"model_type": "bark", "architectures": ["BarkModel"]}, "speech or music"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "an image model"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "an image model"),
        ({"model_type": "qwen2_audio", "architectures": ["Qwen2AudioForConditionalGeneration"]}, "other inputs"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "a classifier"),
        ({"model_type": "mistral", "architectures": ["MistralModel"]}, "without a language-model head"),
        ({"model_type": "mystery", "auto_map": {"AutoModelForCausalLM": "m.M"}}, "code from its own repository"),
        ({"model_type": "mystery"}, "does not know the model type “mystery”"),
        ({"model_type": "\x1b[31m"}, "␛[31m"),
        ({"model_type": "blip-2", "text_config": {"model_type": "t5"}}, "encoder-decoder"),
        ({"model_type": "bart", "architectures": ["BartForCausalLM"], "is_encoder_decoder": False}, "the decoder of"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "an encoder"),
        ({"model_type": "colpali", "architectures": ["ColPaliForRetrieval"]}, "an embedding model"),
        ({"model_type": "qwen2_5_vl_text"}, "a part of a larger model"),
        ({"model_type": "speech_to_text"}, "speech recognition"),
        ({"model_type": "timesfm"}, "time series"),
        ({"model_type": "pi0"}, "a robot policy"),
        ({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30"}, "diffusion pipeline"),
        ({"architectures": ["LlamaForCausalLM"]}, "no model_type"),
    ],
)
def test_what_does_not_generate_text_is_refused_with_what_it_is(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SftuiError) as refusal:
        detect(write_model(tmp_path, **config))
    assert words in refusal.value.message
    assert refusal.value.hint
    assert "\x1b" not in str(refusal.value)


def test_an_encoder_saved_as_a_decoder_is_taken(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="bert", architectures=["BertLMHeadModel"], is_decoder=True)
    assert detect(folder).auto_class == CAUSAL


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("modules.json", "[]", "sentence embedding"),
        ("config.json", '{"model_type": "llama",\n\n}', "config.json:3:"),
        ("config.json", "[1]", "a JSON object is needed"),
        ("config.json", "\x80", "config.json"),
    ],
)
def test_files_that_spoil_a_folder_are_named(name: str, content: str, words: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"])
    (folder / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(SftuiError, match=words):
        detect(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (None, "", "no config.json"),
        ("model_index.json", "{}", "diffusion"),
        (
            "adapter_config.json",
            '{"base_model_name_or_path": "org/base"}',
            "PEFT adapter (adapter_config.json), an adapter for org/base",
        ),
        ("adapter_config.json", '{"base_model_name_or_path": null}', "does not name"),
        ("model-Q4_K_M.gguf", "", "GGUF"),
    ],
)
def test_a_folder_without_a_config_says_what_it_is_instead(
    name: str | None, content: str, words: str, tmp_path: Path
) -> None:
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(SftuiError) as refusal:
        detect(tmp_path)
    assert words in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("content", "base"),
    [
        ('{"base_model_name_or_path": "org/base", "peft_type": "LORA"}', "org/base"),
        ('{"base_model_name_or_path": ["org/base"]}', None),
        ("{}", None),
        (None, None),
    ],
)
def test_an_adapter_tells_its_base_model(content: str | None, base: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "adapter_config.json").write_text(content)
    assert adapter_base(tmp_path) == base


@pytest.mark.parametrize(("name", "words"), [("pytorch_model.bin", "save_pretrained"), ("m-Q8_0.gguf", "m-Q8_0.gguf")])
def test_weights_that_must_be_converted_first_are_refused_with_the_conversion(
    name: str, words: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"])
    (folder / name).write_bytes(b"")
    with pytest.raises(SftuiError) as refusal:
        detect(folder)
    assert words in refusal.value.hint
    write_safetensors(folder / "model.safetensors", LLAMA)
    assert detect(folder).problems == ()


def test_code_beside_a_known_model_is_not_run_and_that_is_said(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="llama", auto_map={"AutoModelForCausalLM": "evil.Model"})
    write_safetensors(folder / "model.safetensors", LLAMA)
    assert len(detect(folder).problems) == 1
    assert "not run" in detect(folder).problems[0]


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


def write_shards(folder: Path) -> None:
    names = list(LLAMA)
    shards = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for shard, held in shards.items():
        write_safetensors(folder / shard, {name: LLAMA[name] for name in held})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert {tensor.name: tensor.shape for tensor in read_tensors(tmp_path)} == LLAMA
    assert sum(tensor.byte_count for tensor in read_tensors(tmp_path)) == 3600


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SftuiError, match=r"1 of 2 weight files are missing: model-00002-of-00002\.safetensors"):
        read_tensors(tmp_path)


def test_a_tensor_that_no_shard_holds_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", {"lm_head.weight": (100, 8)})
    with pytest.raises(SftuiError, match=r"input_layernorm"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": [1]}'])
def test_a_broken_or_escaping_index_is_refused(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SftuiError, match="index of the weights"):
        read_tensors(tmp_path)


def test_a_download_cut_short_says_how_much_is_missing(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", LLAMA, cut=1000)
    with pytest.raises(SftuiError, match="1,000 bytes are missing"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (struct.pack("<Q", 2**62), "claims"),
        (struct.pack("<Q", 1000) + b"{}", "longer than the file"),
        (struct.pack("<Q", 2) + b"[]", "not readable"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "not readable"),
        (b'x' * 8, "claims"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_said_and_not_followed(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(SftuiError, match=words):
        read_tensors(tmp_path)


def test_a_shape_that_contradicts_its_bytes_is_damage(tmp_path: Path) -> None:
    raw = json.dumps({"a.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 10]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 10)
    with pytest.raises(SftuiError, match="does not match its shape"):
        read_tensors(tmp_path)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(SftuiError) as refusal:
        read_tensors(tmp_path)
    assert "pickle" in refusal.value.message
    assert "save_pretrained" in refusal.value.hint


def test_a_hub_id_is_found_in_the_cache_by_branch_and_by_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs" / "pr").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "pr" / "1").write_text(commit)
    for revision in (None, "main", "pr/1", commit):
        assert resolve_model_folder("org/tiny", revision) == repository / "snapshots" / commit
    for revision in ("v9", "../../..", "fedcba"):
        with pytest.raises(SftuiError, match="but not its revision"):
            resolve_model_folder("org/tiny", revision)


def test_the_cache_lies_where_its_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert resolve_model_folder("gpt2", "abc") == snapshot


def test_a_model_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SftuiError, match="hf download org/none"):
        resolve_model_folder("org/none", None)
    for path in ("/no/such/folder", "", "../nothing", "a/b/c", "org/\x1b[1m"):
        with pytest.raises(SftuiError, match="is not a folder"):
            resolve_model_folder(path, None)
    assert resolve_model_folder(str(tmp_path), None) == tmp_path


def test_nothing_heavy_is_imported_and_the_tables_are_kept(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", model_type="llama", architectures=["LlamaForCausalLM"])
    script = (
        "import sys; from pathlib import Path; from core.models.architecture import detect\n"
        "print(detect(Path(sys.argv[1])).auto_class)\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers', 'numpy', 'textual'})"
    )
    for cache in (tmp_path / "cache", tmp_path / "cache", Path("/proc/unwritable")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split("\n")[:2] == [CAUSAL, "set()"]
    (kept,) = (tmp_path / "cache" / "sftui").iterdir()
    assert "LlamaForCausalLM" in kept.read_text()


def test_a_broken_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = auto_tables.auto_tables()
    (kept,) = (tmp_path / "sftui").iterdir()
    kept.write_text("{")
    auto_tables._auto_tables.cache_clear()
    assert auto_tables.auto_tables() == expected
    assert json.loads(kept.read_text()) == expected
