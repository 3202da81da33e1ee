"""Answers about rows as tokens: what the inspector shows, and what is counted for the statistics."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from core.data.row_store import RowStore
from core.data.seen_row import SHOWN_TOKENS, SeenRow
from core.data.tokenized_row import RowError, TokenizedRow
from core.data.tokenizing import RowTokenizer
from core.data.tokenizing_options import TokenizingOptions, tokenizer_state
from core.models.architecture import Preference, detect
from core.models.loading import LoadRequest, trusts_own_code
from core.models.tokenizer import load_tokenizer

_SECONDS = 0.7
_REFUSED_AT_MOST = 200
_ENCODED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Reader:
    """A model's tokenizer, and how it makes tokens of rows."""

    tokenizer: Any
    rows: RowTokenizer
    notices: tuple[tuple[str, str], ...]
    """What was mended in the tokenizer: title and message."""


def answer_row(question: Mapping[str, Any]) -> dict[str, Any]:
    """One row of a store, token by token: SeenRow as JSON. Raises SftuiError."""
    reader = _reader_of(question)
    refused, tokens = None, TokenizedRow([], [], ())
    with RowStore.open(Path(question["store"])) as store:
        row = store.row(question["index"])
    try:
        tokens = reader.rows.tokenize(row.canonical)
    except RowError as error:
        refused = (error.kind, error.message, error.fix)
    shown = tokens.input_ids[:SHOWN_TOKENS]
    special = set(reader.tokenizer.all_special_ids)
    return SeenRow(
        texts=_texts(reader.tokenizer, shown),
        trained=tuple(tokens.trained[:SHOWN_TOKENS]),
        special=tuple(token in special for token in shown),
        ends=tuple(place for place in tokens.ends if place < SHOWN_TOKENS),
        tokens=len(tokens.input_ids),
        refused=refused,
        way=reader.rows.way,
        choices=tuple((choice.name, choice.value, choice.reason) for choice in reader.rows.choices),
        notices=reader.notices,
        problems=tuple((one.field, one.level, one.message, one.fix) for one in reader.rows.problems),
    ).to_json()


def answer_lengths(question: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of the rows from `start` on: up to `stop`, or to as many as go into less than a second; at least one.

    `first` and `last` are the places of the first and the last trained token; `refused` names the first rows that
    cannot be tokenized, as RefusedRow does. Raises SftuiError.
    """
    reader, start = _reader_of(question), int(question["start"])
    lengths: list[int] = []
    trained: list[int] = []
    first: list[int] = []
    last: list[int] = []
    refused: list[tuple[int, str, str, str, str, int]] = []
    until = time.monotonic() + _SECONDS
    with RowStore.open(Path(question["store"])) as store:
        rows = store.rows(start, question["stop"])
        while batch := list(islice(rows, _ENCODED_AT_ONCE)):
            for row, made in zip(batch, reader.rows.tokenize_many([row.canonical for row in batch]), strict=True):
                if isinstance(made, RowError) and len(refused) < _REFUSED_AT_MOST:
                    place = str(row.file), row.line
                    refused.append((start + len(lengths), made.kind, made.message, made.fix, *place))
                marks = [] if isinstance(made, RowError) else made.trained
                count = sum(marks)
                lengths.append(len(marks))
                trained.append(count)
                first.append(marks.index(True) if count else 0)
                last.append(len(marks) - 1 - marks[::-1].index(True) if count else 0)
            if time.monotonic() >= until:
                break
    stop = start + len(lengths)
    return {
        "start": start, "stop": stop, "lengths": lengths, "trained": trained, "first": first, "last": last,
        "refused": refused,
    }  # fmt: skip


def _texts(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """Each token as a person reads it. A character that several tokens spell stands with the last of them."""
    texts: list[str] = []
    start = 0
    while start < len(ids):
        # Four bytes are the most that a character has.
        for stop in range(start + 1, min(start + 4, len(ids)) + 1):
            text = tokenizer.decode(ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if "\N{REPLACEMENT CHARACTER}" not in text:
                break
        else:
            stop, text = start + 1, ""
        raw = [str(token) for token in tokenizer.convert_ids_to_tokens(ids[start:stop])]
        # Alone, the first word of a text loses the space that it stands after.
        spaced = " " + text if raw[0].startswith("▁") and not text.startswith(" ") else text
        texts += [*raw[:-1], spaced or raw[-1]]
        start = stop
    return tuple(texts)


def _reader_of(question: Mapping[str, Any]) -> _Reader:
    folder, options = Path(question["folder"]), TokenizingOptions(**question["options"])
    return _reader(folder, options, json.dumps(tokenizer_state(folder, options)))


@lru_cache(maxsize=2)
def _reader(folder: Path, options: TokenizingOptions, _state: str) -> _Reader:
    preference: Preference | None = None if options.load_as == "auto" else options.load_as
    request = LoadRequest(folder, detect(folder, preference), "float32", None, "cpu")
    notices: list[tuple[str, str]] = []
    tokenizer = load_tokenizer(
        folder,
        lambda title, message: notices.append((title, message)),
        trusted=trusts_own_code(request),
        chat_template_path=options.chat_template_path,
    )
    return _Reader(tokenizer, RowTokenizer(tokenizer, options.learn_from, turns=options.turns), tuple(notices))
