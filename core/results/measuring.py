"""How well a model does on held-out rows: perplexity, token accuracy, exact answers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from core.results.asking import HeldOutPrompt, Measured, Sampling
from core.results.generating import answer

Tell = Callable[[int, int], object]
_MARGIN_TOKENS = 8
_POSITIONS_AT_ONCE = 1024


def measure_loss(
    model: Any, rows: Sequence[dict[str, Any]], tell: Tell, stop: Callable[[], bool]
) -> tuple[int, int, float, int]:
    """Over rows of `input_ids` and `labels` (-100 where nothing counts), one at a time.

    Returns the rows that were done, their trained tokens, the sum of the losses in nats, and the tokens that were the
    likeliest.
    """
    tokens, right, loss, done = 0, 0, 0.0, 0
    for row in rows:
        if stop():
            break
        ids = torch.as_tensor(row["input_ids"], device=model.device)[None]
        labels = torch.as_tensor(row["labels"], device=model.device)
        extra = _positions(row, model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False, **extra).logits[0, :-1]
        wanted = labels[1:]
        # In float32 all logits of a long row at once would be the largest tensor there is.
        for start in range(0, len(wanted), _POSITIONS_AT_ONCE):
            part, target = (
                logits[start : start + _POSITIONS_AT_ONCE].float(),
                wanted[start : start + _POSITIONS_AT_ONCE],
            )
            counts = target != -100
            if not bool(counts.any()):
                continue
            part, target = logits[start : start + _POSITIONS_AT_ONCE][counts].float(), target[counts]
            loss += float(torch.nn.functional.cross_entropy(part, target, reduction="sum"))
            right += int((part.argmax(dim=-1) == target).sum())
            tokens += len(target)
        done += 1
        tell(done, len(rows))
    return done, tokens, loss, right


def measure_answers(
    model: Any, tokenizer: Any, prompts: Sequence[HeldOutPrompt], tell: Tell, stop: Callable[[], bool]
) -> tuple[int, int]:
    """How many prompts were answered by the likeliest tokens, and how many of the answers are the rows' own."""
    done, exact = 0, 0
    for prompt in prompts:
        if stop():
            break
        longest = len(tokenizer(prompt.expected)["input_ids"]) + _MARGIN_TOKENS
        said = answer(model, tokenizer, prompt.turns, Sampling(max_new_tokens=longest), lambda _: None, stop)
        if said.end == "stopped":
            break
        done += 1
        exact += said.text.strip() == prompt.expected.strip()
        tell(done, len(prompts))
    return done, exact


def measured(loss: tuple[int, int, float, int], answers: tuple[int, int], *, whole: bool) -> Measured:
    """The figures of what was counted."""
    rows, tokens, total, right = loss
    mean = total / tokens if tokens else None
    perplexity = None if mean is None else math.exp(min(mean, 700.0))
    accuracy = right / tokens if tokens else None
    prompts, exact = answers
    return Measured(rows, tokens, mean, perplexity, accuracy, prompts, exact, whole)


def _positions(row: dict[str, Any], device: Any) -> dict[str, torch.Tensor]:
    """The place of each token within its own row, where several are packed into one sequence."""
    if "seq_lengths" not in row:
        return {}
    places = torch.cat([torch.arange(length, device=device) for length in row["seq_lengths"]])
    return {"position_ids": places[None]}
