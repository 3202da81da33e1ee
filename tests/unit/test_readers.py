"""Reading a file: where each row stands, what its errors are called, and how little of it is held in memory."""

import gzip
import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from core.data import json_lines, json_values, tables
from core.data.json_lines import UnreadableError, parse_json
from core.data.readers import read_rows
from core.errors import SftuiError
from tests.data_zoo import TALK, TEXT, arrow_stream, parquet


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def told(file: Path, content: str | bytes) -> list[tuple[int, int | None, str]]:
    """Line, column and message of each problem."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    problems = [row.problem for row in read_rows(file) if row.problem is not None]
    return [(problem.line, problem.column, problem.message) for problem in problems]


def values(file: Path, content: str | bytes) -> list[tuple[int, object]]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.line, row.value) for row in read_rows(file) if row.problem is None]


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        (b'{"text": "a"', 13, "Not JSON: a comma or the end was expected."),
        (b"{'text': 'a'}", 2, "Not JSON: a name in double quotes was expected."),
        (b'{"text" "a"}', 9, "Not JSON: a colon was expected."),
        (b'{"text": "a', 10, "Not JSON: a text is not closed."),
        (b'{"text": "\\d"}', 11, "Not JSON: a backslash is followed by what it cannot stand before."),
        (b'{"text": None}', 10, "Not JSON: a value was expected."),
        (b"text", 1, "Not JSON: a value was expected."),
        (b'{"text": "a"} {"text": "b"}', 15, "Not JSON: there is more after the value."),
        (b'{"text": "a\tb"}', 12, "Not JSON: a text holds a control character."),
        ('{"text": "ä", "b": "'.encode() + b'\xe9"}', 21, "Byte 22 of the line is not UTF-8."),
        (b"[" * 100_000, None, "The row is nested too deeply."),
        (b'{"text": ' + b"1" * 5000 + b"}", None, "A number has too many digits."),
        (b"\x00\x00", 1, "Not JSON: a value was expected."),
    ],
)
def test_a_line_that_is_not_json_is_told_by_line_and_column_and_does_not_end_the_reading(
    file: Path, line: bytes, column: int | None, words: str
) -> None:
    good = json.dumps(TEXT).encode()
    content = good + b"\r\n" + line + b"\r\n" + good + b"\r\n"
    assert told(file, content) == [(2, column, words)]
    assert values(file, content) == [(1, TEXT), (3, TEXT)]


def test_a_problem_reads_as_file_line_column(file: Path) -> None:
    file.write_text("{'a': 1}\n")
    problem = next(read_rows(file)).problem
    assert str(problem) == (
        f"{file}:1:2: Not JSON: a name in double quotes was expected. "
        "JSON wants double quotes around names and texts, and no comma after the last one."
    )


def test_a_row_of_plain_jsonl_can_be_read_again_by_its_place(file: Path) -> None:
    rows = [{"text": "ä" * number} for number in range(4)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_bytes(b"\xef\xbb\xbf" + f"{lines[0]}\r\n\n{lines[1]}\n[\n{lines[2]}\n{lines[3]}".encode())
    found = [row for row in read_rows(file) if row.problem is None]
    with file.open("rb") as opened:
        for row, expected in zip(found, rows, strict=True):
            assert row.offset is not None and row.length is not None
            opened.seek(row.offset)
            assert parse_json(opened.read(row.length)) == row.value == expected
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert {row.offset for row in read_rows(file)} == {None}


def test_what_json_takes_and_a_faster_reader_does_not_is_still_read() -> None:
    assert parse_json(b'{"a": "\\ud83d", "b": Infinity}\n') == {"a": "\ud83d", "b": float("inf")}
    with pytest.raises(UnreadableError):
        parse_json(b"")


@pytest.mark.parametrize(
    ("rest", "line", "column", "words"),
    [
        (",\n", 3, 1, "The array is not closed: the file may be cut off."),
        (',\n{"text": x}]', 3, 10, "Not JSON: a value was expected; the rest of the file was not read."),
        (',\n{"text":\n oops}]', 4, 2, "Not JSON: a value was expected; the rest of the file was not read."),
        (',\n{"text": "a', 3, 10, "Not JSON: a text is not closed; the rest of the file was not read."),
        ("]\n\n[1]\n", 4, 1, "There is more after the end of the array; it was not read."),
        (",\n" + "[" * 100_000, 3, None, "The row is nested too deeply; the rest of the file was not read."),
        (",\n" + "1" * 5000 + "]", 3, None, "A number has too many digits; the rest of the file was not read."),
    ],
)
def test_a_damaged_array_keeps_what_came_before(file: Path, rest: str, line: int, column: int, words: str) -> None:
    content = f'[\n{{"text": "good"}}{rest}'
    assert told(file, content) == [(line, column, words)]
    assert values(file, content) == [(2, {"text": "good"})]


@pytest.mark.parametrize("piece", [1, 7, 64])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_the_same_in_pieces_of_any_size(
    file: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    rows = [{"text": 'ä"\\\n\U0001f600', "n": [1.5e10, 12345678, True, None, -7]} for _ in range(9)]
    content = "\ufeff " + json.dumps([*rows, 123456789], indent=indent)
    whole = values(file, content)
    assert [value for _, value in whole] == [*rows, 123456789]
    monkeypatch.setattr(json_values, "_PIECE", piece)
    assert values(file, content) == whole
    broken = content.replace("-7", "x", 1)
    assert told(file, broken)[0][:2] == ((1, content.index("-7")) if indent is None else (9, 4))


def test_a_list_in_an_object_is_read_without_what_is_beside_it(file: Path) -> None:
    assert values(file, '{"data": [\n{"text": "a"},\n{"text": "b"}]}') == [(2, {"text": "a"}), (3, {"text": "b"})]
    assert told(file, '{"data": [{"text": "a"}], "version": 1}') == [
        (1, 27, "There is more beside the list `data`; it was not read.")
    ]
    # Neither a lone conversation nor lines of lists are such an object.
    assert values(file, json.dumps(TALK)) == [(1, TALK)]
    assert len(values(file, '{"data": [{"a": 1}]}\n{"data": [{"a": 2}]}\n')) == 2
    assert values(file, '{"messages": []}\n') == [(1, {"messages": []})]


def test_records_of_a_table_are_told_by_the_line_they_begin_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    content = 'a,b\n1,"two\nlines"\n\n3,4,5\n"6\n\n7",8\n'
    assert values(file, content) == [(2, {"a": "1", "b": "two\nlines"}), (6, {"a": "6\n\n7", "b": "8"})]
    assert told(file, content) == [(5, None, "The row has 3 fields, the header 2.")]
    assert told(file, 'a\n1\n"2\n3\n') == [
        (3, None, "A quoted field is not closed: all that follows was taken for a part of it.")
    ]
    assert values(file, ",text\n0,a\n") == [(2, {"column 1": "0", "text": "a"})]
    assert values(file, "\ufefftext\na\n") == [(2, {"text": "a"})]


@pytest.mark.parametrize("delimiter", ",;\t|")
def test_a_table_is_split_at_what_its_header_is_split_at(tmp_path: Path, delimiter: str) -> None:
    assert values(tmp_path / "rows.csv", f'"x,y;z"{delimiter}b\n1{delimiter}2\n') == [(2, {"x,y;z": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"text": "%s"}\n{"text": "b"}\n'), ("a.csv", "text\n%s\nb\n"), ("a.txt", "%s\nb\n")],
)
def test_no_row_is_larger_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    for module in (json_lines, tables, json_values):
        monkeypatch.setattr(module, "ROW_LIMIT", 2**20)
    file = tmp_path / name
    large = content % ("a" * 3 * 2**20)
    assert [(line, message) for line, _, message in told(file, large)] == [
        (2 if name == "a.csv" else 1, "The row is larger than 1 MiB.")
    ]
    assert [value for _, value in values(file, large)] == [{"text": "b"}]


def test_a_packed_file_that_would_fill_the_memory_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_lines, json_values):
        monkeypatch.setattr(module, "ROW_LIMIT", 2**20)
    bomb = gzip.compress(b'"' + b"a" * (64 * 2**20), 1)
    for start in (b"", gzip.compress(b"[")):
        file = tmp_path / "bomb.json.gz"
        file.write_bytes(start + bomb)
        tracemalloc.start()
        rows = list(read_rows(file))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [row.problem.kind for row in rows if row.problem] == ["too_large"]
        assert start == b"" or str(rows[-1].problem).startswith(
            f"{file}:1: The row is larger than 1 MiB; the rest of the file was not read."
        )
        assert peak < 24 * 2**20


def test_an_array_is_read_in_constant_memory(file: Path) -> None:
    row = json.dumps({"text": "a" * 1000})
    file.write_text(f"[{','.join([row] * 30_000)}]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(file)) == 30_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("make", [arrow_stream, parquet])
def test_damaged_columnar_files_end_in_words(tmp_path: Path, make: object) -> None:
    assert callable(make)
    content = make([TALK] * 80)
    chance = random.Random(0)
    file = tmp_path / "damaged.arrow"
    for _ in range(30):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[chance.randrange(4, len(damaged))] = chance.randrange(256)
        file.write_bytes(damaged)
        assert all(row.problem is None or row.problem.kind == "unreadable" for row in read_rows(file))


def test_reading_ends_when_it_is_told_to(file: Path) -> None:
    file.write_text('{"text": "a"}\n' * 1000)
    assert sum(1 for _ in read_rows(file, stop=lambda: True)) <= 16


def test_a_file_that_cannot_be_read_ends_it_in_words(tmp_path: Path) -> None:
    with pytest.raises(SftuiError, match="does not exist"):
        list(read_rows(tmp_path / "nothing.jsonl"))
    with pytest.raises(SftuiError, match="Is a directory"):
        list(read_rows(tmp_path))
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(SftuiError, match="not an ordinary file"):
        list(read_rows(tmp_path / "pipe.jsonl"))
