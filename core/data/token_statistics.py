"""How many tokens rows have and how many of them are trained: a table of counts, and what it says about a run."""

import json
import math
import operator
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from heapq import merge
from itertools import compress, islice
from pathlib import Path
from typing import Any

from core.data.packing import PACKED_AT_ONCE, PackingStrategy, pack
from core.data.rows import DataProblem
from core.paths import write_atomically
from core.spec.run_spec import RunSpec

UNKNOWN = 0xFFFFFFFF
_MAGIC = b"sftui tokens 2\n"
_LISTED = 100
_REFUSED_LISTED = 200
_SAMPLED_ROWS = 20_000
_BINS = 40
_COLUMNS = ("lengths", "trained", "first", "last")


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that the template refuses, or whose mask cannot be proven."""

    index: int
    kind: str
    message: str
    fix: str
    file: str
    line: int

    @property
    def problem(self) -> DataProblem:
        """The same as a problem of its line."""
        kind: Any = self.kind
        return DataProblem(Path(self.file), self.line, None, kind, self.message, self.fix)


class TokenCounts:
    """Tokens of each row of a store, filled slice by slice: 16 bytes a row.

    `lengths` and `trained` count tokens; `first` and `last` are the positions of the first and last trained one.
    A number is UNKNOWN before its row was counted; a row that cannot be tokenized has no tokens.
    """

    def __init__(self, rows: int) -> None:
        empty = array("I", [UNKNOWN])
        self.lengths, self.trained, self.first, self.last = (empty * rows for _ in _COLUMNS)
        self.refused: list[RefusedRow] = []
        self.counted = 0

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def complete(self) -> bool:
        """Whether every row was counted."""
        return self.counted == len(self)

    def next_unknown(self) -> int | None:
        """The first row that was not counted yet."""
        return None if self.complete else self.lengths.index(UNKNOWN)

    def add(self, told: Mapping[str, Any]) -> None:
        """Take the answer to one {"ask": "lengths"}; rows that are known already are not counted twice."""
        start, stop = told["start"], told["stop"]
        self.counted += self.lengths[start:stop].count(UNKNOWN)
        for name in _COLUMNS:
            getattr(self, name)[start:stop] = array("I", told[name])
        known = {row.index for row in self.refused}
        new = [RefusedRow(*row) for row in told["refused"] if row[0] not in known]
        self.refused = sorted(self.refused + new, key=lambda row: row.index)[:_REFUSED_LISTED]

    def write(self, file: Path) -> None:
        """Keep whole counts; the folder must exist. Raises OSError."""
        head = _MAGIC + len(self).to_bytes(8, "little")
        columns = b"".join(getattr(self, name).tobytes() for name in _COLUMNS)
        write_atomically(file, head + columns + json.dumps([astuple(row) for row in self.refused]).encode())

    @classmethod
    def read(cls, file: Path, rows: int) -> "TokenCounts | None":
        """Counts that were kept for so many rows; None if there are none, or they are damaged."""
        try:
            data = file.read_bytes()
        except OSError:
            return None
        head = _MAGIC + rows.to_bytes(8, "little")
        counts = cls(rows)
        size = 4 * rows
        end = len(head) + len(_COLUMNS) * size
        if not data.startswith(head) or len(data) < end:
            return None
        try:
            counts.refused = [RefusedRow(*row) for row in json.loads(data[end:])]
        except (ValueError, TypeError):
            return None
        for number, name in enumerate(_COLUMNS):
            start = len(head) + number * size
            setattr(counts, name, array("I", data[start : start + size]))
        counts.counted = rows - counts.lengths.count(UNKNOWN)
        return counts if counts.complete else None


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What counted rows say about a run; lengths in tokens, shares of the counted rows between 0 and 1."""

    rows: int
    """Rows of the store."""
    counted: int
    p50: int
    p95: int
    longest_length: int
    total: int
    trained: int
    truncated: int
    """Rows that `max_length` cuts and that are learnt from."""
    dropped: int
    """Rows that have nothing to learn from within `max_length`, and are left out."""
    untrained: int
    """Rows that have nothing to learn from at any length; they are among the dropped."""
    bins: tuple[tuple[int, int, int], ...]
    """Histogram of the lengths: shortest, longest, rows."""
    padded_efficiency: float
    """Share of a padded batch that is tokens of rows, by the order of a shuffled epoch."""
    packed_efficiency: float | None
    """The same of packed sequences; None without a `max_length`."""
    steps_per_epoch: int
    tokens_per_epoch: int
    longest: tuple[int, ...]
    """Row numbers, the longest first; like the lists below at most a hundred."""
    truncated_rows: tuple[int, ...]
    unlearnt_rows: tuple[int, ...]
    """Those that are dropped or refused."""
    refused_rows: int
    """Rows that cannot be tokenized: the template refuses them, or nothing in them can be learnt."""
    refused: tuple[RefusedRow, ...]
    """The first ones."""

    @property
    def truncated_share(self) -> float:
        """Of the counted rows."""
        return self.truncated / max(1, self.counted)

    @property
    def dropped_share(self) -> float:
        """Of the counted rows."""
        return self.dropped / max(1, self.counted)


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows become steps, as a spec says it."""

    max_length: int | None
    batch_size: int
    accumulation: int = 1
    packing: PackingStrategy | None = None
    held_out_share: float = 0.0
    keep_end: bool = False
    """Whether long rows lose their beginning, `truncation_mode: keep_end` of TRL."""

    @classmethod
    def of(cls, spec: RunSpec) -> "Batching":
        """How a spec makes steps of its training rows."""
        return cls(
            max_length=spec.max_length,
            batch_size=spec.per_device_train_batch_size,
            accumulation=spec.gradient_accumulation_steps,
            packing=spec.packing_strategy if spec.packing else None,
            held_out_share=spec.test_split_size or 0.0,
            keep_end=spec.extra_arguments.get("truncation_mode") == "keep_end",
        )

    @property
    def limit(self) -> int:
        """The tokens of a row that are used; where long rows go on in another piece, all."""
        cuts = self.max_length is not None and self.packing in (None, "bfd")
        return self.max_length if cuts and self.max_length is not None else UNKNOWN - 1


def statistics(counts: TokenCounts, batching: Batching) -> TokenStatistics:
    """What is known so far; figures of an epoch are scaled up to all rows that are trained on."""
    limit, size = batching.limit, batching.max_length
    by_length = Counter(counts.lengths)
    unknown = by_length.pop(UNKNOWN, 0)
    lengths = sorted(by_length)
    refused = by_length[0]
    dropped = _dropped(counts, batching)
    left_out = frozenset(dropped)
    sample = _sample(counts, left_out)
    cut = (row for row in compress(range(len(counts)), map(limit.__lt__, counts.lengths)) if row not in left_out)
    scale = len(counts) / max(1, counts.counted) * (1 - batching.held_out_share)
    kept = counts.counted - refused - len(dropped)
    tokens = sum(min(length, limit) * rows for length, rows in by_length.items())
    sequences = kept * scale
    if batching.packing and size is not None:
        sequences *= _packed(sample, size, batching.packing) / max(1, sum(map(len, sample)))
    batches = math.ceil(round(sequences) / batching.batch_size)
    return TokenStatistics(
        rows=len(counts),
        counted=counts.counted,
        p50=_percentile(by_length, lengths, 0.50),
        p95=_percentile(by_length, lengths, 0.95),
        longest_length=lengths[-1] if lengths else 0,
        total=sum(length * rows for length, rows in by_length.items()),
        trained=sum(counts.trained) - unknown * UNKNOWN,
        truncated=sum(rows for length, rows in by_length.items() if length > limit)
        - sum(counts.lengths[row] > limit for row in dropped),
        dropped=len(dropped),
        untrained=counts.trained.count(0) - refused,
        bins=_bins(by_length, lengths),
        padded_efficiency=_padded_share(sample, limit, batching.batch_size),
        packed_efficiency=_packed_share(sample, size) if size is not None else None,
        steps_per_epoch=math.ceil(batches / batching.accumulation),
        tokens_per_epoch=round((tokens - sum(min(counts.lengths[row], limit) for row in dropped)) * scale),
        longest=_longest(counts, by_length, lengths),
        truncated_rows=tuple(islice((row for row in cut if counts.lengths[row] < UNKNOWN), _LISTED)),
        unlearnt_rows=tuple(
            islice(merge(dropped, compress(range(len(counts)), map((0).__eq__, counts.lengths))), _LISTED)
        ),
        refused_rows=refused,
        refused=tuple(counts.refused),
    )


def _dropped(counts: TokenCounts, batching: Batching) -> list[int]:
    """Numbers of the rows that have nothing to learn from within `max_length`, though they have tokens."""
    limit = batching.limit
    if batching.keep_end:
        columns = zip(counts.lengths, counts.trained, counts.last, strict=True)
        found: Iterable[int] = (
            row for row, (length, trained, last) in enumerate(columns) if not trained or last + limit < length
        )
    else:
        # Without a loop of Python's own: there may be millions of rows.
        late = map(limit.__le__, counts.first)
        found = compress(range(len(counts)), map(operator.or_, map(operator.not_, counts.trained), late))
    return [row for row in found if 0 < counts.lengths[row] < UNKNOWN]


def _sample(counts: TokenCounts, dropped: frozenset[int]) -> list[list[int]]:
    """Lengths of rows that are packed together: of all of them, or of some from every part of many."""
    step = PACKED_AT_ONCE * max(1, math.ceil(len(counts) / _SAMPLED_ROWS))
    if step == PACKED_AT_ONCE:
        kept = [length for row, length in enumerate(counts.lengths) if 0 < length < UNKNOWN and row not in dropped]
        return [kept[start : start + PACKED_AT_ONCE] for start in range(0, len(kept), PACKED_AT_ONCE)]
    parts = [
        [
            counts.lengths[row]
            for row in range(start, min(start + PACKED_AT_ONCE, len(counts)))
            if 0 < counts.lengths[row] < UNKNOWN and row not in dropped
        ]
        for start in range(0, len(counts), step)
    ]
    return [part for part in parts if part]


def _percentile(by_length: Mapping[int, int], lengths: Sequence[int], share: float) -> int:
    below, wanted = 0, share * sum(by_length.values())
    for length in lengths:
        below += by_length[length]
        if below >= wanted:
            return length
    return 0


def _bins(by_length: Mapping[int, int], lengths: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    if not lengths:
        return ()
    width = max(1, math.ceil((lengths[-1] + 1) / _BINS))
    rows = Counter[int]()
    for length in lengths:
        rows[length // width] += by_length[length]
    return tuple((place * width, (place + 1) * width - 1, rows[place]) for place in range(max(rows) + 1))


def _padded_share(sample: Sequence[Sequence[int]], limit: int, batch_size: int) -> float:
    lengths = [min(length, limit) for part in sample for length in part]
    random.Random(0).shuffle(lengths)
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return sum(lengths) / max(1, sum(len(batch) * max(batch) for batch in batches))


def _packed_share(sample: Sequence[Sequence[int]], size: int) -> float:
    tokens = sum(min(length, size) for part in sample for length in part)
    return tokens / max(1, _packed(sample, size, "bfd") * size)


def _packed(sample: Sequence[Sequence[int]], size: int, strategy: PackingStrategy) -> int:
    return sum(len(pack(part, size, strategy)) for part in sample)


def _longest(counts: TokenCounts, by_length: Mapping[int, int], lengths: Sequence[int]) -> tuple[int, ...]:
    found = 0
    for shortest in reversed(lengths):
        found += by_length[shortest]
        if found >= _LISTED:
            break
    else:
        shortest = 0
    rows = compress(range(len(counts)), map(shortest.__le__, counts.lengths))
    known = [row for row in rows if counts.lengths[row] != UNKNOWN]
    return tuple(sorted(known, key=counts.lengths.__getitem__, reverse=True)[:_LISTED])
