"""What is no language model that could be trained, and what it is instead, in words."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.models.architecture import detect
from core.models.checkpoint_files import adapter_base
from tests.model_files import LLAMA, write_model, write_safetensors

CAUSAL = "AutoModelForCausalLM"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


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
