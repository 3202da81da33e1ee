"""Rows of CSV and TSV files, with the line on which each begins, and plain texts, one a line."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.data.json_lines import BYTE_ORDER_MARK, ROW_LIMIT, UnreadableError, not_utf8, skip_line, too_large
from core.data.rows import Row
from core.data.values import shown

_DELIMITERS = ",;\t|"
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def table_rows(file: Path, opened: BinaryIO, head: bytes, delimiter: str) -> Iterator[Row]:
    """Each record as an object of texts; `delimiter` is used unless the header speaks for another."""
    csv.field_size_limit(ROW_LIMIT)
    lines = _Lines(opened)
    delimiter = _delimiter(head, delimiter)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = lines.number + 1
        lines.too_large = False
        found: Row | None = None
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            found = _broken(str(error)).row(file, line)
            fields = [""]
        if not fields and not lines.too_large:
            continue
        if lines.too_large:
            found = too_large().row(file, line)
        elif found is None:
            problem = _not_utf8(fields) or (
                _bad_header(fields) if header is None else _ragged(fields, header, delimiter)
            )
            found = None if problem is None else problem.row(file, line)
        if header is None:
            if found is not None:
                # Without names no row can be read.
                yield found
                return
            header = _names(fields)
        else:
            yield found or Row(file, line, dict(zip(header, fields, strict=True)))


def text_rows(file: Path, opened: BinaryIO) -> Iterator[Row]:
    """Each line that is not empty as {"text": …}, as `datasets` reads text files too."""
    number = 0
    while raw := opened.readline(ROW_LIMIT):
        number += 1
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if len(raw) == ROW_LIMIT and not raw.endswith(b"\n"):
            skip_line(opened)
            yield too_large().row(file, number)
            continue
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield not_utf8(raw, error).row(file, number)
            continue
        if text.strip():
            yield Row(file, number, {"text": text})


class _Lines:
    """The lines of a file as texts, none longer than ROW_LIMIT; bytes that are no UTF-8 become surrogates."""

    def __init__(self, opened: BinaryIO) -> None:
        self._opened = opened
        self.number = 0
        self.too_large = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._opened.readline(ROW_LIMIT)
        if not raw:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if len(raw) == ROW_LIMIT and not raw.endswith(b"\n"):
            skip_line(self._opened)
            self.too_large = True
            return "\n"
        return raw.decode("utf-8", "surrogateescape")


def _delimiter(head: bytes, usual: str) -> str:
    first = head.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n").split(b"\n", 1)[0].decode("utf-8", "replace")
    outside = re.sub(r'"[^"]*"', "", first)
    # The usual one wins a tie.
    return max(usual + _DELIMITERS, key=outside.count)


def _names(fields: list[str]) -> list[str]:
    return [name.strip() or f"column {index}" for index, name in enumerate(fields, start=1)]


def _not_utf8(fields: list[str]) -> UnreadableError | None:
    try:
        for field in fields:
            field.encode("utf-8")
    except UnicodeEncodeError:
        return UnreadableError("wrong_encoding", None, "The row is not UTF-8.", "Save the file as UTF-8.")
    return None


def _bad_header(fields: list[str]) -> UnreadableError | None:
    names = _names(fields)
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is None:
        return None
    words = f"The header names {shown(twice)} twice; no row was read."
    return UnreadableError("bad_header", None, words, "Rename one of the columns.")


def _ragged(fields: list[str], header: list[str], delimiter: str) -> UnreadableError | None:
    if len(fields) == len(header):
        return None
    count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
    fix = f"Put a field that holds {_NAMES[delimiter]} into double quotes."
    return UnreadableError("ragged_row", None, f"The row has {count}, the header {len(header)}.", fix)


def _broken(message: str) -> UnreadableError:
    if "field limit" in message:
        return too_large()
    if message == "unexpected end of data":
        words = "A quoted field is not closed: all that follows was taken for a part of it."
        return UnreadableError("ragged_row", None, words, 'End it with ".')
    if "expected after" in message:
        return UnreadableError("ragged_row", None, "A quote stands inside a quoted field.", 'Write it as "".')
    return UnreadableError("ragged_row", None, f"The row cannot be read: {message}.", "Mend it or remove it.")
