"""A row as the model sees it, token by token, in the form in which it passes between processes."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SeenToken:
    """One token."""

    text: str
    """As the tokenizer reads it; the first token of a character that several tokens spell holds all of it."""
    id: int
    trained: bool
    special: bool
    ends_turn: bool
    """Whether the model stops here when it answers."""


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row of a store. A row that cannot be tokenized has no tokens, and a problem."""

    index: int
    file: str
    line: int
    tokens: tuple[SeenToken, ...]
    problem: str = ""
    fix: str = ""

    @property
    def trained(self) -> int:
        """Tokens that are trained."""
        return sum(token.trained for token in self.tokens)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "SeenRow":
        """The row of `to_json`."""
        return cls(**{**told, "tokens": tuple(SeenToken(**token) for token in told["tokens"])})
