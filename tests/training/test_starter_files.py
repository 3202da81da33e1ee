"""The embedded starter's files: small, honest and usable as they are shipped."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.starter import HELD_OUT_DATA, MODEL, TRAIN_DATA
from core.starter.language import conversation, conversations
from core.starter.support_desk import rows

Row = dict[str, list[dict[str, str]]]


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prompts(path: Path) -> list[str]:
    return [row["messages"][0]["content"] for row in read_rows(path)]


def answers(path: Path) -> list[str]:
    return [row["messages"][-1]["content"] for row in read_rows(path)]


def test_the_model_is_small_enough_to_ship() -> None:
    weights = list(MODEL.glob("*.safetensors"))
    assert [file.name for file in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= 8_000_000


def test_the_model_folder_is_a_whole_checkpoint() -> None:
    needed = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
    }
    assert needed <= {file.name for file in MODEL.iterdir()}
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"


def test_the_header_counts_one_to_three_million_parameters_in_widths_that_nf4_divides() -> None:
    with (MODEL / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    assert {entry["dtype"] for entry in tensors.values()} == {"BF16"}
    assert 1_000_000 <= sum(math.prod(entry["shape"]) for entry in tensors.values()) <= 3_000_000
    assert all(width % 64 == 0 for entry in tensors.values() for width in entry["shape"])


def test_held_out_prompts_are_not_in_the_training_rows() -> None:
    asked = prompts(HELD_OUT_DATA)
    assert 40 <= len(set(asked)) == len(asked) <= 60
    assert 300 <= len(set(prompts(TRAIN_DATA))) == len(prompts(TRAIN_DATA)) <= 600
    assert not set(asked) & set(prompts(TRAIN_DATA))


def test_held_out_answers_cannot_be_recalled_from_the_training_rows() -> None:
    """Neither an order number nor a problem told of one item occurs on both sides."""

    def split(path: Path) -> tuple[set[str], set[str]]:
        orders = {answer.rpartition(" ")[2] for answer in answers(path)}
        told = {
            prompt.replace(order, "#")
            for prompt, answer in zip(prompts(path), answers(path), strict=True)
            for order in [answer.rpartition(" ")[2]]
        }
        return orders, told

    train_orders, train_told = split(TRAIN_DATA)
    held_out_orders, held_out_told = split(HELD_OUT_DATA)
    assert not train_orders & held_out_orders
    assert not train_told & held_out_told


def test_the_shipped_rows_are_what_the_generator_makes() -> None:
    assert rows() == (read_rows(TRAIN_DATA), read_rows(HELD_OUT_DATA))


def test_the_text_generator_is_deterministic() -> None:
    assert list(conversations(50, seed=3)) == list(conversations(50, seed=3))
    assert list(conversations(50, seed=3)) != list(conversations(50, seed=4))


def test_pre_training_text_never_shows_a_ticket_line() -> None:
    rng = random.Random(5)
    text = [message["content"] for _ in range(5_000) for message in conversation(rng)]
    assert not [line for line in text if "Ticket:" in line]
    assert not set(text) & set(answers(TRAIN_DATA) + answers(HELD_OUT_DATA))


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        from transformers import AutoTokenizer

        yield AutoTokenizer.from_pretrained(MODEL)


def test_the_padding_token_is_not_the_end_of_a_turn(tokenizer: Any) -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert config["eos_token_id"] == tokenizer.eos_token_id
    assert config["pad_token_id"] == tokenizer.pad_token_id
    assert config["vocab_size"] == len(tokenizer)


def test_the_template_renders_every_role(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "You work in a shop."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello, how can I help you?"},
        {"role": "user", "content": "My lamp is late."},
    ]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou work in a shop.<|im_end|>\n"
        "<|im_start|>user\nHello.<|im_end|>\n"
        "<|im_start|>assistant\nHello, how can I help you?<|im_end|>\n"
        "<|im_start|>user\nMy lamp is late.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_mask_covers_the_answer_and_its_end_of_turn(tokenizer: Any) -> None:
    for row in read_rows(HELD_OUT_DATA):
        rendered = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        trained = [
            token for token, wanted in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if wanted
        ]
        assert tokenizer.decode(trained) == row["messages"][1]["content"] + "<|im_end|>"


def test_foreign_text_survives_the_tokenizer(tokenizer: Any) -> None:
    text = "Grüße, 你好 🙂 4821\n\ttab  two spaces"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
