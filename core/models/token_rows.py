"""Embedding rows for tokens that a tokenizer got, and the tokens that generation stops at."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import TrainableTokensWrapper

from core.choice import Choice
from core.data.tokenizing import RowTokenizer
from core.errors import SftuiError
from core.models.tokenizer import read_tokenizer
from core.text import safe

Tell = Callable[[Choice], object]


def fit_to_tokenizer(model: Any, tokenizer: Any, folder: Path, tell: Tell, *, trusted: bool = False) -> tuple[int, ...]:
    """Give the model rows for all tokens that the tokenizer has and the one in `folder` has not; returns their numbers.

    A new row is the mean of all others, in the embedding and in the head. Generation stops at what ends a turn.
    Raises SftuiError if the embedding is quantized.
    """
    known = read_tokenizer(folder, trusted=trusted).get_vocab()
    new = {token: number for token, number in tokenizer.get_vocab().items() if token not in known}
    if new:
        _give_rows(model, max(known.values()) + 1, new, tell)
    stop_at(model, tokenizer, tell)
    return tuple(sorted(new.values()))


def stop_at(model: Any, tokenizer: Any, tell: Tell) -> None:
    """Let generation stop at the tokenizer's end token and at what the chat template ends answers with."""
    config = model.generation_config
    if config is None:
        return
    own = config.eos_token_id
    before = list(own) if isinstance(own, list | tuple) else [] if own is None else [own]
    missing = sorted(RowTokenizer(tokenizer, "all").end_ids - set(before))
    if missing:
        config.eos_token_id = [*before, *missing]
        names = ", ".join(tokenizer.convert_ids_to_tokens(missing))
        tell(
            Choice("eos_token_id", safe(names), "the chat template or the tokenizer ends answers so: generation stops")
        )


def trained_rows(model: Any, tokens: Sequence[int]) -> dict[str, list[int]]:
    """PEFT's `trainable_token_indices` for new tokens: the embedding, and the head where it is a weight of its own."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(module)]: list(tokens) for module in modules}


def show_head_bias(adapted: Any) -> None:
    """Let a head whose rows are trained show its bias: TRL's fused loss reads it, and PEFT's wrapper hides it."""
    head = adapted.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        head.register_parameter("bias", head.token_adapter.base_layer.bias)


def _give_rows(model: Any, known: int, new: dict[str, int], tell: Tell) -> None:
    embedding = model.get_input_embeddings()
    if not embedding.weight.is_floating_point():
        raise SftuiError(
            "No rows for new tokens",
            "The chat template needs new tokens, and the model's embedding is quantized.",
            "Take a template without new tokens (chat_template_path: zephyr).",
        )
    rows, needed = embedding.weight.shape[0], max(new.values()) + 1
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
        tell(Choice("embedding", f"{needed:,} rows", f"{needed - rows} more than before, for {_names(new)}"))
    else:
        tell(Choice("embedding", f"{rows:,} rows", f"spare ones are taken for {_names(new)}"))
    head = model.get_output_embeddings()
    numbers = torch.tensor(sorted(new.values()))
    with torch.no_grad():
        for module in [model.get_input_embeddings(), *([head] if head is not None else [])]:
            weight = module.weight
            weight[numbers.to(weight.device)] = (
                weight[: min(known, rows)].mean(dim=0, dtype=torch.float32).to(weight.dtype)
            )


def _names(new: dict[str, int]) -> str:
    return safe(", ".join(sorted(new, key=lambda token: new[token])[:4])) + (" …" if len(new) > 4 else "")
