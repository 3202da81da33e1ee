"""The largest micro-batch that a run will see."""

from dataclasses import dataclass

from core.data.token_statistics import TokenStatistics
from core.spec.run_spec import RunSpec


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


def batch_shape(spec: RunSpec, token_lengths: TokenStatistics | None = None) -> BatchShape | None:
    """The worst batch: of rows as long as the longest, or of full packed ones; None while no length is known.

    Several rows are taken to differ by a token, so that they need a mask of the padding.
    """
    rows = spec.per_device_train_batch_size
    longest = token_lengths.longest_length if token_lengths is not None and token_lengths.longest_length else None
    limits = [length for length in (spec.max_length, None if spec.packing else longest) if length is not None]
    if not limits:
        return None
    tokens = min(limits)
    if spec.packing or spec.padding_free:
        return BatchShape(rows, tokens, None, packed=True)
    return BatchShape(rows, tokens, rows * tokens - (rows - 1), packed=False)
