"""What a chat template writes around answers, and whether the tokenizer and it agree on where an answer ends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.choice import Choice
from core.data.masks import Span
from core.data.rendered_chat import PROBE, ChatTemplate
from core.data.tokenized_row import RowError
from core.spec.problems import Problem
from core.text import safe

_FIELD = "chat_template_path"
# How templates write the tokens that end a turn.
_TOKEN_LIKE = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_(?:turn|utterance)>|<\|?turn\|?>")


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """Of one template with one tokenizer, found by rendering an invented conversation."""

    ends: tuple[str, ...]
    """Tokens of the vocabulary that end an answer, as the template writes them."""
    end_ids: frozenset[int]
    """Their numbers, and that of the tokenizer's own end token."""
    choices: tuple[Choice, ...]
    problems: tuple[Problem, ...]


def template_facts(template: ChatTemplate, tokenizer: Any, spans: Sequence[Span], *, only_spans: bool) -> TemplateFacts:
    """Look at what `template` makes of PROBE, where `spans` are the answers (as characters from and to).

    With `only_spans` nothing else is trained on, and a token that follows them is taken for an end that is not learned.
    """
    text = template.render(PROBE)
    vocabulary: dict[str, int] = tokenizer.get_added_vocab()
    answers = [message["content"] for message in PROBE if message["role"] == "assistant"]
    ends: dict[str, None] = {}
    learned = True
    unknown: str | None = None
    for answer in answers:
        said = re.search(re.escape(answer), text, re.IGNORECASE)
        chain = _tokens_after(text, said.end(), list(vocabulary)) if said else []
        spelled = _TOKEN_LIKE.match(text[said.end() :].lstrip()) if said else None
        if spelled is not None and spelled.group() not in tokenizer.get_vocab():
            unknown = spelled.group()
        # An answer may end in several tokens; what stands outside of the turn begins the next one.
        own = [token for token, stop in chain if any(start < stop <= end for start, end in spans)]
        ends.update(dict.fromkeys(own[-1:]))
        if not own:
            learned = False
            ends.update(dict.fromkeys(token for token, _ in chain[:1] if only_spans))
    eos_id = tokenizer.eos_token_id
    end_ids = frozenset({vocabulary[end] for end in ends} | ({eos_id} if eos_id is not None else set()))
    return TemplateFacts(
        tuple(ends),
        end_ids,
        tuple(_choices(template, tokenizer, text, ends)),
        tuple(_problems(tokenizer, text, learned, bool(ends), unknown)),
    )


def _tokens_after(text: str, place: int, vocabulary: Sequence[str]) -> list[tuple[str, int]]:
    """Tokens of their own that follow here one by one, and where each stops; white space may stand between them."""
    found: list[tuple[str, int]] = []
    while True:
        place += len(text[place:]) - len(text[place:].lstrip())
        token = max((token for token in vocabulary if token and text.startswith(token, place)), key=len, default=None)
        if token is None:
            return found
        place += len(token)
        found.append((token, place))


def _choices(template: ChatTemplate, tokenizer: Any, text: str, ends: dict[str, None]) -> list[Choice]:
    found = []
    if template.wants_blocks:
        reason = "the chat template reads contents as lists of blocks alone, as those of images are"
        found.append(Choice("contents", "as blocks of text", reason))
    bos = tokenizer.bos_token
    if bos and text.startswith(bos):
        found.append(
            Choice("bos_token", "once", f"the chat template writes {safe(bos)} itself: no second one is added")
        )
    others = [end for end in ends if end != tokenizer.eos_token]
    if others and tokenizer.eos_token:
        reason = f"the chat template ends answers so, and the tokenizer's end token is {safe(tokenizer.eos_token)}"
        found.append(Choice("end of turn", safe(", ".join(others)), f"{reason}: generation must stop at either"))
    if tokenizer.pad_token is not None and tokenizer.pad_token == tokenizer.eos_token:
        reason = "it is the end token too: padding is left out of the loss by its place, so that ends are still learned"
        found.append(Choice("pad_token", safe(tokenizer.pad_token), reason))
    return found


def _problems(tokenizer: Any, text: str, learned: bool, ended: bool, unknown: str | None) -> list[Problem]:
    found = []
    if unknown is not None:
        message = f"The chat template ends answers with {unknown}, and the tokenizer has no such token."
        fix = "Take the template that belongs to the tokenizer, or chatml, whose tokens are added."
        found.append(Problem(_FIELD, "warning", f"{message} Generation does not stop at it.", fix))
    elif not learned:
        message = "The model will not learn to stop: the chat template ends answers without a token that is trained on."
        fix = "Take a template that ends answers with a token (chat_template_path: chatml)."
        if ended:
            fix = "Learn from the whole text, or take a template whose answers hold their end."
        found.append(Problem(_FIELD, "warning", message, fix))
    bos = tokenizer.bos_token
    if bos and text.startswith(bos + bos):
        message = f"The chat template begins with {safe(bos)} twice."
        found.append(Problem(_FIELD, "warning", message, "Take one of them out of the template."))
    return found


def unusable(error: RowError, *, told: bool) -> TemplateFacts:
    """Of a template that fails on a simple conversation; rows of another kind may still go through it."""
    message = f"An invented conversation does not go through the chat template: {error.message}"
    problems = (
        (Problem(_FIELD, "warning", message, "Look at the rows: each that it refuses is named."),) if told else ()
    )
    return TemplateFacts((), frozenset(), (), problems)
