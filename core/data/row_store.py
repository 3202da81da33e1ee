"""The good rows of a dataset by their number, read from the files they stand in: nothing is held in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One good row."""

    file: Path
    line: int
    canonical: dict[str, Any]


class RowStore:
    """Rows by their number, from 0; made by `check`, opened by whoever needs rows."""

    @classmethod
    def open(cls, folder: Path) -> "RowStore":
        """The store in a folder. Raises SftuiError if it is gone, or a file changed since it was read."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def row(self, index: int) -> StoredRow:
        """One row. Raises SftuiError if its file cannot be read or changed; IndexError beyond the last."""
        raise NotImplementedError

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
        """Rows from `start` up to, not including, `stop`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back the files."""
        raise NotImplementedError

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
