"""The good rows of a dataset by their number, read from the files they stand in: nothing is held in memory."""

import json
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.data.json_lines import UnreadableError, parse_json
from core.data.mapping import ColumnMapping, canonical
from core.errors import SftuiError

ROWS_NAME = "rows.jsonl"
STORE_NAME = "store.json"
# Where a row's bytes begin, how many there are, its line, and its file twice over, plus one for a row that was copied.
RECORD = struct.Struct("<QIII")
_OPEN_FILES = 32


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One good row."""

    file: Path
    line: int
    canonical: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was when its rows were indexed."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "StoredFile":
        """The file as it is now. Raises SftuiError if it is not there."""
        try:
            facts = path.stat()
        except OSError as error:
            raise SftuiError("The data file cannot be read", f"{path}: {error.strerror}.") from error
        return cls(path.absolute(), facts.st_size, facts.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class StoredSource:
    """One source in the store."""

    rows: int
    columns: tuple[str, ...] | None
    mapping: ColumnMapping
    files: tuple[StoredFile, ...]


def pack(row: dict[str, Any]) -> bytes:
    """A canonical row as JSON without line breaks."""
    try:
        return orjson.dumps(row)
    except TypeError:
        # Whole numbers beyond 64 bits, and what is nested more than 254 deep.
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def index_name(source: int) -> str:
    """The file that says where the rows of a source are."""
    return f"index-{source}.bin"


def write_store(folder: Path, sources: Sequence[StoredSource]) -> None:
    """Say what a folder with indexes is; the last thing to be written."""
    told = [
        {
            "rows": source.rows,
            "columns": source.columns,
            "mapping": source.mapping.to_dict(),
            "files": [[str(file.path), file.size, file.mtime_ns] for file in source.files],
        }
        for source in sources
    ]
    # Not orjson: the name of a file may hold bytes that are not UTF-8.
    (folder / STORE_NAME).write_text(json.dumps(told))


class RowStore:
    """Rows by their number, from 0; made by `check`, opened by whoever needs rows. Not for several threads at once."""

    def __init__(self, folder: Path, sources: Sequence[StoredSource]) -> None:
        self._folder = folder
        self._sources = sources
        self._starts = [sum(source.rows for source in sources[:number]) for number in range(len(sources) + 1)]
        self._open: dict[Path, BinaryIO] = {}
        self._closing = ExitStack()
        self._indexes = [self._mapped(number) for number in range(len(sources))]

    @classmethod
    def open(cls, folder: Path) -> "RowStore":
        """The store in a folder. Raises SftuiError if it is gone, or a file changed since it was read."""
        try:
            told = json.loads((folder / STORE_NAME).read_bytes())
            sources = [
                StoredSource(
                    source["rows"],
                    source["columns"],
                    ColumnMapping.from_dict(source["mapping"]),
                    tuple(StoredFile(Path(path), size, mtime) for path, size, mtime in source["files"]),
                )
                for source in told
            ]
            store = cls(folder, sources)
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"{folder} is gone or damaged."
            raise SftuiError("The dataset's index cannot be read", message, "Have the data read again.") from error
        for source in sources:
            for file in source.files:
                if StoredFile.of(file.path) != file:
                    store.close()
                    raise _changed(file.path)
        return store

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> StoredRow:
        """One row. Raises SftuiError if its file cannot be read or changed; IndexError beyond the last."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return next(self.rows(index, index + 1))

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
        """Rows from `start` up to, not including, `stop`."""
        stop = len(self) if stop is None else min(stop, len(self))
        for number, source in enumerate(self._sources):
            first = self._starts[number]
            for index in range(max(start, first), min(stop, self._starts[number + 1])):
                yield self._read(source, RECORD.unpack_from(self._indexes[number], (index - first) * RECORD.size))

    def close(self) -> None:
        """Give back the files."""
        self._closing.close()
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mapped(self, number: int) -> mmap.mmap | bytes:
        rows = self._sources[number].rows
        if rows == 0:
            return b""
        with (self._folder / index_name(number)).open("rb") as file:
            return self._closing.enter_context(mmap.mmap(file.fileno(), rows * RECORD.size, access=mmap.ACCESS_READ))

    def _read(self, source: StoredSource, record: tuple[int, int, int, int]) -> StoredRow:
        offset, length, line, place = record
        file = source.files[place >> 1].path
        copied = place & 1
        try:
            value = parse_json(self._bytes(self._folder / ROWS_NAME if copied else file, offset, length))
        except UnreadableError as error:
            raise _changed(file) from error
        row = value if copied else canonical(only(value, source.columns), source.mapping)
        if not isinstance(row, dict):
            raise _changed(file)
        return StoredRow(file, line, row)

    def _bytes(self, path: Path, offset: int, length: int) -> bytes:
        file = self._open.get(path)
        try:
            if file is None:
                while len(self._open) >= _OPEN_FILES:
                    self._open.pop(next(iter(self._open))).close()
                file = self._open[path] = path.open("rb", buffering=0)
            return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise SftuiError("The data file cannot be read", f"{path}: {error.strerror}.") from error


def only(value: Any, columns: Sequence[str] | None) -> Any:
    """A row with these columns alone; None for all."""
    if columns is None or not isinstance(value, dict):
        return value
    return {name: value[name] for name in columns if name in value}


def _changed(file: Path) -> SftuiError:
    return SftuiError("The data has changed", f"{file} is not what it was when it was read.", "Have it read again.")
