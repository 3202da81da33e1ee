"""Which auto class a checkpoint is loaded with and why, and the numbers that its config.json tells."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.models import auto_tables
from core.models.architecture import Preference, detect
from tests.model_files import LLAMA, write_model, write_safetensors

CAUSAL = "AutoModelForCausalLM"
IMAGE_TEXT = "AutoModelForImageTextToText"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


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


def test_code_beside_a_known_model_is_not_run_and_that_is_said(tmp_path: Path) -> None:
    folder = write_model(tmp_path, model_type="llama", auto_map={"AutoModelForCausalLM": "evil.Model"})
    write_safetensors(folder / "model.safetensors", LLAMA)
    assert len(detect(folder).problems) == 1
    assert "not run" in detect(folder).problems[0]


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
