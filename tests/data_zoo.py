"""A zoo of small data files: good ones of every format, bad ones of every kind, and what must be said about each."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from core.data.rows import Form, ProblemKind

USER = {"role": "user", "content": "Why?"}
SAYS = {"role": "assistant", "content": "Because."}
TALK = {"messages": [USER, SAYS]}
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}
PAIR = {"prompt": "Why?", "completion": "Because."}
ALPACA = {"instruction": "Add.", "input": "1 1", "output": "2"}
TEXT = {"text": "Once upon a time."}
PNG = b"\x89PNG\r\n\x1a\n"
CALL = {"type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object"}}}
CALLING: list[Any] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "1"},
    SAYS,
]


@dataclass(frozen=True, slots=True)
class Specimen:
    """A file and what a reader must find in it."""

    name: str
    content: bytes
    form: Form
    format_name: str
    kept: int
    problems: Sequence[tuple[int, ProblemKind]] = ()
    """Line and kind of each bad row."""
    warnings: Sequence[tuple[int, ProblemKind]] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Slot to column, where the story is which column is what."""


def jsonl(*rows: Any) -> bytes:
    """Each row on a line; bytes and texts stand as they are."""
    lines = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else as_json(row) for row in rows]
    return b"\n".join(lines) + b"\n"


def as_json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode()


def table(rows: Sequence[Mapping[str, Any]], delimiter: str = ",", newline: str = "\n") -> bytes:
    """Rows as CSV: what is no text stands there as JSON."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter, lineterminator=newline)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return written.getvalue().encode()


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


def feather(rows: Sequence[Mapping[str, Any]]) -> bytes:
    written = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(rows), written)
    return written.getvalue()


def arrow_stream(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """As `datasets` keeps its files."""
    written = io.BytesIO()
    made = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(written, made.schema) as writer:
        writer.write_table(made)
    return written.getvalue()


def zstandard(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def talk(*turns: Any, **beside: Any) -> dict[str, Any]:
    return {"messages": list(turns), **beside}


def without_last_bytes(content: bytes, count: int = 12) -> bytes:
    return content[:-count]


OPENAI, PLAIN, UNKNOWN = "OpenAI messages", "plain text", "unknown"
MARKED = "answers marked as good or bad"
PREFERRED = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}

GOOD = (
    # layouts of JSON
    Specimen("messages.jsonl", jsonl(TALK, "", TALK), "messages", OPENAI, 2),
    Specimen("messages.ndjson", jsonl(TALK), "messages", OPENAI, 1),
    Specimen("array.json", as_json([TALK, TALK]), "messages", OPENAI, 2),
    Specimen("indented.json", as_json([TALK, TALK], 2), "messages", OPENAI, 2),
    Specimen("lines.json", jsonl(TALK, TALK), "messages", OPENAI, 2),
    Specimen("array.jsonl", as_json([TALK] * 3), "messages", OPENAI, 3),
    Specimen("wrapped.json", as_json({"data": [TALK, TALK]}, 1), "messages", OPENAI, 2),
    Specimen("one_object.json", as_json(TALK, 4), "messages", OPENAI, 1),
    Specimen("indented.jsonl", as_json(TALK, 2) + b"\n" + as_json(TALK, 2), "messages", OPENAI, 2),
    Specimen("byte_order_mark.jsonl", b"\xef\xbb\xbf" + jsonl(TEXT, TEXT), "text", PLAIN, 2),
    Specimen("windows_lines.jsonl", jsonl(TEXT, TEXT).replace(b"\n", b"\r\n"), "text", PLAIN, 2),
    Specimen("no_last_newline.jsonl", jsonl(TEXT, TEXT).strip(), "text", PLAIN, 2),
    Specimen("lines_of_lists.jsonl", jsonl(talk(USER, SAYS), talk(SAYS)).replace(b"messages", b"turns"), "messages",
             OPENAI, 2, warnings=[(2, "turn_order")], mapping={"messages": "turns"}),
    # tables
    Specimen("pairs.csv", table([PAIR, PAIR]), "prompt-completion", "prompt and completion", 2),
    Specimen("windows.csv", table([PAIR, PAIR], newline="\r\n"), "prompt-completion", "prompt and completion", 2),
    Specimen("semicolon.csv", table([PAIR], ";"), "prompt-completion", "prompt and completion", 1),
    Specimen("tabs.tsv", table([PAIR], "\t"), "prompt-completion", "prompt and completion", 1),
    Specimen("messages_as_text.csv", table([TALK]), "messages", OPENAI, 1),
    Specimen("printed_list.csv", table([{"messages": str([USER, SAYS])}]), "messages", OPENAI, 1),
    Specimen("lines_in_fields.csv", table([{"text": "a\nb\n\nc"}, {"text": 'say "x"'}]), "text", PLAIN, 2),
    Specimen("poem.txt", b"A line.\n\nAnother one.\n", "text", PLAIN, 2),
    Specimen("lines_of_json.txt", jsonl(TALK), "messages", OPENAI, 1),
    # columnar
    Specimen("messages.parquet", parquet([TALK] * 100), "messages", OPENAI, 100),
    Specimen("calls.parquet", parquet([talk(*CALLING), TALK]), "messages", OPENAI, 2),
    Specimen("dates.parquet", parquet([{**PAIR, "day": date(2026, 1, 1)}]), "prompt-completion",
             "prompt and completion", 1),
    Specimen("pairs.feather", feather([PAIR] * 3), "prompt-completion", "prompt and completion", 3),
    Specimen("cache.arrow", arrow_stream([TEXT] * 70), "text", PLAIN, 70),
    Specimen("picture.parquet", parquet([talk(USER, SAYS, images=[{"bytes": PNG, "path": "a.png"}])]), "messages",
             OPENAI, 1, mapping={"messages": "messages", "images": "images"}),
    # packed
    Specimen("messages.jsonl.gz", gzip.compress(jsonl(TALK, TALK)), "messages", OPENAI, 2),
    Specimen("pairs.csv.bz2", bz2.compress(table([PAIR])), "prompt-completion", "prompt and completion", 1),
    Specimen("array.json.xz", lzma.compress(as_json([TALK])), "messages", OPENAI, 1),
    Specimen("messages.jsonl.zst", zstandard(jsonl(TALK, TALK)), "messages", OPENAI, 2),
    Specimen("packed_without_suffix.jsonl", gzip.compress(jsonl(TALK)), "messages", OPENAI, 1),
    Specimen("not_packed.jsonl.gz", jsonl(TALK), "messages", OPENAI, 1),
    # shapes of rows
    Specimen("calls.jsonl", jsonl(talk(*CALLING, tools=[TOOL]), talk(*CALLING, tools=json.dumps([TOOL]))), "messages",
             OPENAI, 2, warnings=[(2, "column_changes_type")], mapping={"messages": "messages", "tools": "tools"}),
    Specimen("parts.jsonl", jsonl(talk({**USER, "content": [{"type": "text", "text": "Why?"}]}, SAYS)), "messages",
             OPENAI, 1),
    Specimen("sharegpt.json", as_json([{"conversations": [HUMAN, GPT], "system": "Be brief."}]), "messages",
             "ShareGPT", 1, mapping={"messages": "conversations", "system": "system"}),
    Specimen("sharegpt_tools.jsonl", jsonl({"conversations": [
        HUMAN, {"from": "function_call", "value": '{"name": "sum", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"}, GPT]}), "messages", "ShareGPT", 1),
    Specimen("many_names.jsonl", jsonl(*({"conversations": [{"from": ask, "value": "a"}, {"from": say, "value": "b"}]}
             for ask, say in [("user", "assistant"), ("Human", "chatgpt"), ("human", "bing"), ("human", "bard"),
                              ("prompter", "model")])), "messages", "ShareGPT", 5),
    Specimen("roles_in_conversations.jsonl", jsonl({"conversations": [USER, SAYS]}), "messages", OPENAI, 1),
    Specimen("alpaca.json", as_json([ALPACA, {**ALPACA, "input": ""}]), "prompt-completion", "Alpaca", 2,
             mapping={"user": "instruction", "input": "input", "assistant": "output"}),
    Specimen("alpaca_history.json", as_json([{**ALPACA, "system": "Be kind.", "history": [["Hi", "Hello"]]}]),
             "prompt-completion", "Alpaca", 1, mapping={"user": "instruction", "input": "input", "assistant": "output",
                                                        "system": "system", "history": "history"}),
    Specimen("dolly.jsonl", jsonl({"instruction": "Sum up.", "context": "Long.", "response": "Short."}),
             "prompt-completion", "Alpaca", 1,
             mapping={"user": "instruction", "input": "context", "assistant": "response"}),
    Specimen("question_answer.jsonl", jsonl({"question": "1 + 1?", "answer": "2"}), "prompt-completion",
             "question and answer", 1, mapping={"user": "question", "assistant": "answer"}),
    Specimen("prompt_response.jsonl", jsonl({"Prompt": "1 + 1?", "Response": "2"}), "prompt-completion",
             "Prompt and Response", 1, mapping={"user": "Prompt", "assistant": "Response"}),
    Specimen("problem_solution.jsonl", jsonl({"problem": "1 + 1?", "solution": "2"}), "prompt-completion",
             "problem and solution", 1),
    Specimen("prompt_of_messages.jsonl", jsonl({"prompt": [USER], "completion": [SAYS]}), "prompt-completion",
             "prompt and completion", 1),
    Specimen("preference.jsonl", jsonl(PREFERRED), "prompt-completion", "preference", 1,
             mapping={"user": "prompt", "assistant": "chosen"}),
    Specimen("preference_of_turns.jsonl", jsonl({"prompt": "Why?", "chosen": [USER, SAYS], "rejected": [USER, SAYS]}),
             "messages", "preference", 1, mapping={"messages": "chosen"}),
    Specimen("preference_of_answers.jsonl", jsonl({"prompt": [USER], "chosen": [SAYS], "rejected": [SAYS]}),
             "prompt-completion", "preference", 1, mapping={"user": "prompt", "assistant": "chosen"}),
    Specimen("one_column.csv", table([{"poem": "Roses are red."}]), "text", PLAIN, 1, mapping={"text": "poem"}),
    Specimen("pictures.jsonl", jsonl(
        talk({**USER, "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, SAYS, images=["a.png"]),
        talk({**USER, "content": "<image>\nWhat?"}, SAYS, images=["a.png"]),
        talk(USER, SAYS, images=["a.png", "b.png"]),
        talk(USER, SAYS, images=[])), "messages", OPENAI, 4),
    Specimen("picture_in_part.jsonl", jsonl(talk(
        {**USER, "content": [{"type": "image_url", "image_url": {"url": "https://a.org/b.png"}}]}, SAYS)),
             "messages", OPENAI, 1),
    Specimen("good_answers.csv", table([{**PAIR, "label": "True"}]), "prompt-completion", MARKED, 1,
             mapping={"prompt": "prompt", "completion": "completion", "label": "label"}),
    Specimen("labels_of_another_kind.jsonl", jsonl({**PAIR, "label": "funny"}), "prompt-completion",
             "prompt and completion", 1),
)  # fmt: skip

BAD = (
    # nothing in it, or not what it seems
    Specimen("empty.jsonl", b"", "unknown", UNKNOWN, 0),
    Specimen("only_spaces.jsonl", b"\n \n\t\n", "unknown", UNKNOWN, 0),
    Specimen("empty_array.json", b"[]", "unknown", UNKNOWN, 0),
    Specimen("header_only.csv", b"prompt,completion\n", "unknown", UNKNOWN, 0),
    Specimen("archive.zip", b"PK\x03\x04rest", "unknown", UNKNOWN, 0, [(1, "unreadable")]),
    Specimen("packed.parquet", gzip.compress(parquet([TEXT])), "unknown", UNKNOWN, 0, [(1, "unreadable")]),
    Specimen("cut.parquet", without_last_bytes(parquet([TEXT])), "unknown", UNKNOWN, 0, [(1, "unreadable")]),
    Specimen("no_rows.parquet", parquet([TEXT][:0]), "unknown", UNKNOWN, 0),
    Specimen("no_arrow.arrow", b"text\nhello\n", "unknown", UNKNOWN, 0, [(1, "unreadable")]),
    Specimen("utf16.jsonl", "\ufeff".encode("utf-16-le") + jsonl(TEXT).decode().encode("utf-16-le"), "unknown",
             UNKNOWN, 0, [(1, "wrong_encoding")]),
    Specimen("utf16_unmarked.csv", table([TEXT]).decode().encode("utf-16-le"), "unknown", UNKNOWN, 0,
             [(1, "wrong_encoding")]),
    Specimen("other_columns.jsonl", jsonl({"title": "a", "score": 5}, {"title": "b", "score": 6}), "unknown", UNKNOWN,
             0, [(1, "unknown_form"), (2, "unknown_form")]),
    # broken JSON
    Specimen("cut_off.jsonl", jsonl(TEXT, '{"text": "a')[:-1], "text", PLAIN, 1, [(2, "invalid_json")]),
    Specimen("single_quotes.jsonl", jsonl("{'text': 'a'}", TEXT), "text", PLAIN, 1, [(1, "invalid_json")]),
    Specimen("trailing_comma.jsonl", jsonl('{"text": "a",}', TEXT), "text", PLAIN, 1, [(1, "invalid_json")]),
    Specimen("two_on_a_line.jsonl", jsonl('{"text": "a"} {"text": "b"}', TEXT), "text", PLAIN, 1,
             [(1, "invalid_json")]),
    Specimen("control_character.jsonl", jsonl('{"text": "a\tb"}', TEXT), "text", PLAIN, 1, [(1, "invalid_json")]),
    Specimen("too_many_digits.jsonl", jsonl(TEXT, '{"text": ' + "1" * 5000 + "}"), "text", PLAIN, 1,
             [(2, "invalid_json")]),
    Specimen("too_deep.jsonl", jsonl(TEXT, "[" * 100_000, TEXT), "text", PLAIN, 2, [(2, "too_deep")]),
    Specimen("latin1.jsonl", jsonl(TEXT, b'{"text": "caf\xe9"}', TEXT), "text", PLAIN, 2, [(2, "wrong_encoding")]),
    Specimen("half_a_character.jsonl", jsonl(TEXT, {"text": "\ud83d"}), "text", PLAIN, 1, [(2, "lone_surrogate")]),
    Specimen("array_not_closed.json", b'[\n{"text": "a"},\n', "text", PLAIN, 1, [(3, "invalid_json")]),
    Specimen("array_broken.json", b'[\n{"text": "a"},\n{"text": x},\n{"text": "b"}]', "text", PLAIN, 1,
             [(3, "invalid_json")]),
    Specimen("stray_bracket.json", b'{\n"text": "a"}\n]\n{"text": "b"}', "text", PLAIN, 1, [(3, "invalid_json")]),
    Specimen("after_array.json", b'[{"text": "a"}]\n{"text": "b"}\n', "text", PLAIN, 1, [(2, "invalid_json")]),
    Specimen("array_latin1.json", b'[{"text": "a"},\n{"text": "caf\xe9"}]', "text", PLAIN, 1,
             [(2, "wrong_encoding")]),
    Specimen("beside_the_list.json", b'{"data": [{"text": "a"}],\n"version": 1}', "text", PLAIN, 1,
             warnings=[(2, "unreadable")]),
    Specimen("cut_off.jsonl.gz", without_last_bytes(gzip.compress(jsonl(TEXT, TEXT))), "text", PLAIN, 1,
             [(2, "unreadable")]),
    Specimen("cut_off.jsonl.xz", without_last_bytes(lzma.compress(jsonl(TEXT)), 30), "text", PLAIN, 1,
             [(2, "unreadable")]),
    # broken tables
    Specimen("ragged.csv", b"prompt,completion\na,b\na,b,c\na\n\na,b\n", "prompt-completion", "prompt and completion",
             2, [(3, "ragged_row"), (4, "ragged_row")]),
    Specimen("quote_not_closed.csv", b'text\na\n"b\nc\n', "text", PLAIN, 1, [(3, "ragged_row")]),
    Specimen("quote_inside.csv", b'text\n"a\nb"\n"say "x""\nc\n', "text", PLAIN, 2, [(4, "ragged_row")]),
    Specimen("name_twice.csv", b"text,text\na,b\n", "unknown", UNKNOWN, 0, [(1, "bad_header")]),
    Specimen("header_not_utf8.csv", b"text,caf\xe9\na,b\n", "unknown", UNKNOWN, 0, [(1, "wrong_encoding")]),
    Specimen("latin1.csv", b"text\ncaf\xe9\nb\n", "text", PLAIN, 1, [(2, "wrong_encoding")]),
    Specimen("latin1.txt", b"a\ncaf\xe9\nb\n", "text", PLAIN, 2, [(2, "wrong_encoding")]),
    # wrong rows
    Specimen("no_objects.jsonl", jsonl(TEXT, [1], "5", "null"), "text", PLAIN, 1,
             [(2, "not_an_object"), (3, "not_an_object"), (4, "not_an_object")]),
    Specimen("missing_field.jsonl", jsonl(PAIR, {"prompt": "a"}), "prompt-completion", "prompt and completion", 1,
             [(2, "missing_column")]),
    Specimen("null_field.jsonl", jsonl(PAIR, {**PAIR, "completion": None}, {**PAIR, "prompt": None}),
             "prompt-completion", "prompt and completion", 1, [(2, "null_value"), (3, "null_value")]),
    Specimen("null_text.parquet", parquet([TEXT, {"text": None}]), "text", PLAIN, 1, [(2, "null_value")]),
    Specimen("numbers.jsonl", jsonl({"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": 4}),
             "prompt-completion", "question and answer", 1, [(2, "wrong_type")], [(2, "column_changes_type")]),
    Specimen("empty_fields.jsonl", jsonl(TEXT, {"text": ""}, {"text": " \n"}), "text", PLAIN, 1,
             [(2, "empty_value"), (3, "empty_value")]),
    Specimen("empty_answers.csv", b"prompt,completion\na,b\na,\n", "prompt-completion", "prompt and completion", 1,
             [(2 + 1, "empty_answer")]),
    Specimen("two_forms.jsonl", jsonl(TALK, PAIR, TALK), "messages", OPENAI, 2, [(2, "other_form")]),
    Specimen("mixed_types.jsonl", jsonl({**TEXT, "id": 1}, {**TEXT, "id": "b"}), "text", PLAIN, 2,
             warnings=[(2, "column_changes_type")]),
    # wrong conversations
    Specimen("no_conversation.jsonl", jsonl(TALK, talk(), {"messages": "hello"}, {"messages": None}), "messages",
             OPENAI, 1, [(2, "empty_value"), (3, "wrong_type"), (4, "null_value")],
             [(3, "column_changes_type")]),
    Specimen("unknown_roles.jsonl", jsonl(TALK, talk({**USER, "role": "narrator"}, SAYS), talk({"content": "a"}),
                                          talk({**USER, "role": []})), "messages", OPENAI, 1,
             [(2, "unknown_role"), (3, "unknown_role"), (4, "unknown_role")]),
    Specimen("bad_answers.jsonl", jsonl(
        {**PAIR, "label": True}, {**PAIR, "label": False}, {**PAIR, "label": None}),
             "prompt-completion", MARKED, 1, [(2, "bad_answer"), (3, "null_value")]),
    Specimen("no_answer.jsonl", jsonl(TALK, talk(USER)), "messages", OPENAI, 1, [(2, "no_answer")]),
    Specimen("empty_answer.jsonl", jsonl(TALK, talk(USER, {**SAYS, "content": ""})), "messages", OPENAI, 1,
             [(2, "empty_answer")]),
    Specimen("bad_content.jsonl", jsonl(TALK, talk(USER, {**SAYS, "content": 5}), talk(USER, {**SAYS, "content": None}),
                                        talk({**USER, "content": [{"type": "audio"}]}, SAYS), talk("hi", SAYS)),
             "messages", OPENAI, 1, [(2, "wrong_type"), (3, "null_value"), (4, "wrong_type"), (5, "wrong_type")]),
    Specimen("half_in_turn.jsonl", jsonl(TALK, talk(USER, {**SAYS, "content": "\ud83d"})), "messages", OPENAI, 1,
             [(2, "lone_surrogate")]),
    Specimen("bad_calls.jsonl", jsonl(
        talk(*CALLING, tools=[TOOL]),
        talk(USER, {**SAYS, "tool_calls": [{"function": {"name": "sum", "arguments": "{"}}]}, tools=[]),
        talk(USER, {**SAYS, "tool_calls": [{"function": {}}]}, tools=[]),
        talk(USER, SAYS, tools="{"), talk(USER, SAYS, tools=[{"a": 1}])), "messages", OPENAI, 1,
             [(line, "bad_tools") for line in (2, 3, 4, 5)], [(4, "column_changes_type")]),
    Specimen("pictures_missing.jsonl", jsonl(
        talk({**USER, "content": [{"type": "image"}]}, SAYS, images=["a.png"]),
        talk({**USER, "content": [{"type": "image"}]}, SAYS, images=[]),
        talk({**USER, "content": "<image> <image>"}, SAYS, images=["a.png"]),
        talk(USER, SAYS, images=[5])), "messages", OPENAI, 1,
             [(2, "bad_images"), (3, "bad_images"), (4, "bad_images")]),
    Specimen("order.jsonl", jsonl(TALK, talk(USER, USER, SAYS), talk(SAYS, USER, SAYS),
                                  talk(USER, {"role": "system", "content": "Be kind."}, SAYS), talk(USER, SAYS, SAYS),
                                  talk(USER, {"role": "tool", "content": "2"}, SAYS)), "messages", OPENAI, 6,
             warnings=[(line, "turn_order") for line in (2, 3, 4, 5, 6)]),
)  # fmt: skip

ZOO = (*GOOD, *BAD)
