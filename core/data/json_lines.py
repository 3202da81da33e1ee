"""JSON, one value a line: read fast, and explained in words where it is broken."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.data.rows import DataProblem, ProblemKind, Row

ROW_LIMIT = 64 * 2**20
"""Bytes of the largest row that is read: no file, however it was packed, may fill the memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WORDS = (
    ("Extra data", "there is more after the value", "Put each value on a line of its own."),
    (
        "Expecting property name",
        "a name in double quotes was expected",
        "JSON wants double quotes around names and texts, and no comma after the last one.",
    ),
    ("Illegal trailing comma", "there is a comma after the last value", "Remove it."),
    ("Expecting value", "a value was expected", "JSON knows texts in double quotes, numbers, true, false and null."),
    ("Expecting ',' delimiter", "a comma or the end was expected", 'A text holds a quote only as \\".'),
    ("Expecting ':' delimiter", "a colon was expected", "Write it between a name and its value."),
    ("Unterminated string", "a text is not closed", "The line may be cut off: complete or remove it."),
    ("Invalid control character", "a text holds a control character", "Write a line break as \\n and a tab as \\t."),
    ("Invalid \\", "a backslash is followed by what it cannot stand before", "Write a backslash in a text as \\\\."),
)


class UnreadableError(Exception):
    """Bytes that are no JSON: of which kind, at which character from 1, and in which words."""

    def __init__(self, kind: ProblemKind, column: int | None, message: str, fix: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.column = column
        self.message = message
        self.fix = fix

    def row(self, file: Path, line: int) -> Row:
        """The row that could not be read."""
        problem = DataProblem(file, line, self.column, self.kind, self.message, self.fix)
        return Row(file, line, None, problem)


def parse_json(raw: bytes) -> Any:
    """The value that a line holds. Raises UnreadableError."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        # json takes more (lone surrogates, NaN), and says in words and characters what it does not take.
        return _parse_slowly(raw)


def line_rows(file: Path, opened: BinaryIO, *, again: bool) -> Iterator[Row]:
    """A value from each line that is not empty; with its place in bytes if the file can be read `again` by it."""
    loads, readline, limit = orjson.loads, opened.readline, ROW_LIMIT
    number = end = 0
    while raw := readline(limit):
        number += 1
        offset = end
        end += len(raw)
        if number == 1 and raw.startswith(BYTE_ORDER_MARK):
            raw, offset = raw[3:], 3
        if len(raw) == limit and not raw.endswith(b"\n"):
            end += skip_line(opened)
            yield too_large().row(file, number)
            continue
        try:
            value = loads(raw)
        except orjson.JSONDecodeError:
            if not raw.strip():
                continue
            try:
                value = _parse_slowly(raw)
            except UnreadableError as error:
                yield error.row(file, number)
                continue
        yield Row(file, number, value, None, offset, len(raw)) if again else Row(file, number, value)


def skip_line(opened: BinaryIO) -> int:
    """Pass over the rest of a line and say how many bytes it had."""
    skipped = 0
    while rest := opened.readline(2**20):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return skipped


def too_large() -> UnreadableError:
    """What is wrong with a row that is longer than ROW_LIMIT."""
    words = f"The row is larger than {ROW_LIMIT // 2**20} MiB."
    return UnreadableError("too_large", None, words, "Split it or remove it.")


def not_json(error: json.JSONDecodeError, column: int) -> UnreadableError:
    """What is wrong with a text, in words of our own."""
    for start, words, fix in _WORDS:
        if error.msg.startswith(start):
            return UnreadableError("invalid_json", column, f"Not JSON: {words}.", fix)
    return UnreadableError("invalid_json", column, f"Not JSON: {error.msg}.", "Mend it or remove the row.")


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> UnreadableError:
    """Where a line stops being UTF-8."""
    column = len(raw[: error.start].decode("utf-8")) + 1
    return UnreadableError(
        "wrong_encoding",
        column,
        f"Byte {error.start + 1} of the line is not UTF-8.",
        "Save the file as UTF-8.",
    )


def too_deep() -> UnreadableError:
    """What is nested beyond what any reader takes."""
    return UnreadableError("too_deep", None, "The row is nested too deeply.", "Flatten it or remove it.")


def too_many_digits() -> UnreadableError:
    """What no program reads as a number."""
    return UnreadableError("invalid_json", None, "A number has too many digits.", "Write it as a text.")


def _parse_slowly(raw: bytes) -> Any:
    line = raw.rstrip(b"\r\n")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise not_utf8(line, error) from None
    except json.JSONDecodeError as error:
        raise not_json(error, error.colno) from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        raise too_many_digits() from None
