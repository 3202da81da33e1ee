"""Tokenized rows cut, left out and packed as a spec wants it, read one sequence at a time: the dataset of a trainer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset

from core.data.packing import PackingStrategy, pack
from core.data.token_file import TokenFile
from core.spec.run_spec import RunSpec

Numbers = Any
"""A numpy array of integers."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """How tokenized rows become sequences; the arguments of TRL's SFTConfig that say it."""

    max_length: int | None
    packing: PackingStrategy | None = None
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    shuffle_seed: int | None = None
    """With `shuffle_dataset`, the seed; None leaves the rows in their order."""

    @classmethod
    def of(cls, spec: RunSpec, *, held_out: bool = False) -> "Fitting":
        """What a spec says for its training rows or for those held out."""
        extra = spec.extra_arguments
        packing = spec.packing
        if held_out and extra.get("eval_packing") is not None:
            packing = extra["eval_packing"]
        return cls(
            spec.max_length,
            spec.packing_strategy if packing else None,
            extra.get("truncation_mode", "keep_start"),
            spec.seed if extra.get("shuffle_dataset") else None,
        )

    @property
    def cuts(self) -> bool:
        """Whether what is beyond `max_length` is lost; other ways of packing go on with it in another piece."""
        return self.max_length is not None and self.packing in (None, "bfd")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Where the sequences of a dataset begin among its pieces, and each piece: a place in the token file, from, to."""

    starts: Numbers
    """One more than there are sequences."""
    places: Numbers
    first: Numbers
    stop: Numbers
    truncated: int
    """Rows that were cut."""
    dropped: Numbers
    """Places of the rows that have nothing left to learn from."""


def fit(tokens: TokenFile, places: Numbers, fitting: Fitting) -> Fitted:
    """The sequences of the rows at these places of the token file, in this order, as TRL makes them.

    A row with nothing to learn from within `max_length` is left out; TRL keeps those that it packs, for nothing.
    """
    lengths = tokens.lengths[places].astype(np.int64)
    limit = fitting.max_length if fitting.cuts and fitting.max_length is not None else None
    at_end = fitting.truncation_mode == "keep_end" and fitting.packing is None
    learned = tokens.trained_counts[places] > 0
    if limit is not None:
        learned &= tokens.last[places] >= lengths - limit if at_end else tokens.first[places] < limit
    dropped, places, lengths = places[~learned], places[learned], lengths[learned]
    truncated = int((lengths > limit).sum()) if limit is not None else 0
    order = _shuffled(len(places), fitting.shuffle_seed)
    places, lengths = places[order], lengths[order]
    if fitting.packing and fitting.max_length is not None:
        packed = pack(lengths.tolist(), fitting.max_length, fitting.packing)
        packed = [packed[number] for number in _shuffled(len(packed), fitting.shuffle_seed)]
        pieces = np.array([piece for sequence in packed for piece in sequence], dtype=np.int64).reshape(-1, 3)
        starts = np.cumsum([0, *map(len, packed)])
        return Fitted(starts, places[pieces[:, 0]], pieces[:, 1], pieces[:, 2], truncated, dropped)
    # TRL shuffles packed rows twice, and the others once.
    cut = lengths if limit is None else np.minimum(lengths, limit)
    first = lengths - cut if at_end else np.zeros_like(lengths)
    return Fitted(np.arange(len(places) + 1), places, first, first + cut, truncated, dropped)


def _shuffled(count: int, seed: int | None) -> Numbers:
    return np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one row within a sequence."""

    row: int
    """Number in the store."""
    first: int
    stop: int


class TrainingRows(Dataset):  # type: ignore[misc]
    """Sequences for a trainer: `input_ids`, `labels` (-100 where nothing is learned) and, packed, `seq_lengths`.

    The tokens stay on the disk; the dataset's own table holds no more than the length of each sequence.
    """

    def __init__(self, tokens: TokenFile, fitted: Fitted, fitting: Fitting, name: str) -> None:
        ends = np.cumsum(np.concatenate([[0], fitted.stop - fitted.first]))
        lengths = (ends[fitted.starts[1:]] - ends[fitted.starts[:-1]]).astype(np.int32)
        super().__init__(pa.table({"length": lengths}), fingerprint=name)
        self._tokens = tokens
        self._fitted = fitted
        self._says_pieces = fitting.packing in ("bfd", "bfd_split")
        self.fetched: list[int] | None = None
        """While it is a list, the number of each sequence that is fetched is put down in it."""

    @property
    def fitted(self) -> Fitted:
        """Where the sequences come from."""
        return self._fitted

    @property
    def rows(self) -> int:
        """Rows of the data, all their pieces counted once."""
        return len(np.unique(self._fitted.places))

    @property
    def lengths(self) -> Numbers:
        """Tokens of each sequence."""
        return self.data.column("length").to_numpy()

    def pieces(self, number: int) -> list[Piece]:
        """The rows that a sequence is made of."""
        return [Piece(int(self._tokens.rows[place]), first, stop) for place, first, stop in self._pieces_of(number)]

    def count_tokens(self) -> tuple[int, int]:
        """Tokens of all sequences, and how many of them are trained."""
        fitted = self._fitted
        trained = self._tokens.count_trained(fitted.places, fitted.first, fitted.stop)
        return int((fitted.stop - fitted.first).sum()), trained

    def _pieces_of(self, number: int) -> Iterator[tuple[int, int, int]]:
        for piece in range(int(self._fitted.starts[number]), int(self._fitted.starts[number + 1])):
            yield int(self._fitted.places[piece]), int(self._fitted.first[piece]), int(self._fitted.stop[piece])

    def _sequence(self, number: int) -> dict[str, Any]:
        if self.fetched is not None:
            self.fetched.append(number)
        ids: list[Any] = []
        labels: list[Any] = []
        for place, first, stop in self._pieces_of(number):
            tokens, trained = self._tokens.tokens(place, first, stop)
            ids.append(tokens.astype(np.int64))
            labels.append(np.where(trained, ids[-1], -100))
        sequence: dict[str, Any] = {"input_ids": np.concatenate(ids), "labels": np.concatenate(labels)}
        if self._says_pieces:
            sequence["seq_lengths"] = [len(piece) for piece in ids]
        return sequence

    def __getitem__(self, key: Any) -> Any:
        """A sequence by its number, or a column of the dataset's own table by its name."""
        if isinstance(key, str):
            return self.data.column(key).to_pylist()
        if isinstance(key, slice):
            return [self._sequence(number) for number in range(*key.indices(len(self)))]
        return self._sequence(range(len(self))[key])

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        """Several sequences, as a data loader asks for them."""
        return [self._sequence(int(key)) for key in keys]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._sequence, range(len(self)))
