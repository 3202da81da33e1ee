"""Rows as tokens in a file of their own, mapped into memory: written once, read by number in any order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data.tokenized_row import TokenizedRow

_ROWS_A_BATCH = 1000
_TOKENS_A_BATCH = 4_000_000
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("trained", pa.list_(pa.bool_())),
        ("trained_count", pa.int32()),
        ("first", pa.int32()),
        ("last", pa.int32()),
    ]
)


class TokenWriter:
    """Writes rows in the order in which they come; holds a thousand of them at most."""

    def __init__(self, file: Path) -> None:
        self._sink = pa.OSFile(str(file), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)
        self._batch: list[tuple[int, TokenizedRow]] = []
        self._tokens = 0

    def add(self, row: int, tokens: TokenizedRow) -> None:
        """Write the tokens of a row of the store."""
        self._batch.append((row, tokens))
        self._tokens += len(tokens.input_ids)
        if len(self._batch) >= _ROWS_A_BATCH or self._tokens >= _TOKENS_A_BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end without which the file is not read."""
        self._flush()
        self._writer.close()
        self._sink.close()

    def _flush(self) -> None:
        if not self._batch:
            return
        masks = [np.asarray(tokens.trained, dtype=bool) for _, tokens in self._batch]
        columns: Sequence[Sequence[Any]] = (
            [row for row, _ in self._batch],
            [np.asarray(tokens.input_ids, dtype=np.int32) for _, tokens in self._batch],
            masks,
            [int(mask.sum()) for mask in masks],
            [int(mask.argmax()) if mask.any() else 0 for mask in masks],
            [len(mask) - 1 - int(mask[::-1].argmax()) if mask.any() else 0 for mask in masks],
        )
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._batch, self._tokens = [], 0


class TokenFile:
    """Rows that were written, by their place in the file. Raises OSError or pa.ArrowInvalid for a damaged file."""

    rows: "np.ndarray[Any, np.dtype[np.int64]]"
    """Number in the store of each."""
    lengths: "np.ndarray[Any, np.dtype[np.int32]]"
    """In tokens."""
    trained_counts: "np.ndarray[Any, np.dtype[np.int32]]"
    first: "np.ndarray[Any, np.dtype[np.int32]]"
    """Position of the first token that is trained; 0 where none is."""
    last: "np.ndarray[Any, np.dtype[np.int32]]"

    def __init__(self, file: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

        def joined(name: str, dtype: Any) -> Any:
            parts = [batch.column(name).to_numpy() for batch in self._batches]
            return np.concatenate(parts) if parts else np.zeros(0, dtype)

        self.rows = joined("row", np.int64)
        self.trained_counts, self.first, self.last = (
            joined(name, np.int32) for name in ("trained_count", "first", "last")
        )
        offsets = [np.diff(batch.column("input_ids").offsets.to_numpy()) for batch in self._batches]
        self.lengths = np.concatenate(offsets) if offsets else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, place: int, start: int = 0, stop: int | None = None) -> tuple[Any, Any]:
        """Ids and marks of what is trained of one row, from one token up to another: two numpy arrays."""
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        batch, inside = self._batches[number], place - int(self._starts[number])
        ids, trained = (batch.column(name)[inside].values[start:stop] for name in ("input_ids", "trained"))
        return ids.to_numpy(), trained.to_numpy(zero_copy_only=False)

    def count_trained(self, places: Any, first: Any, stop: Any) -> int:
        """Trained tokens of pieces: places, and for each from one token up to another; numpy arrays of one length."""
        whole = (first == 0) & (stop == self.lengths[places])
        total = int(self.trained_counts[places[whole]].sum(dtype=np.int64))
        places, first, stop = places[~whole], first[~whole], stop[~whole]
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(numbers):
            column = self._batches[number].column("trained")
            sums = np.concatenate([[0], np.cumsum(column.values.to_numpy(zero_copy_only=False))])
            here = numbers == number
            begins = column.offsets.to_numpy()[places[here] - self._starts[number]]
            total += int((sums[begins + stop[here]] - sums[begins + first[here]]).sum())
        return total
