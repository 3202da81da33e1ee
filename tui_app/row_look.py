"""The row on show: found in the store, then told by the warm runner in tokens; and rows found by their text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.content import Content

from core.errors import SftuiError
from core.text import safe
from tui_app.shown_row import ShownTokens, turn_pieces
from tui_app.widgets.row_view import RowPage
from tui_app.widgets.token_view import Piece

if TYPE_CHECKING:
    from pathlib import Path

    from core.data.row_store import StoredRow
    from core.data.seen_row import SeenRow
    from tui_app.token_passes import TokenTask

_STOPS_EVERY = 200


@dataclass(frozen=True)
class Look:
    """What is known of the row that one looks at."""

    index: int
    rows: int
    row: StoredRow | None = None
    task: TokenTask | None = None
    """What it is tokenized for."""
    asked: object = None
    """Who was asked for its tokens; None if nobody could be."""
    seen: SeenRow | None = None
    problem: SftuiError | None = None
    """Why the row cannot be read, or its tokens cannot be told."""

    def page(
        self, learnt: frozenset[str], max_length: int | None, waiting: str, *, turns: bool, borders: bool
    ) -> RowPage:
        """As it is shown: its tokens, or its turns while there are none (`waiting` says why) or `turns` are wanted."""
        number = f"Row {self.index + 1:,} of {self.rows:,}"
        if self.row is None:
            words = [Piece(f"✗ {self.problem.title}: {self.problem.message}", "problem")] if self.problem else []
            return RowPage(Content.styled(number, "bold"), words, Content(""))
        place = f"   {safe(self.row.file.name)}:{self.row.line}"
        pieces, said, verdict = turn_pieces(self.row.canonical, learnt), "", Content.styled(waiting, "$secondary")
        if self.problem is not None:
            problem = self.problem
            verdict = Content.styled(safe(f"✗ {problem.title}: {problem.message} {problem.hint}"), "bold $error")
        elif self.seen is not None and self.seen.refused is not None:
            _, message, fix = self.seen.refused
            verdict = Content.styled(safe(f"✗ {message} {fix}"), "bold $error")
        elif self.seen is not None:
            tokens = ShownTokens(self.seen, max_length)
            said, verdict = f" ─ {tokens.headline()}", tokens.verdict()
            pieces = pieces if turns else tokens.pieces(borders=borders)
        headline = Content.assemble((number, "bold"), said, (place, "$secondary"))
        return RowPage(headline, pieces, verdict)


def read_row(store: Path, index: int) -> StoredRow:
    """One row of a store. Raises SftuiError; for a background thread."""
    from core.data.row_store import RowStore

    with RowStore.open(store) as opened:
        return opened.row(index)


def find_text(store: Path, text: str, start: int, stopped: Callable[[], bool]) -> int | None:
    """The first row from `start` on, around the end, that holds a text, whatever its case; None if there is none.

    Raises SftuiError; for a background thread.
    """
    from core.data.row_store import RowStore

    wanted = text.casefold()
    with RowStore.open(store) as opened:
        count = len(opened)
        for first, last in ((start, count), (0, start)):
            for index, row in enumerate(opened.rows(first, last), first):
                if index % _STOPS_EVERY == 0 and stopped():
                    return None
                if any(wanted in part.casefold() for part in _texts(row.canonical)):
                    return index
    return None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [] if value is None else [json.dumps(value)]
