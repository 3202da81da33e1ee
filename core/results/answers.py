"""Greedy answers of a model to prompts, for setting base and tuned side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from core.data.rendering import SamplePrompt
from core.runs.events import Answer


def answer_prompts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[SamplePrompt],
    max_new_tokens: int = 128,
    go_on: Callable[[], bool] = lambda: True,
) -> tuple[Answer, ...]:
    """One greedy answer a prompt, without special tokens. Stops between prompts when `go_on` says no."""
    was_training = model.training
    model.eval()
    answers: list[Answer] = []
    for prompt in prompts:
        if not go_on():
            break
        answers.append(Answer(prompt.shown, _answer(model, tokenizer, prompt, max_new_tokens), prompt.expected))
    model.train(was_training)
    return tuple(answers)


def _answer(model: Any, tokenizer: Any, prompt: SamplePrompt, max_new_tokens: int) -> str:
    if isinstance(prompt.messages, str):
        encoded = tokenizer(prompt.messages, return_tensors="pt")
    else:
        encoded = tokenizer.apply_chat_template(
            list(prompt.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    encoded = {name: tensor.to(model.device) for name, tensor in encoded.items() if name != "token_type_ids"}
    with torch.no_grad():
        output = model.generate(
            **encoded,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
        )
    return str(tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True))
