"""Rows of CSV and TSV files, with the line on which each begins, and plain texts, one a line."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.data.json_lines import BYTE_ORDER_MARK, ROW_LIMIT, UnreadableError, not_utf8, skip_line, too_large
from core.data.rows import Row

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
        try:
            fields = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            yield too_large(file, line) if "field limit" in str(error) else _broken(str(error)).row(file, line)
            continue
        if lines.too_large:
            yield too_large(file, line)
        elif not fields:
            continue
        elif not _is_utf8(fields):
            words = "The row is not UTF-8."
            yield UnreadableError("wrong_encoding", None, words, "Save the file as UTF-8.").row(file, line)
        elif header is None:
            header = [name.strip() or f"column {index}" for index, name in enumerate(fields, start=1)]
            twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
            if twice is not None:
                words = f"The header names `{twice:.40}` twice."
                yield UnreadableError("bad_header", None, words, "Rename one of the columns.").row(file, line)
        elif len(fields) != len(header):
            words = f"The row has {_fields(len(fields))}, the header {len(header)}."
            fix = f"Put a field that holds {_NAMES[delimiter]} into double quotes."
            yield UnreadableError("ragged_row", None, words, fix).row(file, line)
        else:
            yield Row(file, line, dict(zip(header, fields, strict=True)))


def text_rows(file: Path, opened: BinaryIO) -> Iterator[Row]:
    """Each line that is not empty as {"text": …}, as `datasets` reads text files too."""
    number = 0
    while raw := opened.readline(ROW_LIMIT):
        number += 1
        if number == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if len(raw) == ROW_LIMIT and not raw.endswith(b"\n"):
            skip_line(opened)
            yield too_large(file, number)
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


def _is_utf8(fields: list[str]) -> bool:
    try:
        for field in fields:
            field.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _broken(message: str) -> UnreadableError:
    if message == "unexpected end of data":
        return UnreadableError("ragged_row", None, "A quoted field is not closed.", 'End it with ".')
    if "expected after" in message:
        return UnreadableError("ragged_row", None, "A quote stands inside a quoted field.", 'Write it as "".')
    return UnreadableError("ragged_row", None, f"The row cannot be read: {message}.", "Mend it or remove it.")
