"""A real Llama checkpoint that trains in a second, and rows to train it on."""

import json
import random
from pathlib import Path
from typing import Any

from core import starter

CHAT_TEMPLATE = (starter.MODEL / "chat_template.jinja").read_text(encoding="utf-8")
_SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>")
_SUBJECTS = ("printer", "invoice", "password", "parcel", "screen", "licence")
_TROUBLES = ("is lost", "is broken", "is late", "is wrong")


def build_tiny_model(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """Save a seeded Llama (hidden size 64, two layers) in float32 with a byte-level tokenizer; returns the folder.

    The tokenizer spells any text, a byte a token; its chat template marks what the assistant says.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """A tokenizer that spells any text, a byte a token, with a chat template that marks what the assistant says."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate((*_SPECIAL, *letters))}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
    )


def chat_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of two turns whose answer follows from the question."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        subject, trouble = draw.choice(_SUBJECTS), draw.choice(_TROUBLES)
        question = f"My {subject} {trouble}."
        answer = f"{subject} / {trouble.removeprefix('is ')} / {number % 7}"
        rows.append({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
    return rows


def write_rows(path: Path, n: int, *, seed: int = 0) -> Path:
    """Write `n` conversations as JSONL; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in chat_rows(n, seed)), encoding="utf-8")
    return path
