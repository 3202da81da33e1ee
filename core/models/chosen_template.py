"""Giving a tokenizer the chat template that was chosen, with the special tokens that it needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.chat_templates import BUILT_IN, BuiltInTemplate
from core.errors import SftuiError
from core.paths import expand
from core.text import safe

Notice = Callable[[str, str], object]
_LARGEST_TEMPLATE_BYTES = 1 << 20


def choose_chat_template(tokenizer: Any, chosen: str, read_tokenizer: Callable[[Path], Any], notice: Notice) -> None:
    """Set the template: a built-in one by its name, of a .jinja file, or of a folder with a tokenizer.

    `notice` is told of tokens that the tokenizer got. Raises SftuiError if there is no such template.
    """
    path = expand(chosen)
    if chosen in BUILT_IN:
        _take_built_in(tokenizer, BUILT_IN[chosen], notice)
    elif path.is_dir():
        _take_from(tokenizer, path, read_tokenizer(path), notice)
    elif path.is_file():
        tokenizer.chat_template = _read(path)
    else:
        raise SftuiError(
            "No such chat template",
            f"chat_template_path is {safe(chosen)}, which is neither a file nor a folder.",
            f"Give a .jinja file, a folder with a tokenizer, or one of {', '.join(BUILT_IN)}.",
        )


def _take_built_in(tokenizer: Any, template: BuiltInTemplate, notice: Notice) -> None:
    tokenizer.chat_template = template.jinja
    _add(tokenizer, list(template.tokens), notice)
    if template.end is not None and tokenizer.eos_token != template.end:
        # What ends a turn is what generation stops at, and what ends a plain text.
        tokenizer.eos_token = template.end


def _take_from(tokenizer: Any, folder: Path, source: Any, notice: Notice) -> None:
    template = source.chat_template
    if not template:
        raise SftuiError(
            "No chat template there",
            f"chat_template_path is {safe(str(folder))}, and the tokenizer there has none.",
            "Give the folder of an instruct model, or a .jinja file.",
        )
    tokenizer.chat_template = template
    text = "".join(template.values()) if isinstance(template, dict) else template
    # A tokenizer may have hundreds of tokens besides: only what the template writes is needed.
    written = [token for token in source.get_added_vocab() if token in text]
    _add(tokenizer, [*written, *([source.eos_token] if source.eos_token else [])], notice)
    if source.eos_token:
        tokenizer.eos_token = source.eos_token


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_TEMPLATE_BYTES:
            raise SftuiError("Not a chat template", f"{safe(str(path))} is larger than 1 MiB.", "Give a .jinja file.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SftuiError("The chat template cannot be read", f"{safe(str(path))}: {error}.") from error


def _add(tokenizer: Any, tokens: list[str], notice: Notice) -> None:
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in dict.fromkeys(tokens) if token not in vocabulary]
    if missing:
        tokenizer.add_tokens(missing, special_tokens=True)
        notice(
            "New special tokens",
            f"The chat template needs {safe(', '.join(missing))}: the tokenizer has them now, and the model learns "
            "what they mean.",
        )
