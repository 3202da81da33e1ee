"""Which chat templates a model without one is offered, and what taking one costs."""

import json
from pathlib import Path

import pytest

from core.data.chat_templates import BUILT_IN, Embedding, template_offers
from core.models.tokenizer_files import token_names

LLAMA = Embedding(rows=128_256, hidden=4096, tied=False, bytes_per_weight=2)


def test_a_llama_3_base_is_offered_its_familys_template_first() -> None:
    tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "hello"}
    first, *others = template_offers("llama", tokens, 128_256, LLAMA)
    assert first.template.name == "llama3"
    assert not first.new_tokens
    assert first.weight_bytes == first.trained_parameters == first.added_rows == 0
    assert "the family's own" in first.reason
    assert {offer.template.name for offer in others} == {"chatml", "zephyr"}


def test_chatml_on_a_full_embedding_grows_it_by_two_rows() -> None:
    chatml = next(offer for offer in template_offers("llama", (), 128_256, LLAMA) if offer.template.name == "chatml")
    assert chatml.new_tokens == ("<|im_start|>", "<|im_end|>")
    assert (chatml.spare_rows, chatml.added_rows) == (0, 2)
    # Two rows of 4,096 weights in the embedding and in the head, two bytes each.
    assert chatml.weight_bytes == 2 * 4096 * 2 * 2
    assert chatml.trained_parameters == 2 * 4096 * 2


def test_spare_rows_are_taken_first() -> None:
    embedding = Embedding(rows=1000, hidden=64, tied=True, bytes_per_weight=4)
    chatml = next(offer for offer in template_offers("x", (), 999, embedding) if offer.template.name == "chatml")
    assert (chatml.spare_rows, chatml.added_rows) == (1, 1)
    assert chatml.weight_bytes == 64 * 4
    assert chatml.trained_parameters == 2 * 64


def test_what_needs_no_new_token_comes_before_what_does() -> None:
    assert [offer.template.name for offer in template_offers("gpt2", (), 50_257, LLAMA)] == ["zephyr", "chatml"]
    known = template_offers("qwen2", {"<|im_start|>", "<|im_end|>"}, 151_665, LLAMA)
    assert [offer.template.name for offer in known] == ["chatml", "zephyr"]


def test_a_familys_template_is_not_offered_where_its_tokens_are_missing() -> None:
    assert "gemma" not in {offer.template.name for offer in template_offers("gemma3_text", (), 262_144, LLAMA)}
    assert "gemma" in {
        offer.template.name
        for offer in template_offers("gemma3_text", {"<start_of_turn>", "<end_of_turn>"}, 262_144, LLAMA)
    }


@pytest.mark.parametrize("vocabulary", [{"a": 0, "b": 1}, [["a", -1.0], ["b", -2.0]]])
def test_a_tokenizers_names_are_read_from_its_file(tmp_path: Path, vocabulary: object) -> None:
    stored = {"model": {"vocab": vocabulary}, "added_tokens": [{"id": 5, "content": "<|im_end|>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    found = token_names(tmp_path)
    assert found is not None
    assert found.names == {"a", "b", "<|im_end|>"}
    assert found.count == 6


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"vocab": 3}}', '{"model": null}'])
def test_a_strange_tokenizer_file_names_nothing(tmp_path: Path, text: str) -> None:
    assert token_names(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text(text)
    assert token_names(tmp_path) is None


def test_every_built_in_template_marks_answers_and_their_end() -> None:
    for template in BUILT_IN.values():
        assert "{% generation %}" in template.jinja
        assert all(
            token in template.jinja or token.strip("<|>") in ("system", "user", "assistant")
            for token in template.tokens
        )
        assert template.end is None or template.end in template.tokens
