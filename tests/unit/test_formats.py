"""What a dataset is taken for, why, and which of its columns is what."""

from typing import Any

import pytest

from core.data.formats import Column, recognise

USER, SAYS = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
TALK = [USER, SAYS]


def columns_of(*rows: dict[str, Any]) -> dict[str, str]:
    return recognise(rows).mapping.to_dict()


def test_the_reason_names_the_columns_and_what_is_in_them() -> None:
    assert recognise([{"messages": TALK}]).reason == "`messages` holds turns with `role` and `content`"
    shared = recognise([{"id": 1, "conversations": [{"from": "human", "value": "a"}]}])
    assert (shared.format_name, shared.reason) == ("ShareGPT", "`conversations` holds turns with `from` and `value`")
    assert recognise([{"question": "a", "answer": "b"}]).reason == "there are `question` and `answer`"
    assert recognise([{"text": "a", "source": "web"}]).reason == "there is `text`"
    assert recognise([{"verse": "a"}]).reason == "there is one column, `verse`, and it holds texts"
    chosen = recognise([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert chosen.reason == "`chosen` is preferred to another answer and is what is learnt"


def test_what_is_not_known_is_told_with_its_columns_for_a_mapping() -> None:
    found = recognise([{"title": "a", "n": 1, "tags": ["x"]}, {"title": None, "n": 1.5, "tags": [], "more": {}}])
    assert (found.form, found.format_name, found.mapping.to_dict()) == ("unknown", "unknown", {})
    assert found.reason == "the columns are `title`, `n`, `tags`, `more`, and none of them is known"
    assert found.columns == (
        Column("title", "a text or null"),
        Column("n", "a number"),
        Column("tags", "a list of texts or a list"),
        Column("more", "an object"),
    )
    assert recognise([]).reason == "there are no rows"


def test_columns_say_whether_they_hold_turns() -> None:
    kinds = {
        column.name: column.kind
        for column in recognise([{"a": TALK, "b": '[{"role": "user", "content": ""}]'}]).columns
    }
    assert kinds == {"a": "a list of turns", "b": "a text that holds turns"}


@pytest.mark.parametrize("name", ["messages", "conversation", "dialog", "whatever"])
def test_a_conversation_is_found_under_any_name(name: str) -> None:
    assert columns_of({"id": "7", name: TALK}) == {"messages": name}


def test_a_column_named_messages_is_the_conversation_even_where_the_first_row_is_broken() -> None:
    assert columns_of({"messages": None}, {"messages": TALK}) == {"messages": "messages"}


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"instruction": "a", "output": "b"}, {"user": "instruction", "assistant": "output"}),
        ({"Instruction": "a", "Response": "b"}, {"user": "Instruction", "assistant": "Response"}),
        ({"query": "a", "response": "b"}, {"user": "query", "assistant": "response"}),
        ({"input": "a", "output": "b"}, {"user": "input", "assistant": "output"}),
        ({"question": "a", "context": "c", "answer": "b"},
         {"user": "question", "assistant": "answer", "input": "context"}),
        ({"system_prompt": "s", "question": "a", "response": "b"},
         {"user": "question", "assistant": "response", "system": "system_prompt"}),
        ({"prompt": "a", "completion": "b"}, {"prompt": "prompt", "completion": "completion"}),
        ({"prompt": TALK[:1], "completion": TALK[1:], "tools": []},
         {"prompt": "prompt", "completion": "completion", "tools": "tools"}),
        ({"messages": TALK, "tools": "[]", "image": "a.png"},
         {"messages": "messages", "tools": "tools", "images": "image"}),
        ({"messages": TALK, "system": 5, "images": None}, {"messages": "messages"}),
        ({"chosen": TALK, "rejected": TALK}, {"messages": "chosen"}),
        ({"chosen": "Human: a", "rejected": "Human: b"}, {"text": "chosen"}),
        ({"question": "a", "chosen": SAYS, "rejected": SAYS}, {"user": "question", "assistant": "chosen"}),
        ({"content": "a", "url": "b"}, {"text": "content"}),
        ({"message": "a", "response": "b"}, {}),
        ({"question": "a", "answers": ["b"]}, {}),
    ],
)  # fmt: skip
def test_columns_find_their_slots(row: dict[str, Any], mapping: dict[str, str]) -> None:
    assert columns_of(row) == mapping


def test_columns_that_the_first_row_lacks_are_found_in_later_ones() -> None:
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "input": "c", "system": "d"}]
    assert columns_of(*rows) == {"user": "instruction", "assistant": "output", "input": "input", "system": "system"}


def test_the_first_known_row_decides() -> None:
    found = recognise([{"x": 1}, {"text": "a"}, {"messages": TALK}])
    assert (found.form, found.mapping.to_dict()) == ("text", {"text": "text"})


def test_foreign_names_are_shown_harmlessly() -> None:
    found = recognise([{"a\x1b[31m" * 20: 1}])
    assert "\x1b" not in found.reason and "…" in found.reason
