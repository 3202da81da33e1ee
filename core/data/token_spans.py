"""Which tokens spans of characters hold."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.masks import Span
from core.data.tokenized_row import RowError

Asked = tuple[str, bool]
"""A text to encode, and whether with the tokenizer's special tokens."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as tokens."""

    ids: list[int]
    encoding: Any
    """What the tokenizers library tells of them; None from tokenizers in Python, which keep no offsets."""


def trained_tokens(encoding: Any, text: str, spans: Sequence[Span], *, exactly: bool) -> list[bool]:
    """The tokens that overlap with the spans, as TRL takes them.

    `exactly` leaves those out that hold only white space of a span, and more outside of it. Raises RowError for one
    that holds a part of an answer and a part of something else.
    """
    trained = [False] * len(encoding)
    for start, end in spans:
        first, last = _token_range(encoding, start, end)
        if exactly and first < last:
            first += _reaches_out(encoding, first, text, start, end)
            last -= last > first and _reaches_out(encoding, last - 1, text, start, end)
        trained[first:last] = [True] * (last - first)
    return trained


def trained_without_offsets(ids: list[int], text: str, spans: Sequence[Span]) -> Generator[Asked, Any, list[bool]]:
    """The same by encoding the text up to each edge. Raises RowError where an edge lies within a token."""
    trained = [False] * len(ids)
    for span in spans:
        edges = []
        for place in span:
            before = (yield text[:place], False).ids
            if ids[: len(before)] != before:
                raise RowError(
                    "mask_unproven",
                    "This tokenizer does not tell which characters a token stands for, and a turn begins within one.",
                    "Take the model's fast tokenizer (tokenizer.json), or learn from the completion or the whole text.",
                )
            edges.append(len(before))
        trained[edges[0] : edges[1]] = [True] * (edges[1] - edges[0])
    return trained


def _token_range(encoding: Any, start: int, end: int) -> tuple[int, int]:
    # Some characters are in no token: those that the tokenizer leaves out.
    first = next((token for place in range(start, end) if (token := encoding.char_to_token(place)) is not None), None)
    if first is None:
        return 0, 0
    places = range(end - 1, start - 1, -1)
    last = next(token for place in places if (token := encoding.char_to_token(place)) is not None)
    return first, last + 1


def _reaches_out(encoding: Any, token: int, text: str, start: int, end: int) -> bool:
    """Whether a token at the edge of a span belongs to what stands beside it."""
    first, last = encoding.token_to_chars(token)
    outside = text[first : max(first, start)] + text[min(last, end) : last]
    if not outside.strip():
        return False
    if text[max(first, start) : min(last, end)].strip():
        raise RowError(
            "mask_unproven",
            f"A part of an answer and what stands beside it are one token: {text[first:last]!r}.",
            "Take a template that begins and ends answers with tokens of their own.",
        )
    return True
