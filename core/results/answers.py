"""Greedy answers of a model to prompts, for setting base and tuned side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from core.data.rendering import SamplePrompt
from core.runs.events import Answer

_LONGEST_ANSWER = 64
_MARGIN_TOKENS = 8


def answer_prompts(
    model: Any, tokenizer: Any, prompts: Sequence[SamplePrompt], stop: Callable[[], bool]
) -> tuple[Answer, ...]:
    """One greedy answer a prompt, without special tokens. Ends within a token when `stop` says so.

    An answer may be as long as the expected one and a little more, or 64 tokens where none is expected.
    """
    was_training = model.training
    model.eval()
    answers: list[Answer] = []
    for prompt in prompts:
        if stop():
            break
        answers.append(Answer(prompt.shown, _answer(model, tokenizer, prompt, stop), prompt.expected))
    model.train(was_training)
    return tuple(answers)


def _answer(model: Any, tokenizer: Any, prompt: SamplePrompt, stop: Callable[[], bool]) -> str:
    if isinstance(prompt.messages, str):
        encoded = tokenizer(prompt.messages, return_tensors="pt")
    else:
        encoded = tokenizer.apply_chat_template(
            list(prompt.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    encoded = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    longest = _LONGEST_ANSWER
    if prompt.expected is not None:
        longest = len(tokenizer(prompt.expected)["input_ids"]) + _MARGIN_TOKENS

    def stop_here(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((ids.shape[0],), stop(), dtype=torch.bool, device=ids.device)

    with torch.no_grad():
        output = model.generate(
            **encoded,
            max_new_tokens=longest,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=[stop_here],
        )
    return str(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True))
