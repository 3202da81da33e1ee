"""Rows of Parquet and Arrow files, and streams packed with Zstandard: all that needs pyarrow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.images import bytes_as_text
from core.data.rows import DataProblem, Row

# Few, because a row may hold images.
_BATCH_ROWS = 64
_AS_THEY_ARE = (str, int, float)
_PARQUET, _ARROW_FILE = b"PAR1", b"ARROW1"


def arrow_rows(file: Path, head: bytes, at: Callable[[int], None]) -> Iterator[Row]:
    """Each row as an object, its number from 1 as its line; a damaged file ends in a row with a problem.

    `at` is told how much of the file is read, in bytes of it.
    """
    number = 0
    try:
        size = file.stat().st_size
        for batch, share in _batches(file, head):
            at(int(size * share))
            for value in _values(batch):
                number += 1
                if isinstance(value, str):
                    yield _problem(file, number, value)
                else:
                    yield Row(file, number, value)
    except (pa.ArrowException, OSError, ValueError) as error:
        words = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        yield _problem(file, number + 1, f"The file is damaged or of another kind from here on: {words}")


def zstandard_reader(opened: BinaryIO) -> Callable[[int], bytes]:
    """What reads so many unpacked bytes on from a stream packed with Zstandard."""
    read: Callable[[int], bytes] = pa.CompressedInputStream(pa.PythonFile(opened, "r"), "zstd").read
    return read


def _batches(file: Path, head: bytes) -> Iterator[tuple[Any, float]]:
    """The batches of rows, each with the share of the file that is read with it."""
    if head.startswith(_PARQUET):
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            rows, read = parquet.metadata.num_rows, 0
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
                read += batch.num_rows
                yield batch, read / rows
        return
    with pa.memory_map(str(file)) as source:
        if head.startswith(_ARROW_FILE):
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                for batch in _sliced(reader.get_batch(index)):
                    yield batch, (index + 1) / reader.num_record_batches
        else:
            for whole in pa.ipc.open_stream(source):
                for batch in _sliced(whole):
                    yield batch, source.tell() / source.size()


def _sliced(batch: Any) -> Iterator[Any]:
    # A damaged file may point anywhere, and Arrow would follow.
    batch.validate(full=True)
    for start in range(0, batch.num_rows, _BATCH_ROWS):
        yield batch.slice(start, _BATCH_ROWS)


def _values(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch, or in its place what is wrong with one."""
    try:
        rows = batch.to_pylist(maps_as_pydicts="lossy")
    except (UnicodeDecodeError, ValueError, OverflowError):
        for index in range(batch.num_rows):
            try:
                rows = batch.slice(index, 1).to_pylist(maps_as_pydicts="lossy")
                yield {name: _plain(value) for name, value in rows[0].items()}
            except (UnicodeDecodeError, ValueError, OverflowError) as error:
                yield f"The row cannot be read: {error}"
        return
    for row in rows:
        yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Bytes, times and the like become texts, and what is null in an object goes.

    Arrow gives every object of a column the keys of all of them: those that are null were not there.
    """
    if value is None or isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return bytes_as_text(value) if isinstance(value, bytes) else str(value)


def _problem(file: Path, number: int, words: str) -> Row:
    message = f"{words.removesuffix('.')}."
    return Row(file, number, None, DataProblem(file, number, None, "unreadable", message, "Write the file again."))
