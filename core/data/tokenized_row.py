"""A row as tokens, with what of it is trained."""

from dataclasses import dataclass
from typing import Literal

RowErrorKind = Literal["template_refuses", "mask_unproven", "nothing_trained", "images", "no_template", "wrong_form"]


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Two lists of one length, before anything is cut off."""

    input_ids: list[int]
    trained: list[bool]
    """Whether the loss counts the token; its label is -100 where it does not."""
    ends: tuple[int, ...]
    """Positions of the tokens that end a turn (of whomever) or the text."""


class RowError(Exception):
    """A row that cannot be trained on as it stands, in words for people."""

    kind: RowErrorKind
    message: str
    """What is wrong, in a sentence."""
    fix: str
    """How to mend it."""

    def __init__(self, kind: RowErrorKind, message: str, fix: str) -> None:
        super().__init__(kind, message, fix)
        self.kind = kind
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"
