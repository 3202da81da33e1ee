"""JSON that is spread over lines: the elements of an array, or one value after another, in constant memory."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.data.json_lines import ROW_LIMIT, UnreadableError, not_json, too_deep, too_large, too_many_digits
from core.data.rows import DataProblem, Row
from core.data.values import shown

_PIECE = 2**20
_BETWEEN = re.compile(r"[ \t\r\n,]*")
# Longer than any word or escape that the end of a piece may have cut in two.
_CUT = 16


def array_rows(file: Path, opened: BinaryIO, before: int, name: str | None) -> Iterator[Row]:
    """The elements of an array whose `[` ends after `before` characters; `name` is its key if an object holds it."""
    text = _Text(opened)
    text.skip(before)
    yield from _values(file, text)
    if text.stopped:
        return
    if text.at_end():
        yield _unread(file, text, "The array is not closed: the file may be cut off.", "Complete it.")
        return
    text.skip(1)
    text.skip_spaces()
    if name is not None and not text.at_end() and text.here() == "}":
        text.skip(1)
        text.skip_spaces()
        name = None
    if text.at_end():
        return
    if name is None:
        words = "There is more after the end of the array; it was not read."
        yield _unread(file, text, words, "Put all rows into one array.")
        return
    words = f"There is more beside the list {shown(name)}; it was not read."
    fix = "Put other rows into a file of their own."
    problem = DataProblem(file, text.line, text.column, "unreadable", words, fix, "warning")
    yield Row(file, text.line, None, problem)


def value_rows(file: Path, opened: BinaryIO) -> Iterator[Row]:
    """Values that follow one another, each over as many lines as it likes."""
    text = _Text(opened)
    yield from _values(file, text)
    if not text.stopped and not text.at_end():
        words = "A value was expected, not `]`; the rest of the file was not read."
        yield _unread(file, text, words, "Remove it, or open the list with [.")


class _Text:
    """The text of a file, of which only the piece is held that is being decoded."""

    def __init__(self, opened: BinaryIO) -> None:
        self._opened = opened
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._column_before = 1
        self.text = ""
        self.position = 0
        self.line = 1
        self.ended = False
        self.broken = False
        """Whether it ended where the bytes are no UTF-8."""
        self.stopped = False
        """Whether nothing more can be read from it."""

    @property
    def column(self) -> int:
        return self.column_at(self.position)

    def column_at(self, position: int) -> int:
        newline = self.text.rfind("\n", 0, position)
        return self._column_before + position if newline < 0 else position - newline

    def more(self) -> bool:
        """Read a piece on, the larger the more is held already; False at the end."""
        if self.ended:
            return False
        self._column_before = self.column
        rest = self.text[self.position :]
        raw = self._opened.read(max(_PIECE, len(rest)))
        try:
            new = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            new = error.object[: error.start].decode("utf-8-sig" if not self.text else "utf-8")
            self.broken = self.ended = True
        self.text, self.position = rest + new, 0
        self.ended = self.ended or not raw
        return True

    def at_end(self) -> bool:
        while self.position >= len(self.text):
            if not self.more():
                return True
        return False

    def here(self) -> str:
        return self.text[self.position]

    def advance(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def skip(self, characters: int) -> None:
        while len(self.text) - self.position < characters and self.more():
            pass
        self.advance(self.position + characters)

    def skip_spaces(self) -> None:
        while not self.at_end():
            found = _BETWEEN.match(self.text, self.position)
            self.advance(found.end() if found else self.position)
            if self.position < len(self.text):
                return


def _values(file: Path, text: _Text) -> Iterator[Row]:
    decode = json.JSONDecoder().raw_decode
    while True:
        text.skip_spaces()
        if text.at_end():
            if text.broken:
                yield _stopped(file, text, _not_utf8(text))
            return
        if text.here() == "]":
            return
        try:
            value, end = decode(text.text, text.position)
        except json.JSONDecodeError as error:
            if error.msg.startswith("Unterminated") or len(text.text) - error.pos < _CUT:
                if len(text.text) - text.position > ROW_LIMIT:
                    yield _stopped(file, text, too_large())
                    return
                if text.more():
                    continue
            if text.broken:
                yield _stopped(file, text, _not_utf8(text))
                return
            column = text.column_at(error.pos)
            text.advance(error.pos)
            yield _stopped(file, text, not_json(error, column))
            return
        except RecursionError:
            yield _stopped(file, text, too_deep())
            return
        except ValueError:
            yield _stopped(file, text, too_many_digits())
            return
        # A number may go on in the next piece.
        if end == len(text.text) and text.more():
            continue
        row = Row(file, text.line, value)
        text.advance(end)
        yield row


def _stopped(file: Path, text: _Text, error: UnreadableError) -> Row:
    text.stopped = True
    error.message = f"{error.message.removesuffix('.')}; the rest of the file was not read."
    return error.row(file, text.line)


def _unread(file: Path, text: _Text, message: str, fix: str) -> Row:
    return UnreadableError("invalid_json", text.column, message, fix).row(file, text.line)


def _not_utf8(text: _Text) -> UnreadableError:
    text.advance(len(text.text))
    return UnreadableError("wrong_encoding", text.column, "The file is not UTF-8 here.", "Save the file as UTF-8.")
