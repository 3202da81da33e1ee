"""A row as the model sees it, token by token, in the form in which it passes between processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN_TOKENS = 20_000


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row of a store, before anything is cut at `max_length`; after SHOWN_TOKENS only the count goes on.

    A row that cannot be tokenized has no tokens and says in `refused` why: a kind, a message, and how to mend it.
    """

    texts: tuple[str, ...]
    """Each token as a person reads it, never empty."""
    trained: tuple[bool, ...]
    special: tuple[bool, ...]
    ends: tuple[int, ...]
    """Positions of the tokens that end a turn."""
    tokens: int
    refused: tuple[str, str, str] | None
    way: str
    """How it is known what to train on; a MaskWay."""
    choices: tuple[tuple[str, str, str], ...]
    """What was decided about template and tokenizer: name, value, reason."""
    notices: tuple[tuple[str, str], ...]
    """What was mended in the tokenizer, such as a missing end or pad token: title, message."""
    problems: tuple[tuple[str, str, str, str], ...]
    """What is wrong with template or tokenizer: field, level, message, fix."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "texts": self.texts,
            "trained": [int(one) for one in self.trained],
            "special": [int(one) for one in self.special],
            "ends": self.ends,
            "tokens": self.tokens,
            "refused": dict(zip(_REFUSED, self.refused, strict=True)) if self.refused else None,
            "way": self.way,
            "choices": self.choices,
            "notices": self.notices,
            "problems": self.problems,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "SeenRow":
        """The row of `to_json`."""
        refused = told["refused"]
        return cls(
            texts=tuple(told["texts"]),
            trained=tuple(map(bool, told["trained"])),
            special=tuple(map(bool, told["special"])),
            ends=tuple(told["ends"]),
            tokens=told["tokens"],
            refused=(refused["kind"], refused["message"], refused["fix"]) if refused else None,
            way=told["way"],
            choices=tuple((name, value, reason) for name, value, reason in told["choices"]),
            notices=tuple((title, message) for title, message in told["notices"]),
            problems=tuple((field, level, message, fix) for field, level, message, fix in told["problems"]),
        )


_REFUSED = ("kind", "message", "fix")
