"""Conversations as the text that a chat template makes of them."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, UndefinedError
from transformers.utils.chat_template_utils import render_jinja_template

from core.data.masks import Messages, Span
from core.data.tokenized_row import RowError
from core.text import safe, shorten

# What a template can raise besides its own refusals.
ERRORS = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError)
_MARKERS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_QUESTION, _ANSWER = "Which colour is the sky?", "It is blue."
PROBE: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": _QUESTION},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "And the grass?"},
    {"role": "assistant", "content": "It is green."},
)


class ChatTemplate:
    """One template with the special tokens of one tokenizer."""

    def __init__(self, text: str, special_tokens: Mapping[str, Any]) -> None:
        self.text = text
        self.marks_answers = marks_answers(text)
        self._special_tokens = dict(special_tokens)
        self.wants_blocks = self._wants_blocks()

    def render(self, messages: Messages, tools: Any = None, *, answer: bool = False) -> str:
        """The text, ending where the model is to answer if so wished. Raises RowError when the template refuses."""
        return self._render(messages, tools, answer=answer, markers=False)[0]

    def render_marked(self, messages: Messages, tools: Any = None) -> tuple[str, list[Span]]:
        """The text and, as characters from and to, what the template's own markers hold."""
        text, spans = self._render(messages, tools, answer=False, markers=True)
        return text, [(start, end) for start, end in spans if start < end]

    def _render(self, messages: Messages, tools: Any, *, answer: bool, markers: bool) -> tuple[str, list[Span]]:
        # As `apply_chat_template` does: a key that is null counts as missing.
        turns = [{name: value for name, value in message.items() if value is not None} for message in messages]
        if self.wants_blocks:
            turns = [_in_blocks(turn) for turn in turns]
        try:
            texts, spans = render_jinja_template(
                conversations=[turns],
                tools=tools,
                chat_template=self.text,
                return_assistant_tokens_mask=markers,
                add_generation_prompt=answer,
                **self._special_tokens,
            )
        except UndefinedError as error:
            raise _refusal(f"The chat template misses something in this row: {_words(error)}") from error
        except TemplateError as error:
            raise _refusal(f"The chat template refuses this row: {_words(error)}") from error
        except ERRORS as error:
            raise _refusal(f"The chat template fails on this row: {type(error).__name__}: {_words(error)}") from error
        return texts[0], spans[0] if markers else []

    def _wants_blocks(self) -> bool:
        """Whether it reads contents only as lists of blocks, as those of many vision-language models do."""
        self.wants_blocks = False
        if _holds_probe(self):
            return False
        self.wants_blocks = True
        return _holds_probe(self)


def marks_answers(template: str) -> bool:
    """Whether a template has {% generation %} markers of its own."""
    return _MARKERS.search(template) is not None


def _holds_probe(template: ChatTemplate) -> bool:
    try:
        text = template.render(PROBE)
    except RowError:
        return False
    return _QUESTION in text and _ANSWER in text


def _in_blocks(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _words(error: Exception) -> str:
    words = shorten(safe(" ".join(str(error).split())), 200)
    return words if words[-1:] in ".!?…" else f"{words}."


def _refusal(message: str) -> RowError:
    return RowError("template_refuses", message, "Mend or remove the row, or take another template.")
