"""Rows of JSONL and JSON: the form they are in, and each bad one with its line, its reason and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.formats import DataFacts, Form, check_row, read_facts, read_rows
from core.errors import SftuiError

ASK = {"role": "user", "content": "Why?"}
SAY = {"role": "assistant", "content": "Because."}
GOOD: dict[Form, dict[str, Any]] = {
    "messages": {"messages": [{"role": "system", "content": ""}, ASK, SAY]},
    "prompt-completion": {"prompt": "Why?", "completion": "Because."},
    "text": {"text": "Once upon a time."},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def told(file: Path, content: str | bytes) -> list[tuple[int, str]]:
    """The lines and messages of what is wrong with a file of this content."""
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(problem.line, problem.message) for problem in read_facts([file]).problems]


@pytest.mark.parametrize("form", GOOD)
@pytest.mark.parametrize("layout", ["lines", "array", "indented array"])
def test_the_three_forms_are_recognised_in_every_layout(file: Path, form: Form, layout: str) -> None:
    rows = [{**GOOD[form], "id": number} for number in range(60)]
    text = {
        "lines": "\n".join(map(json.dumps, rows)),
        "array": json.dumps(rows),
        "indented array": json.dumps(rows, indent=2, ensure_ascii=False),
    }[layout]
    file.write_text(text)
    facts = read_facts([file])
    assert (facts.form, facts.rows, facts.problems) == (form, 60, ())
    assert facts.columns == (*GOOD[form], "id")
    assert facts.preview == tuple(rows[:50])
    assert facts.files == (file,)
    assert all(f"`{column}`" in facts.reason for column in GOOD[form])


def test_prompt_and_completion_may_be_messages() -> None:
    row = {"prompt": [ASK], "completion": [SAY]}
    assert check_row(row, "prompt-completion") is None


@pytest.mark.parametrize(
    ("row", "form", "words"),
    [
        ([1], "messages", "The row is a list, not an object."),
        ("x", "text", "The row is a text, not an object."),
        (None, "text", "The row is null, not an object."),
        (5, "unknown", "The row is a number, not an object."),
        ({"question": "a"}, "unknown", "No known columns."),
        ({"text": "a"}, "messages", "There is no column `messages`."),
        ({"prompt": "a"}, "prompt-completion", "There is no column `completion`."),
        ({"messages": None}, "messages", "`messages` is null."),
        ({"messages": "hello"}, "messages", "`messages` is a text."),
        ({"messages": []}, "messages", "`messages` is empty."),
        ({"messages": [ASK, "hi"]}, "messages", "`messages[1]` is a text."),
        ({"messages": [{"content": "a"}]}, "messages", "`messages[0]` has the role None."),
        ({"messages": [{"role": "human", "content": "a"}]}, "messages", "`messages[0]` has the role 'human'."),
        ({"messages": [{"role": [], "content": "a"}]}, "messages", "`messages[0]` has the role []."),
        ({"messages": [{"role": "user"}]}, "messages", "`messages[0]` has a content that is null."),
        ({"messages": [{**ASK, "content": [{}]}]}, "messages", "`messages[0]` has a content that is a list."),
        ({"messages": [ASK]}, "messages", "`messages` has no assistant turn."),
        ({"messages": [ASK, {**SAY, "content": "\ud83d"}]}, "messages", "`messages[1]` holds half a character"),
        ({"prompt": "a", "completion": ""}, "prompt-completion", "`completion` is empty."),
        ({"prompt": "a", "completion": None}, "prompt-completion", "`prompt` and `completion` are a text and null."),
        ({"prompt": [ASK], "completion": "a"}, "prompt-completion", "`prompt` and `completion` are a list and a text."),
        ({"prompt": [], "completion": [SAY]}, "prompt-completion", "`prompt` is empty."),
        ({"prompt": [ASK], "completion": [ASK]}, "prompt-completion", "`completion` has no assistant turn."),
        ({"prompt": "\udc00", "completion": "b"}, "prompt-completion", "`prompt` holds half a character"),
        ({"text": ""}, "text", "`text` is empty."),
        ({"text": True}, "text", "`text` is true or false."),
        ({"text": {}}, "text", "`text` is an object."),
        ({"text": "\ud800"}, "text", "`text` holds half a character"),
    ],
)  # fmt: skip
def test_a_bad_row_is_told_with_what_to_do(row: Any, form: Form, words: str) -> None:
    found = check_row(row, form)
    assert found is not None
    assert found[0].startswith(words)
    assert found[1].endswith(".") or found[1].endswith("like.")


@pytest.mark.parametrize("array", [False, True])
def test_each_bad_row_has_its_own_line_and_the_good_ones_stay(file: Path, array: bool) -> None:
    good, bad, worse = json.dumps(GOOD["messages"]), json.dumps({"messages": [ASK]}), "17"
    text = f"[\n{good},\n{bad},\n\n{worse}, {good}\n]\n" if array else f"\n{good}\n{bad}\n\n{worse}\n{good}"
    assert told(file, text) == [
        (3, "`messages` has no assistant turn."),
        (5, "The row is a number, not an object."),
    ]
    facts = read_facts([file])
    assert facts.rows == 2
    assert str(facts.problems[0]).startswith(f"{file}:3: `messages` has no assistant turn. ")


def test_a_row_in_another_form_than_the_first_is_told(file: Path) -> None:
    text = "\n".join(json.dumps(GOOD[form]) for form in ("text", "prompt-completion", "text"))
    assert told(file, text) == [(2, "There is no column `text`.")]


def test_rows_before_the_first_known_form_are_bad_ones(file: Path) -> None:
    facts_of = f"{json.dumps({'q': 1})}\n{json.dumps(GOOD['text'])}\n"
    assert told(file, facts_of) == [(1, "No known columns.")]
    assert read_facts([file]).form == "text"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a"', "Not JSON at column 13: Expecting ',' delimiter."),
        (b"{'text': 'a'}", "Not JSON at column 2: Expecting property name enclosed in double quotes."),
        (b"text", "Not JSON at column 1: Expecting value."),
        (b'{"text": "a"} {"text": "b"}', "Not JSON at column 15: Extra data."),
        (b'{"text": "caf\xe9"}', "Byte 14 of the line is not UTF-8."),
        (b"[" * 100_000, "Nested too deeply."),
        (b'{"text": ' + b"1" * 5000 + b"}", "A number has too many digits."),
        (b"\x00\x00", "Not JSON at column 1: Expecting value."),
    ],
)
def test_a_line_that_is_not_json_does_not_end_the_reading(file: Path, line: bytes, words: str) -> None:
    good = json.dumps(GOOD["text"]).encode()
    assert told(file, good + b"\r\n" + line + b"\r\n" + good + b"\r\n") == [(2, words)]
    assert read_facts([file]).rows == 2


@pytest.mark.parametrize(
    ("rest", "line", "words"),
    [
        (",\n", 3, "The array is not closed: the file may be cut off."),
        (',\n{"text": x}]', 3, "Not JSON at column 10: Expecting value; the rest of the file was not read."),
        (',\n{"text":\n oops}]', 4, "Not JSON at column 2: Expecting value; the rest of the file was not read."),
        ("]\n\n[1]\n", 4, "There is more after the end of the array; it was not read."),
        (",\n" + "[" * 100_000, 3, "Nested too deeply; the rest of the file was not read."),
        (",\n" + "1" * 5000 + "]", 3, "A number has too many digits; the rest of the file was not read."),
    ],
)  # fmt: skip
def test_a_damaged_array_keeps_what_came_before(file: Path, rest: str, line: int, words: str) -> None:
    assert told(file, f'[\n{{"text": "good"}}{rest}') == [(line, words)]
    assert read_facts([file]).rows == 1


def test_an_array_that_is_not_utf8_says_where(file: Path) -> None:
    assert told(file, b'[\n{"text": "caf\xe9"}]') == [(2, "The file is not UTF-8 here.")]


@pytest.mark.parametrize("form", ["{}\n{}\n", "[{}, {}]"])
def test_a_byte_order_mark_is_no_part_of_the_rows(file: Path, form: str) -> None:
    good = json.dumps(GOOD["text"])
    assert told(file, b"\xef\xbb\xbf" + form.replace("{}", good).encode()) == []
    assert read_facts([file]).rows == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named_once(file: Path, encoding: str) -> None:
    lines = "\ufeff" + f"{json.dumps(GOOD['text'])}\n" * 9
    assert told(file, lines.encode(encoding)) == [(1, "The file is in UTF-16: save it as UTF-8.")]


@pytest.mark.parametrize("content", ["", "\n\n  \n", "[]", " [ ]\n", "\ufeff"])
def test_an_empty_file_has_no_rows_and_no_problems(file: Path, content: str) -> None:
    assert told(file, content) == []
    assert read_facts([file]) == DataFacts("unknown", "there are no rows", 0, (), (), (), (file,))


def test_several_files_are_one_dataset(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.json"
    first.write_text(json.dumps(GOOD["text"]) + "\n{\n")
    second.write_text(json.dumps([GOOD["text"], {"text": 1}]))
    facts = read_facts([first, second])
    assert facts.rows == 2
    assert [(problem.file, problem.line) for problem in facts.problems] == [(first, 2), (second, 1)]
    assert read_facts([]).rows == 0


def test_a_file_that_cannot_be_read_ends_it_in_words(tmp_path: Path) -> None:
    with pytest.raises(SftuiError, match="does not exist"):
        read_facts([tmp_path / "nothing.jsonl"])
    with pytest.raises(SftuiError, match="Is a directory"):
        list(read_rows([tmp_path]))


def test_rows_are_read_as_they_are_asked_for(file: Path) -> None:
    file.write_text('{"text": "a"}\n' * 3)
    rows = read_rows([file])
    assert next(rows).line == 1
    rows.close()  # type: ignore[attr-defined]
