"""Every row of a data file, whatever format it is in, one at a time."""

import bz2
import gzip
import io
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from core.data.json_lines import BYTE_ORDER_MARK, UnreadableError, line_rows, parse_json
from core.data.json_values import array_rows, value_rows
from core.data.rows import Row
from core.data.tables import table_rows, text_rows
from core.errors import SftuiError

DATA_SUFFIXES = (
    ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq", ".arrow", ".feather", ".ipc"
)  # fmt: skip
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_BUFFER = 2**20
_ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")
_GZIP, _BZIP, _XZ, _ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_ARROW = (b"PAR1", b"ARROW1")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SPACES = b" \t\r\n"
# {"data": [{…}, …]}, but not {"messages": [{"role": …}]}.
_WRAPPED = re.compile(
    r'\s*\{\s*"(?P<name>[^"\\]{1,64})"\s*:\s*\[(?=\s*\{)(?!\s*\{\s*"(?:role|from|content|value|speaker|author)")'
)
# How the second line of an object begins.
_CONTINUES = (b'"', b"}")


def read_rows(
    file: Path, stop: Callable[[], bool] = lambda: False, at: Callable[[int], None] = lambda _: None
) -> Iterator[Row]:
    """Every row of a file with its line, also those that cannot be read; ends early once `stop()` is true.

    JSON, JSONL, CSV, TSV, plain text, Parquet and Arrow, by suffix and content; .gz, .bz2, .xz and .zst of them by
    content. `at` is told now and then how many bytes of the file, as it lies on the disk, are read. Raises SftuiError
    for a file that is not there or may not be read.
    """
    line = 0
    packed = False
    try:
        if not stat.S_ISREG(file.stat().st_mode) and not file.is_dir():
            raise SftuiError("The data file cannot be read", f"{file} is not an ordinary file.", "Give one.")
        with ExitStack() as stack:
            plain = stack.enter_context(io.BufferedReader(file.open("rb", buffering=0), _BUFFER))
            read = _unpacking(plain, plain.peek(8)[:8])
            packed = read is not None
            opened: io.BufferedReader[Any] = plain if read is None else io.BufferedReader(_Unpacked(read), _BUFFER)
            for count, row in enumerate(_rows(file, opened, packed, at)):
                line = row.line
                yield row
                if not count & 15:
                    # Arrow files are not read through it.
                    if position := plain.tell():
                        at(position)
                    if stop():
                        return
    except FileNotFoundError as error:
        raise SftuiError("No such data file", f"{file} does not exist.", "Give the path of a file here.") from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if not packed:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise SftuiError("The data file cannot be read", f"{file}: {words}.") from error
        words = "The packed file is cut off or damaged here; the rest was not read."
        yield UnreadableError("unreadable", None, words, "Fetch it or pack it again.").row(file, line + 1)


class _Unpacked(io.RawIOBase):
    """The bytes of a packed file, each piece as soon as it is there, so that a damaged file gives what it can."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _unpacking(plain: BinaryIO, head: bytes) -> Callable[[int], bytes] | None:
    """What reads unpacked bytes of a packed file; None for any other."""
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=plain).read1
    if head.startswith(_BZIP):
        return bz2.BZ2File(plain).read1
    if head.startswith(_XZ):
        return lzma.LZMAFile(plain).read1
    if head.startswith(_ZSTANDARD):
        from core.data.arrow_reader import zstandard_reader

        return zstandard_reader(plain)
    return None


def _rows(file: Path, opened: "io.BufferedReader[Any]", packed: bool, at: Callable[[int], None]) -> Iterator[Row]:
    head = opened.peek(_BUFFER)
    suffix = _suffix(file)
    if head.startswith(_ARROW) or (head and suffix in _ARROW_SUFFIXES):
        if packed:
            yield _refused(file, "A packed Parquet or Arrow file.", "Unpack it first.")
            return
        from core.data.arrow_reader import arrow_rows

        yield from arrow_rows(file, head[:8], at)
    elif head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar":
        yield _refused(file, "An archive of files.", "Unpack it first.")
    elif head.startswith(_UTF16) or b"\0" in head[:4]:
        words = "The file is in UTF-16." if head.startswith(_UTF16) else "The file is not text in UTF-8."
        yield UnreadableError("wrong_encoding", None, words, "Save it as UTF-8.").row(file, 1)
    elif suffix in (".tsv", ".tab"):
        yield from table_rows(file, opened, head, "\t")
    elif suffix == ".csv":
        yield from table_rows(file, opened, head, ",")
    elif suffix == ".txt" and not _begins_with_object(head):
        yield from text_rows(file, opened)
    else:
        yield from _json_rows(file, opened, head, again=not packed)


def _json_rows(file: Path, opened: BinaryIO, head: bytes, *, again: bool) -> Iterator[Row]:
    text = head.removeprefix(BYTE_ORDER_MARK)
    begin = text.lstrip(_SPACES)
    if begin.startswith(b"["):
        yield from array_rows(file, opened, len(text) - len(begin) + 1, None)
        return
    wrapped = _WRAPPED.match(text[:4096].decode("utf-8", "replace"))
    if wrapped is not None and not _is_first_of_lines(begin):
        yield from array_rows(file, opened, wrapped.end(), wrapped["name"])
    elif _spread_over_lines(begin):
        yield from value_rows(file, opened)
    else:
        yield from line_rows(file, opened, again=again)


def _spread_over_lines(begin: bytes) -> bool:
    first, _, rest = begin.partition(b"\n")
    return first.startswith(b"{") and rest.lstrip(_SPACES).startswith(_CONTINUES) and not _is_json(first)


def _is_first_of_lines(begin: bytes) -> bool:
    first, _, rest = begin.partition(b"\n")
    return bool(rest.strip()) and _is_json(first)


def _begins_with_object(head: bytes) -> bool:
    first = head.removeprefix(BYTE_ORDER_MARK).lstrip(_SPACES).partition(b"\n")[0]
    return first.startswith(b"{") and _is_json(first)


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except UnreadableError:
        return False
    return True


def _suffix(file: Path) -> str:
    name = file.name.lower()
    for packed in PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _refused(file: Path, message: str, fix: str) -> Row:
    return UnreadableError("unreadable", None, message, fix).row(file, 1)
