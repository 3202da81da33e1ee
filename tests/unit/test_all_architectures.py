"""Every model type that transformers lists as a language model, compared with what transformers itself says of it."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from core.errors import SftuiError
from core.models.architecture import Architecture, detect

CAUSAL, IMAGE_TEXT = "AutoModelForCausalLM", "AutoModelForImageTextToText"
MAPPINGS = {CAUSAL: MODEL_FOR_CAUSAL_LM_MAPPING, IMAGE_TEXT: MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING}
NAMES = {CAUSAL: MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, IMAGE_TEXT: MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
TYPES = sorted({*NAMES[CAUSAL], *NAMES[IMAGE_TEXT]})
# Types whose own defaults transformers refuses.
NEEDED = {
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 4,
        }
    }
}

# What is refused, by the reason why transformers could not teach it the next token. Each is checked below.
ENCODER_DECODERS = {
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "florence2", "marian", "mbart", "musicgen",
    "musicgen_melody", "mvp", "pegasus", "pix2struct", "plbart", "pp_formulanet", "prophetnet", "t5gemma2", "udop",
    "vision-encoder-decoder", "whisper",
}  # fmt: skip
"""Their text comes out of an encoder's input: pairs are needed."""
BIDIRECTIONAL = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl",
    "xmod",
}  # fmt: skip
"""Each token sees the next one, unless config.json says is_decoder."""
UNSHIFTED = {"cpmant", "trocr", "xlm", "xlnet"}
"""Their loss compares a token's logits with that token: it teaches copying."""
WITHOUT_LOSS = {"diffusion_gemma", "gemma4_assistant", "gemma4_unified_assistant", "pi0"}
"""Their forward pass takes no labels."""
NOT_LOADED = {"evolla"}
"""Neither auto class finds their configuration, though their type is in a table."""
REFUSED = NOT_LOADED | ENCODER_DECODERS | BIDIRECTIONAL | UNSHIFTED | WITHOUT_LOSS
COMPUTED = {
    "axk2": {"head_dim"},
    "bailing_hybrid": {"head_dim"},
    "dbrx": {"kv_heads"},
    "dots3_note": {"sliding_window"},
    "dots3_note_text": {"sliding_window"},
    "falcon_mamba": {"intermediate_size"},
    "hrm_text": {"layers"},
    "hy_v4": {"head_dim"},
    "hy_v4_vl": {"head_dim", "kv_heads"},
    "jetmoe": {"heads"},
    "mamba": {"intermediate_size"},
    "mistral4": {"head_dim"},
    "modernbert-decoder": {"sliding_window"},
    "nemotron_h": {"layers"},
    "nemotron_h_omni": {"layers"},
    "rwkv": {"intermediate_size"},
    "zamba": {"head_dim"},
    "zamba2": {"head_dim", "intermediate_size"},
}
"""Numbers that a class computes from others when config.json leaves them out; transformers always writes them."""
WITH_OR_WITHOUT_VISION = {"dots3_note", "llama4", "mllama", "qwen3_5", "qwen3_5_moe", "qwen4_exp"}
"""Two classes of which either loads a checkpoint of the other."""
LOSS_OF_AN_INNER_MODEL = {"blip", "kosmos-2", "kosmos-2.5"}


@dataclass(frozen=True)
class Truth:
    folder: Path
    config: Any


@pytest.fixture(scope="session")
def truths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Truth]:
    """A folder for each type, with config.json as transformers writes it, and what it reads from that."""
    found = {}
    for model_type in TYPES:
        folder = tmp_path_factory.mktemp("types") / model_type
        CONFIG_MAPPING[model_type](**NEEDED.get(model_type, {})).save_pretrained(folder)
        found[model_type] = Truth(folder, AutoConfig.from_pretrained(folder))
    return found


@pytest.fixture(autouse=True)
def shared_tables(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "tables"))


def detect_named(folder: Path, copy: Path, architectures: list[str] | None) -> Architecture:
    config = json.loads((folder / "config.json").read_text())
    config.pop("architectures", None)
    copy.mkdir(exist_ok=True)
    (copy / "config.json").write_text(json.dumps(config | ({"architectures": architectures} if architectures else {})))
    return detect(copy)


@pytest.mark.parametrize("model_type", [name for name in TYPES if name not in REFUSED])
def test_the_auto_class_is_one_that_transformers_loads_it_with(
    model_type: str, truths: dict[str, Truth], tmp_path: Path
) -> None:
    truth = truths[model_type]
    classes = {auto: names[model_type] for auto, names in NAMES.items() if model_type in names}
    for written in ([], *([name] for name in classes.values())):
        found = detect_named(truth.folder, tmp_path / "model", written)
        assert type(truth.config) in MAPPINGS[found.auto_class]
        assert classes[found.auto_class] in found.reason
        assert set(found.alternatives) == (set(classes) if model_type in WITH_OR_WITHOUT_VISION else set())
        if written and (found.alternatives or len(classes) == 1):
            assert classes[found.auto_class] == written[0]


@pytest.mark.parametrize("model_type", [name for name in TYPES if name not in REFUSED])
def test_its_numbers_are_those_that_transformers_reads(
    model_type: str, truths: dict[str, Truth], tmp_path: Path
) -> None:
    truth = truths[model_type]
    found = detect_named(truth.folder, tmp_path / "model", None)
    assert differences(found, truth.config) == {}


@pytest.mark.parametrize("model_type", [name for name in TYPES if name not in REFUSED])
def test_a_config_that_says_only_its_type_gets_the_defaults_of_transformers(
    model_type: str, truths: dict[str, Truth], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    different = differences(detect(tmp_path), truths[model_type].config)
    assert {name: values for name, values in different.items() if name not in COMPUTED.get(model_type, ())} == {}


def test_the_types_that_are_taken_and_refused_are_all_there_are() -> None:
    assert set(TYPES) >= REFUSED
    # A new type of a later transformers is taken until somebody has looked at it.
    assert len(TYPES) - len(REFUSED) > 200


def differences(found: Architecture, config: Any) -> dict[str, tuple[Any, Any]]:
    text = config.get_text_config(decoder=True)
    text.allow_global_per_layer_attribute_access = True
    expected: dict[str, Any] = {
        field: value
        for field, names in FIELDS.items()
        if (value := next((v for name in names if (v := plain(getattr(text, name, None)))), None)) is not None
    }
    if expected.get("experts", 2) == 1 or getattr(text, "is_moe", True) is False:
        expected |= {"experts": None, "active_experts": None}
    whole = text if found.auto_class == CAUSAL and found.alternatives else config
    tied = getattr(whole, "tie_word_embeddings", getattr(text, "tie_word_embeddings", False))
    expected["tied_embeddings"] = bool(tied)
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        # Falcon keeps the number of heads there, and its attention takes one.
        expected["kv_heads"] = 1
    return {name: (getattr(found, name), value) for name, value in expected.items() if getattr(found, name) != value}


FIELDS = {
    "layers": ("num_hidden_layers",),
    "hidden_size": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim",),
    "intermediate_size": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings",),
    "sliding_window": ("sliding_window",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "active_experts": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"),
}


def plain(value: Any) -> int | None:
    """A number of a whole model; transformers writes some of them once for each layer."""
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    return value if type(value) is int and value > 0 else None


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_what_transformers_could_not_teach_is_refused_in_a_sentence(
    model_type: str, truths: dict[str, Truth], tmp_path: Path
) -> None:
    truth = truths[model_type]
    for written in ([], *([names[model_type]] for names in NAMES.values() if model_type in names)):
        with pytest.raises(SftuiError) as refusal:
            detect_named(truth.folder, tmp_path / "model", written)
        assert re.search(r"\) is (an?|the) [a-z]", refusal.value.message)
        assert refusal.value.hint
    source = class_source(NAMES[CAUSAL].get(model_type) or NAMES[IMAGE_TEXT][model_type])
    if model_type in ENCODER_DECODERS:
        assert truth.config.is_encoder_decoder
    elif model_type in BIDIRECTIONAL:
        assert not truth.config.is_decoder
    elif model_type in NOT_LOADED:
        assert not any(type(truth.config) in mapping for mapping in MAPPINGS.values())
    elif model_type in UNSHIFTED:
        assert "loss_function(" not in source
    else:
        assert "labels" not in forward_arguments(source)


@pytest.mark.parametrize("model_type", sorted(BIDIRECTIONAL))
def test_an_encoder_that_was_made_a_decoder_is_taken(model_type: str, truths: dict[str, Truth], tmp_path: Path) -> None:
    config = json.loads((truths[model_type].folder / "config.json").read_text()) | {"is_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [NAMES[CAUSAL][model_type]]}))
    assert detect(tmp_path).auto_class == CAUSAL


@pytest.mark.parametrize("model_type", [name for name in TYPES if name not in REFUSED])
def test_what_is_taken_has_a_loss_for_the_next_token(model_type: str) -> None:
    for names in NAMES.values():
        if model_type in names:
            source = class_source(names[model_type])
            assert "labels" in forward_arguments(source)
            assert ("loss_function(" in source) != (model_type in LOSS_OF_AN_INNER_MODEL)


@cache
def class_sources() -> dict[str, str]:
    found = {}
    for path in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        for source in re.split(r"\n(?=class )", path.read_text(encoding="utf-8"))[1:]:
            found[source[len("class ") :].partition("(")[0].partition(":")[0]] = source
    return found


def class_source(name: str) -> str:
    return class_sources()[name]


def forward_arguments(source: str) -> str:
    return re.sub("#.*", "", source.partition("    def forward(")[2].partition("\n    )")[0])
