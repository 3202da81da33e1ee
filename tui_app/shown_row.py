"""One row as it is looked at: its turns, or once they are there, its tokens; pieces of text and words about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textual.content import Content

from core.data.seen_row import SeenRow
from core.text import safe
from tui_app.widgets.token_view import Kind, Piece

ROLES = {"system": "System", "developer": "Developer", "user": "User", "assistant": "Assistant", "tool": "Tool"}


@dataclass(frozen=True, slots=True)
class ShownTokens:
    """A row's tokens, and where they are cut: those from `max_length` on are not seen by the model."""

    row: SeenRow
    max_length: int | None

    @property
    def kept(self) -> int:
        """How many tokens the model sees."""
        return self.row.tokens if self.max_length is None else min(self.row.tokens, self.max_length)

    @property
    def missed_ends(self) -> list[int]:
        """Ends of learnt turns that are not learnt themselves."""
        trained = self.row.trained
        return [at for at in self.row.ends if 0 < at < self.kept and trained[at - 1] and not trained[at]]

    def pieces(self, *, borders: bool = False) -> list[Piece]:
        """The tokens as they are drawn, with the cut."""
        row, kept, missed = self.row, self.kept, frozenset(self.missed_ends)
        found: list[Piece] = []
        for at, text in enumerate(row.texts):
            if at == kept:
                words = f"╌╌ cut at {kept:,}: {row.tokens - kept:,} more tokens are not seen ╌╌"
                found.append(Piece(words, "note"))
            kind = "cut" if at >= kept else "untrained-end" if at in missed else _kind(row, at)
            found.append(Piece(text, kind, borders))
        if len(row.texts) < row.tokens:
            found.append(Piece(f"… and {row.tokens - len(row.texts):,} tokens more", "note"))
        return found

    def headline(self) -> str:
        """How long it is and what is learnt of it, "412 tokens, 97 trained, not cut"."""
        cut = self.row.tokens - self.kept
        trained = sum(self.row.trained[: self.kept])
        return f"{self.row.tokens:,} tokens, {trained:,} trained, {f'{cut:,} cut off' if cut else 'not cut'}"

    def verdict(self) -> Content:
        """Whether anything is learnt, and where to stop; what does harm is in red."""
        row, kept = self.row, self.kept
        if not any(row.trained[:kept]):
            lost = " All that would be is cut off." if any(row.trained) else ""
            return _red(f"✗ Nothing of this row is learnt.{lost}")
        if missed := self.missed_ends:
            end = safe(row.texts[missed[0]])
            return _red(f"✗ The end of turn {end} is not learnt: the model will not learn to stop.")
        learnt = [at for at in row.ends if at < len(row.trained) and row.trained[at]]
        if any(at >= kept for at in learnt):
            return Content.styled("! An end is cut off: the model does not see where this row stops.", "$warning")
        if learnt:
            return Content.styled(f"✓ learnt with the end of its turn, {safe(row.texts[learnt[-1]])}", "$success")
        return _red("✗ There is no end token in what is learnt: the model will not learn to stop.")


def _kind(row: SeenRow, at: int) -> Kind:
    if row.special[at]:
        return "special-trained" if row.trained[at] else "special"
    return "trained" if row.trained[at] else "masked"


def _red(words: str) -> Content:
    return Content.styled(words, "bold $error")


def turn_pieces(row: Mapping[str, Any], learnt: frozenset[str]) -> list[Piece]:
    """The turns of a row as pieces; `learnt` are the roles that the loss counts."""
    found: list[Piece] = []
    for role, text in turns(row):
        title = ROLES.get(role, safe(role).capitalize())
        found.append(Piece(title, "heading"))
        found.append(Piece(text, "trained" if role in learnt else "masked"))
    return found


def turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The row as (role, text) in order; a prompt or completion of messages becomes its messages."""
    found: list[tuple[str, str]] = []
    for name in ("tools", "messages", "prompt", "completion", "text"):
        value = row.get(name)
        if name == "tools":
            found += [("tools", text_of(value))] if value else []
        elif isinstance(value, str):
            found.append((name, value))
        elif isinstance(value, list):
            found += [turn for entry in value for turn in _message(entry)]
    return found or [(name, text_of(value)) for name, value in row.items()]


def text_of(value: Any) -> str:
    """A value as one reads it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _message(entry: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(entry, dict):
        yield "?", text_of(entry)
        return
    role, content = str(entry.get("role", "?")), entry.get("content")
    others = {name: value for name, value in entry.items() if name not in ("role", "content") and value}
    parts: Sequence[str] = [text_of(content)] if content is not None or not others else []
    yield role, "\n".join([*parts, *(f"{name}: {text_of(value)}" for name, value in others.items())])
