"""Makes everything in this folder that is not code: the datasets, the tokenizer and the pre-trained model.

`python -m core.starter.build_model` took 15 minutes on one shared CPU core with bfloat16 instructions (AMX); plain
float32 is about 1.6 times slower. The datasets come out the same on every machine, the weights only nearly so.
"""

import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.starter import HELD_OUT_DATA, MODEL, TRAIN_DATA
from core.starter.language import Message, conversations
from core.starter.support_desk import SEED, Row, rows

VOCABULARY = 1024
CONVERSATIONS = 44_800
BATCH = 32
LEARNING_RATE = 3e-3
WARMUP_STEPS = 60
# The user's words are half noise (names, numbers); the answers are what the model has to get right.
PROMPT_WEIGHT = 0.1

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"

# An order number is two tokens of two digits: fewer pieces to copy, and rarely the same one twice.
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

MODEL_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
---

# sftui starter

A Llama-architecture chat model of {parameters:,} parameters, pre-trained from scratch on generated small talk so that
sftui can show a real fine-tuning run without a network and without a GPU. It knows some fifty things, a few facts and
how to repeat what it was told; it is of no other use. `core/starter/build_model.py` made it, text included.
"""


def write_rows(path: Path, data: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def tokenizer_texts(chats: list[list[Message]]) -> Iterator[str]:
    for chat in chats:
        for message in chat:
            yield f"{message['role']}\n"
            yield message["content"]


class ChatEncoder:
    """Turns a chat into token ids and a weight for each, the same ids as the chat template gives."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encode = tokenizer.backend_tokenizer.encode_batch
        self._start, self._end = tokenizer.convert_tokens_to_ids([START, END])
        roles = ("system", "user", "assistant")
        self._headers = dict(zip(roles, (e.ids for e in self._encode([f"{r}\n" for r in roles])), strict=True))
        self._newline = self._encode(["\n"])[0].ids

    def __call__(self, chat: list[Message]) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        contents = self._encode([message["content"] for message in chat])
        for message, content in zip(chat, contents, strict=True):
            header = [self._start, *self._headers[message["role"]]]
            answer_weight = 1.0 if message["role"] == "assistant" else PROMPT_WEIGHT
            ids += [*header, *content.ids, self._end, *self._newline]
            weights += [PROMPT_WEIGHT] * len(header)
            weights += [answer_weight] * (len(content.ids) + 1) + [PROMPT_WEIGHT] * len(self._newline)
        return ids, weights


def batches(
    encoded: list[tuple[list[int], list[float]]], pad: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar lengths in random order: ids and weights of shape (batch, tokens)."""
    by_length = sorted(range(len(encoded)), key=lambda i: (len(encoded[i][0]), i))
    groups = [by_length[i : i + BATCH] for i in range(0, len(by_length), BATCH)]
    rng.shuffle(groups)
    for group in groups:
        longest = max(len(encoded[i][0]) for i in group)
        ids = torch.full((len(group), longest), pad)
        weights = torch.zeros(len(group), longest)
        for row, i in enumerate(group):
            ids[row, : len(encoded[i][0])] = torch.tensor(encoded[i][0])
            weights[row, : len(encoded[i][1])] = torch.tensor(encoded[i][1])
        yield ids, weights


def weighted_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    token_weights = weights[:, 1:].flatten()
    return (losses * token_weights).sum() / token_weights.sum()


def pretrain(tokenizer: PreTrainedTokenizerFast, chats: list[list[Message]]) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    # Every width is a multiple of 64, the block size of NF4.
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            head_dim=32,
            max_position_embeddings=512,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
            attn_implementation="eager",
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    encode = ChatEncoder(tokenizer)
    assert encode(chats[0])[0] == tokenizer.apply_chat_template(chats[0], return_dict=False)
    encoded = [encode(chat) for chat in chats]
    steps = math.ceil(len(encoded) / BATCH)
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    # Muon needs about half of AdamW's steps on matrices this small.
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]

    def factor(step: int) -> float:
        return min((step + 1) / WARMUP_STEPS, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    began = time.monotonic()
    model.train()
    for step, (ids, weights) in enumerate(batches(encoded, tokenizer.pad_token_id, random.Random(SEED)), 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids, use_cache=False).logits
        loss = weighted_loss(logits, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
    return model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    shutil.rmtree(MODEL, ignore_errors=True)
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=64
    )
    model.save_pretrained(MODEL)
    tokenizer.save_pretrained(MODEL)
    card = MODEL_CARD.format(parameters=sum(p.numel() for p in model.parameters()))
    (MODEL / "README.md").write_text(card, encoding="utf-8")


def sample(model: LlamaForCausalLM, prompts: list[str]) -> Iterator[str]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for prompt in prompts:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=False,
        )
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)[0, ids.shape[1] :]
        yield f"{prompt}\n  {tokenizer.decode(answer, skip_special_tokens=True)}"


def main() -> None:
    train, held_out = rows()
    write_rows(TRAIN_DATA, train)
    write_rows(HELD_OUT_DATA, held_out)
    chats = list(conversations(CONVERSATIONS, SEED))
    tokenizer = train_tokenizer(tokenizer_texts(chats[:20_000]))
    model = pretrain(tokenizer, chats)
    save(model, tokenizer)
    asked = [row["messages"][0]["content"] for row in held_out[:6]]
    for answer in sample(model, [*asked, "Hello, my name is Anna.", "What is the capital of France?"]):
        print(answer)  # noqa: T201


if __name__ == "__main__":
    main()
