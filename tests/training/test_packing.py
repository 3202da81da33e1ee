"""Rows that are packed together stay apart in the models that say so, and mix in those that are refused."""

from typing import Any

import pytest

from core.data.packing import packing_problems
from core.data.packing_isolation import why_mixed
from core.models.architecture import Architecture
from core.spec.build import build_spec
from core.spec.problems import Problem
from tests.bench.packing_isolation import CAUSAL, build, isolation

# One of each kind: plain, with windows, with experts, latent attention, absolute positions, ALiBi, recurrences,
# convolutions, and a mask that takes no notice of positions.
SAMPLE = (
    "llama", "qwen3", "gemma3_text", "qwen3_moe", "gpt2", "gpt_neox", "phi3",
    "gpt_oss", "opt", "bloom", "mamba", "falcon_h1", "qwen3_next", "lfm2",
)  # fmt: skip
UNMEASURED = {"dbrx", "deepseek_v2", "dots3_note", "dots3_note_text", "gemma3n", "granitemoehybrid"}
"""Types whose smallest model is too large to be measured here, or that need more than transformers."""


@pytest.mark.parametrize("model_type", SAMPLE)
def test_the_table_says_what_the_model_does(model_type: str) -> None:
    model = build(model_type, narrower=8 if model_type == "lfm2" else 16)
    try:
        measured = isolation(model)
    except ValueError as error:
        measured = str(error)

    why = why_mixed(model_type, on_gpu=False)

    if not why:
        assert measured == "apart"
    elif "causal-conv1d" in why:
        assert "can't keep packed sequences apart" in measured
    else:
        assert measured == "mixes"


def test_every_type_is_measured() -> None:
    unknown = {name for name in CAUSAL if "nobody has measured" in why_mixed(name, on_gpu=True)}
    assert unknown == UNMEASURED


def architecture(model_type: str) -> Architecture:
    return Architecture(
        model_type=model_type, architectures=(), auto_class="AutoModelForCausalLM", reason="", vision=False,
        layers=2, hidden_size=64, heads=4, kv_heads=2, head_dim=16, intermediate_size=128, vocab_size=99,
        context_length=512, tied_embeddings=True, experts=None, active_experts=None, sliding_window=None,
        stored_dtype=None, stored_quantization=None, chat_template=True, parameters=None, lora_targets=(), problems=(),
    )  # fmt: skip


def problems(
    model_type: str = "llama", attention: str = "flash_attention_2", form: Any = "messages", **values: Any
) -> list[Problem]:
    spec = build_spec({"model_name_or_path": "m", "datasets": ["rows"], **values})
    return packing_problems(spec, architecture(model_type), attention, on_gpu=True, form=form)


PACKED = {"packing": True}


@pytest.mark.parametrize(
    ("values", "field", "level", "words"),
    [
        ({"model_type": "gpt_oss", **PACKED}, "packing", "error", "lets every row in a sequence see those before it"),
        ({"model_type": "mamba", "padding_free": True}, "padding_free", "error", "would mix rows"),
        ({"model_type": "qwen3_next", **PACKED}, "packing", "error", "causal-conv1d"),
        ({"model_type": "brand_new", **PACKED}, "packing", "error", "nobody has measured"),
        ({"attention": "sdpa", **PACKED}, "packing", "warning", "8 times the work of attention"),
        ({"packing_strategy": "wrapped", **PACKED}, "packing_strategy", "error", "without their questions"),
        (
            {"packing_strategy": "wrapped", "form": "text", **PACKED},
            "packing_strategy",
            "warning",
            "cuts rows anywhere",
        ),
        ({"packing_strategy": "bfd_split", **PACKED}, "packing_strategy", "warning", "without what comes before it"),
        ({"padding_free": True, "per_device_train_batch_size": 1}, "padding_free", "warning", "does nothing"),
        (
            {"train_sampling_strategy": "group_by_length", **PACKED},
            "train_sampling_strategy",
            "warning",
            "does nothing for packed",
        ),
        ({"eval_packing": True}, "eval_packing", "error", "see one another"),
    ],
)
def test_what_would_be_wrong_is_told_with_its_reason(
    values: dict[str, Any], field: str, level: str, words: str
) -> None:
    found = problems(**values)

    assert [(one.field, one.level) for one in found] == [(field, level)]
    assert words in found[0].message
    assert found[0].fix


@pytest.mark.parametrize(
    "values",
    [
        {},
        PACKED,
        {"padding_free": True},
        {"train_sampling_strategy": "group_by_length", "model_type": "mamba"},
        {"packing_strategy": "bfd_split", "form": "text", **PACKED},
        {"attention": "sdpa", "per_device_train_batch_size": 1, **PACKED},
        {"model_type": "mamba"},
    ],
)
def test_what_is_right_is_let_be(values: dict[str, Any]) -> None:
    assert problems(**values) == []


def test_without_a_model_only_what_is_wrong_for_all_is_told() -> None:
    spec = build_spec({"model_name_or_path": "m", "datasets": ["rows"], "packing": True})
    assert packing_problems(spec, None, "sdpa", on_gpu=False, form="messages") == []
