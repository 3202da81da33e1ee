"""Loading a model's tokenizer, with a token to pad with, and making sure that the two belong together."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from core.errors import SftuiError
from core.models.chosen_template import choose_chat_template
from core.models.tokenizer_files import check_tokenizer_files
from core.text import safe, shorten

Notice = Callable[[str, str], object]

_LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, AssertionError)
_TAKE_RIGHT = "Take the tokenizer's files from where the weights come from."
# Tokens that were made for padding, then those that were made for nothing yet.
_PAD_LIKE = (
    re.compile(r"\W*(?:(?:finetune|right|left|vision)_?)*pad(?:ding)?(?:_(?:id|token))?\W*", re.IGNORECASE),
    re.compile(r"\W*(?:unused|reserved|reserved_special_token|extra|extra_id)_?\d+\W*", re.IGNORECASE),
)
# Vocabularies are rounded up to make matrices faster, by much less than this.
_SMALLEST_SHARE = 0.8


def load_tokenizer(
    folder: Path, notice: Notice, *, trusted: bool = False, chat_template_path: str | None = None
) -> Any:
    """The tokenizer, with a pad token and an end token; `notice` is told when it has none of its own.

    `chat_template_path` is a built-in template's name, a .jinja file or a folder with a tokenizer; special tokens that
    it needs are added. Raises SftuiError if anything is missing or broken.
    """
    tokenizer = read_tokenizer(folder, trusted=trusted)
    if chat_template_path is not None:
        choose_chat_template(tokenizer, chat_template_path, read_tokenizer, notice)
    if tokenizer.eos_token is None:
        _choose_end(tokenizer, folder, notice)
    if tokenizer.pad_token is None:
        _choose_pad(tokenizer, notice)
    return tokenizer


def read_tokenizer(folder: Path, *, trusted: bool = False) -> Any:
    """The tokenizer as it is stored. Raises SftuiError if it is missing or broken."""
    check_tokenizer_files(folder)
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trusted, local_files_only=True)
    except _LOAD_ERRORS as error:
        said = shorten(safe(" ".join(str(error).split())), 300)
        raise SftuiError(
            "The tokenizer cannot be loaded", f"{safe(str(folder))}: {type(error).__name__}: {said}", _TAKE_RIGHT
        ) from error


def _choose_end(tokenizer: Any, folder: Path, notice: Notice) -> None:
    """Take the end token that the model's own configuration names by number."""
    for name in ("generation_config.json", "config.json"):
        try:
            named = json.loads((folder / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        for number in named if isinstance(named, list) else [named]:
            token = tokenizer.convert_ids_to_tokens(number) if type(number) is int else None
            if token is not None:
                tokenizer.eos_token = token
                notice("No end token", f"The tokenizer names none: {safe(token)} is taken, as {name} says.")
                return
    raise SftuiError(
        "The tokenizer has no end token",
        f"{safe(str(folder))} names no eos_token, so that the model could not learn to stop.",
        "Set `eos_token` to one of the vocabulary's tokens.",
    )


def _choose_pad(tokenizer: Any, notice: Notice) -> None:
    in_use = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    # In the order of their ids: of tokens that were made for nothing, the first.
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    special = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    for pattern in _PAD_LIKE:
        for token, _ in vocabulary:
            # An ordinary word such as “pad” stands for itself.
            marked = token in special or (not token[:1].isalnum() and not token[-1:].isalnum())
            if marked and token not in in_use and pattern.fullmatch(token):
                tokenizer.pad_token = token
                notice("No pad token", f"The tokenizer names none: {safe(token)}, which it does not use, pads rows.")
                return
    tokenizer.pad_token = tokenizer.eos_token
    notice(
        "No pad token",
        f"The tokenizer names none: the end token {safe(tokenizer.eos_token)} pads rows. Padding is left out of "
        "attention and loss, and the end of each answer is still learned.",
    )


def check_tokenizer(tokenizer: Any, model: Any, notice: Notice) -> None:
    """Raise SftuiError when the tokenizer makes tokens that the model has no embedding for.

    Added tokens beyond the embedding are only told of: some models ship with ones for images that they never see.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    added = set(tokenizer.added_tokens_decoder)
    outside = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    ordinary = sorted((number, token) for token, number in outside.items() if number not in added)
    needed = {
        name: number
        for name, number in (("eos_token", tokenizer.eos_token_id), ("pad_token", tokenizer.pad_token_id))
        if number is not None and number >= rows
    }
    title = "The tokenizer is of another model"
    if ordinary:
        number, token = ordinary[0]
        raise SftuiError(
            title,
            f"It has {len(tokenizer):,} tokens and the model's embedding {rows:,} rows: there is none for token "
            f"{number:,} ({safe(token)}) and {len(outside) - 1:,} others.",
            _TAKE_RIGHT,
        )
    if needed:
        name, number = next(iter(needed.items()))
        raise SftuiError(
            title, f"Its {name} is number {number:,}, and the model's embedding has {rows:,} rows.", _TAKE_RIGHT
        )
    if outside:
        names = ", ".join(sorted(outside)[:3])
        notice("Tokens without an embedding", f"No row of the data may contain {safe(names)}: the run would fail.")
    elif len(tokenizer) < rows * _SMALLEST_SHARE:
        notice(
            "A small tokenizer",
            f"It has {len(tokenizer):,} tokens and the model's embedding {rows:,} rows: "
            "make sure that it is this model's own.",
        )
