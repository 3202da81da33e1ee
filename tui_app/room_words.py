"""What would still fit beside what is set, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.memory.room import MOST_ROWS

if TYPE_CHECKING:
    from tui_app.draft import Draft


def in_words(draft: Draft) -> str:
    """ "room for batch 24 at 2,048 tokens, or 65,000 tokens at batch 1"; empty where that is not known."""
    room, spec = draft.room, draft.planned
    if room is None or spec is None:
        return ""
    if not room.rows:
        return "no room for even one row at this length" + (
            f"; for {room.tokens:,} tokens at batch 1" if room.tokens else ""
        )
    at = f"at {spec.max_length:,} tokens" if spec.max_length is not None else "of rows as long as these"
    more = " and more" if room.rows >= MOST_ROWS else ""
    whole = "its whole " if room.whole_context else ""
    return f"room for batch {room.rows:,}{more} {at}, or {whole}{room.tokens:,} tokens at batch 1"
