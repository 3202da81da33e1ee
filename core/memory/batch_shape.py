"""The largest micro-batch that a run will see."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchShape:
    """A micro-batch: so many rows of so many tokens, padding among them."""

    rows: int
    tokens: int
    """Of one row."""
    real_tokens: int | None
    """Of all rows, without padding; None while nobody knows."""
    packed: bool
    """Whether the rows are laid end to end, with no padding."""
