"""One answer, token by token."""

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from core.errors import SftuiError
from core.results.asking import Said, Sampling, Turns

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_INPUTS = ("input_ids", "attention_mask")


class _Pieces(BaseStreamer):  # type: ignore[misc]
    """Turns tokens into new text as they come; what is half a character waits for its other half."""

    def __init__(self, tokenizer: Any, hear: Callable[[str], object]) -> None:
        self._tokenizer = tokenizer
        self._hear = hear
        self._ids: list[int] = []
        self._told = ""
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then one token after the other."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids += value.flatten().tolist()
        self._tell(whole=False)

    def end(self) -> None:
        """Tell what waits."""
        self._tell(whole=True)
        self._is_prompt = True

    def _tell(self, *, whole: bool) -> None:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if (whole or not text.endswith(_BROKEN)) and len(text) > len(self._told):
            self._hear(text[len(self._told) :])
            self._told = text
        if text.endswith("\n") and not whole:
            # A long answer is not decoded from its beginning for each token.
            self._ids, self._told = [], ""


def encode(tokenizer: Any, turns: Turns) -> dict[str, torch.Tensor]:
    """The prompt as tokens, up to where the answer begins. Raises SftuiError where the template refuses it."""
    if isinstance(turns, str):
        plain: dict[str, torch.Tensor] = tokenizer(turns, return_tensors="pt")
        return plain
    if not tokenizer.chat_template:
        raise SftuiError("There is no chat template", "This model was trained on plain text.", "Give it a plain text.")
    try:
        templated: dict[str, torch.Tensor] = tokenizer.apply_chat_template(
            list(turns), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    except Exception as error:
        # A template is a program of its own: it may raise anything.
        raise SftuiError("The chat template refuses this", f"{type(error).__name__}: {error}") from error
    return templated


def answer(
    model: Any,
    tokenizer: Any,
    turns: Turns,
    sampling: Sampling,
    hear: Callable[[str], object],
    stop: Callable[[], bool],
) -> Said:
    """What the model says to a prompt. It ends within a token when `stop` says so. The random state is left alone.

    Raises SftuiError where the template refuses the prompt, or it is longer than the model can read.
    """
    began = time.monotonic()
    encoded = {name: tensor.to(model.device) for name, tensor in encode(tokenizer, turns).items() if name in _INPUTS}
    length = encoded["input_ids"].shape[1]
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and length >= room:
        raise SftuiError(
            "The conversation is too long", f"It has {length:,} tokens; the model can read {room:,}.", "Begin anew."
        )
    most = sampling.max_new_tokens if room is None else min(sampling.max_new_tokens, room - length)
    stopped = False

    def stop_here(ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        nonlocal stopped
        stopped = stopped or stop()
        return torch.full((ids.shape[0],), stopped, dtype=torch.bool, device=ids.device)

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(sampling.seed)
        output = model.generate(
            **encoded,
            generation_config=_config(model, tokenizer, sampling, most),
            stopping_criteria=[stop_here],
            streamer=_Pieces(tokenizer, hear),
        )
    ids = output[0, length:].tolist()
    ends = _end_ids(model, tokenizer)
    end: Literal["ended", "length", "stopped"] = "ended" if ids and ids[-1] in ends else "length"
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Said(text, len(ids), time.monotonic() - began, "stopped" if stopped and end != "ended" else end)


def _config(model: Any, tokenizer: Any, sampling: Sampling, most: int) -> GenerationConfig:
    drawn: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    if sampling.temperature > 0:
        drawn = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
    return GenerationConfig(
        **drawn,
        max_new_tokens=most,
        use_cache=True,
        eos_token_id=sorted(_end_ids(model, tokenizer)),
        pad_token_id=tokenizer.pad_token_id,
    )


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])}
    return {number for number in ids if number is not None}
