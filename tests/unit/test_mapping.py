"""Rows of every spelling brought into the one form that is trained on, and what is said about those that cannot be."""

from copy import deepcopy
from typing import Any

import orjson
import pytest

from core.data.column_types import ColumnTypes
from core.data.formats import recognise
from core.data.mapping import SLOTS, ColumnMapping, canonical, doubt
from core.data.rows import Fault
from core.errors import SftuiError

USER, SAYS = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
TALK = ColumnMapping(messages="messages", tools="tools", images="images")
PAIR = ColumnMapping(prompt="prompt", completion="completion")
ALPACA = ColumnMapping(user="instruction", input="input", assistant="output", system="system", history="history")


def row_of(value: Any, mapping: ColumnMapping = TALK) -> dict[str, Any]:
    before = deepcopy(value)
    made = canonical(value, mapping)
    assert isinstance(made, dict), made
    assert value == before
    return made


def fault_of(value: Any, mapping: ColumnMapping = TALK) -> Fault:
    made = canonical(value, mapping)
    assert isinstance(made, Fault), made
    return made


def turns_of(*turns: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = row_of({"messages": list(turns)})["messages"]
    return found


def test_a_mapping_is_written_and_read_as_the_spec_holds_it() -> None:
    columns = {"user": "frage", "assistant": "antwort"}
    assert ColumnMapping.from_dict(columns).to_dict() == columns
    assert ColumnMapping.from_dict({}) == ColumnMapping()
    with pytest.raises(SftuiError, match=r"`asks` is none of messages, prompt"):
        ColumnMapping.from_dict({"asks": "frage"})


@pytest.mark.parametrize(
    ("slots", "form"),
    [
        ("messages", "messages"), ("messages text", "messages"), ("prompt completion", "prompt-completion"),
        ("user assistant", "prompt-completion"), ("text", "text"), ("user", "unknown"), ("prompt assistant", "unknown"),
        ("system tools images", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_the_filled_slots_make_the_form(slots: str, form: str) -> None:
    assert ColumnMapping.from_dict(dict.fromkeys(slots.split(), "a")).form == form
    assert set(slots.split()) <= set(SLOTS)


def test_plain_turns_stay_as_they_are_and_other_columns_go() -> None:
    assert row_of({"messages": [USER, SAYS], "id": 5}) == {"messages": [USER, SAYS]}


def test_what_a_template_may_read_beside_the_content_is_kept() -> None:
    thinking = {**SAYS, "reasoning_content": "Hm.", "name": "Ann", "weight": 0, "audio": None}
    assert turns_of(USER, thinking)[1] == {**SAYS, "reasoning_content": "Hm.", "name": "Ann", "weight": 0}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"), ("USER", "user"), ("gpt", "assistant"), ("chatgpt", "assistant"), ("bing", "assistant"),
        ("bard", "assistant"), ("model", "assistant"), ("observation", "tool"), ("function_response", "tool"),
        ("system", "system"), ("developer", "developer"),
    ],
)  # fmt: skip
def test_sharegpt_turns_are_known_under_their_many_names(name: str, role: str) -> None:
    assert turns_of({"from": name, "value": "a"}, SAYS)[0] == {"role": role, "content": "a"}


def test_calls_of_tools_have_one_spelling() -> None:
    call = {"type": "function", "function": {"name": "sum", "arguments": {"a": 1}}}
    spellings: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{**call, "id": "1", "index": None}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "sum", "arguments": '{"a": 1}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "sum", "arguments": {"a": 1}}]},
        {"role": "assistant", "content": None, "tool_calls": '[{"id": "1", "name": "sum", "parameters": {"a": 1}}]'},
        {"from": "function_call", "value": '{"id": "1", "name": "sum", "arguments": {"a": 1}}'},
    ]
    for spelling in spellings:
        assert turns_of(USER, spelling)[1] == {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **call}]}
    old = {"role": "assistant", "content": None, "function_call": {"name": "sum", "arguments": ""}}
    assert turns_of(USER, old)[1]["tool_calls"][0]["function"] == {"name": "sum", "arguments": {}}
    assert turns_of(USER, {**SAYS, "tool_calls": []})[1] == SAYS


@pytest.mark.parametrize("tools", ["[%s]", "%s"])
@pytest.mark.parametrize("described", ['{"name": "sum"}', '{"type": "function", "function": {"name": "sum"}}'])
def test_tools_are_a_list_or_json_of_one(tools: str, described: str) -> None:
    expected = [{"type": "function", "function": {"name": "sum"}}]
    for value in (tools % described, orjson.loads(tools % described), [described]):
        assert row_of({"messages": [USER, SAYS], "tools": value})["tools"] == expected
    nothings: list[Any] = [None, "", "[]", []]
    for nothing in nothings:
        assert "tools" not in row_of({"messages": [USER, SAYS], "tools": nothing})


def test_a_conversation_may_be_a_text_in_json_or_as_python_prints_it() -> None:
    turns = [{"role": "user", "content": 'It\'s "so"'}, SAYS]
    for text in (orjson.dumps(turns).decode(), str(turns)):
        assert row_of({"messages": text})["messages"] == turns


def test_alpaca_becomes_turns() -> None:
    row = {"instruction": "Add.", "input": "1 1", "output": "2", "system": "Be brief.", "history": [["Hi", "Hello"]]}
    assert row_of(row, ALPACA) == {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Add.\n\n1 1"},
        ],
        "completion": [{"role": "assistant", "content": "2"}],
    }
    for nothing in ("", None, " "):
        bare = {"instruction": "Add.", "output": "2", "input": nothing, "system": nothing, "history": None}
        assert row_of(bare, ALPACA)["prompt"] == [{"role": "user", "content": "Add."}]
    assert row_of({"instruction": None, "input": "1 1", "output": "2"}, ALPACA)["prompt"][0]["content"] == "1 1"


def test_prompts_and_completions_stay_as_they_stand_unless_turns_are_needed() -> None:
    assert row_of({"prompt": "2 + 2 =", "completion": " 4"}, PAIR) == {"prompt": "2 + 2 =", "completion": " 4"}
    turned = {"prompt": [USER], "completion": [SAYS]}
    assert row_of(turned, PAIR) == turned
    assert row_of({"prompt": "Why?", "completion": [SAYS]}, PAIR) == turned
    assert row_of({"prompt": [USER], "completion": "Because."}, PAIR) == turned
    assert row_of({name: orjson.dumps(turns).decode() for name, turns in turned.items()}, PAIR) == turned
    with_system = ColumnMapping(prompt="prompt", completion="completion", system="system")
    row = row_of({"prompt": "Why?", "completion": "Because.", "system": "Be kind."}, with_system)
    assert row["prompt"] == [{"role": "system", "content": "Be kind."}, USER]


def test_preferences_are_learnt_from_what_was_chosen() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"prompt": [USER], "chosen": [SAYS], "rejected": [SAYS]},
        {"prompt": "Why?", "chosen": SAYS, "rejected": SAYS},
    ]
    for row in rows:
        assert row_of(row, recognise([row]).mapping) == {"prompt": [USER], "completion": [SAYS]}
    whole = {"prompt": "Why?", "chosen": [USER, SAYS], "rejected": [USER]}
    assert row_of(whole, recognise([whole]).mapping) == {"messages": [USER, SAYS]}


def test_a_system_column_comes_first_and_only_once() -> None:
    mapping = ColumnMapping(messages="messages", system="system")
    first = {"role": "system", "content": "Be kind."}
    for turns in ([USER, SAYS], [first, USER, SAYS]):
        assert row_of({"messages": turns, "system": "Be kind."}, mapping)["messages"] == [first, USER, SAYS]


IMAGE, WHAT = {"type": "image"}, {"type": "text", "text": "What?"}


@pytest.mark.parametrize(
    ("content", "images", "parts"),
    [
        ([IMAGE, WHAT], "a.png", [IMAGE, WHAT]),
        ([WHAT, IMAGE], [{"path": "a.png", "bytes": None}], [WHAT, IMAGE]),
        ("What?<image>", [{"url": "a.png"}], [WHAT, IMAGE]),
        ("What?", ["a.png"], [IMAGE, WHAT]),
        ([{"type": "image_url", "image_url": {"url": "a.png"}}, WHAT], None, [IMAGE, WHAT]),
        ([{"type": "image", "image": "a.png"}, "What?"], [], [IMAGE, WHAT]),
        ([{"image": "a.png"}, {"text": "What?"}], [], [IMAGE, WHAT]),
    ],
)
def test_images_have_a_place_in_the_turns_and_a_source(content: Any, images: Any, parts: list[Any]) -> None:
    row = row_of({"messages": [{"role": "user", "content": content}, SAYS], "images": images})
    assert row == {"messages": [{"role": "user", "content": parts}, SAYS], "images": ["a.png"]}


def test_parts_of_text_alone_are_one_text() -> None:
    assert turns_of({"role": "user", "content": [WHAT, " And?"]}, SAYS)[0] == {"role": "user", "content": "What? And?"}


@pytest.mark.parametrize(
    ("row", "mapping", "kind", "words"),
    [
        ([1], TALK, "not_an_object", "The row is a list, not an object."),
        ({"q": 1}, ColumnMapping(), "unknown_form", "No known columns, only `q`."),
        ({"text": "a"}, TALK, "other_form", "There is no column `messages`."),
        ({"prompt": "a"}, PAIR, "missing_column", "There is no column `completion`."),
        ({"messages": None}, TALK, "null_value", "`messages` is null."),
        ({"messages": "hello"}, TALK, "wrong_type", "`messages` is a text, not turns or JSON of them."),
        ({"messages": []}, TALK, "empty_value", "`messages` is empty."),
        ({"messages": [USER, "hi"]}, TALK, "wrong_type", "`messages[1]` is a text."),
        ({"messages": [{"content": "a"}]}, TALK, "unknown_role", "`messages[0]` has no role."),
        ({"messages": [{**USER, "role": "narrator"}]}, TALK, "unknown_role", "`messages[0]` has the role 'narrator'."),
        ({"messages": [{**USER, "role": []}]}, TALK, "unknown_role", "`messages[0]` has the role a list."),
        ({"messages": [{"role": "user"}]}, TALK, "null_value", "`messages[0]` has no content."),
        ({"messages": [{**USER, "content": 5}]}, TALK, "wrong_type", "`messages[0]` has a content that is a number."),
        ({"messages": [{**USER, "content": [{"type": "audio"}]}]}, TALK, "wrong_type",
         "`messages[0]` has a part that is 'audio'."),
        ({"messages": [USER]}, TALK, "no_answer", "`messages` has no assistant turn."),
        ({"messages": [USER, {**SAYS, "content": " "}]}, TALK, "empty_answer",
         "`messages[1]` is an answer without words."),
        ({"messages": [USER, {**SAYS, "content": "\ud83d"}]}, TALK, "lone_surrogate",
         "`messages[1]` holds half a character (a lone surrogate)."),
        ({"messages": [USER, {**SAYS, "note": {"a": ["\ud83d"]}}]}, TALK, "lone_surrogate",
         "`messages[1]` holds half a character (a lone surrogate)."),
        ({"messages": [USER, {**SAYS, "note": 2**70}]}, TALK, "wrong_type",
         "`messages[1]` holds a number of more than 64 bits."),
        ({"prompt": "a", "completion": ""}, PAIR, "empty_answer", "`completion` is an answer without words."),
        ({"prompt": None, "completion": "b"}, PAIR, "null_value", "`prompt` is null."),
        ({"prompt": "a", "completion": 5}, PAIR, "wrong_type", "`completion` is a number."),
        ({"prompt": "\udc00", "completion": "b"}, PAIR, "lone_surrogate",
         "`prompt` holds half a character (a lone surrogate)."),
        ({"prompt": [], "completion": [SAYS]}, PAIR, "empty_value", "`prompt` is empty."),
        ({"prompt": [USER], "completion": [USER]}, PAIR, "no_answer", "`completion` has no assistant turn."),
        ({"instruction": "", "output": "b"}, ALPACA, "empty_value", "`instruction` is empty."),
        ({"instruction": "a", "output": "b", "input": 5}, ALPACA, "wrong_type", "`input` is a number."),
        ({"instruction": "a", "output": "b", "system": {}}, ALPACA, "wrong_type", "`system` is an object."),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, ALPACA, "wrong_type",
         "`history` holds no pair of texts at 0."),
        ({"text": ""}, ColumnMapping(text="text"), "empty_value", "`text` is empty."),
        ({"text": True}, ColumnMapping(text="text"), "wrong_type", "`text` is true or false."),
        ({"messages": [USER, SAYS], "tools": "{"}, TALK, "bad_tools", "`tools` is not JSON."),
        ({"messages": [USER, SAYS], "tools": [{}]}, TALK, "bad_tools", "`tools`[0] has no name."),
        ({"messages": [USER, {**SAYS, "tool_calls": [{"name": "a", "arguments": "{"}]}]}, TALK, "bad_tools",
         "The arguments of a call in `messages[1]` are not JSON."),
        ({"messages": [{**USER, "content": [IMAGE, WHAT]}, SAYS]}, TALK, "bad_images",
         "The turns show 1 image, the row holds 0."),
        ({"messages": [{**USER, "content": "<image>"}, SAYS], "images": ["a", "b"]}, TALK, "bad_images",
         "The turns show 1 image, the row holds 2."),
        ({"messages": [SAYS], "images": ["a"]}, TALK, "bad_images",
         "There are images, but no user turn to show them in."),
    ],
)  # fmt: skip
def test_a_bad_row_is_told_with_what_to_do(row: Any, mapping: ColumnMapping, kind: str, words: str) -> None:
    fault = fault_of(row, mapping)
    assert (fault.kind, fault.message, fault.level) == (kind, words, "error")
    assert fault.fix.endswith((".", "like."))


def test_what_is_nested_too_deeply_to_be_written_again_is_told() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep}
    assert fault_of({"messages": [USER, SAYS], "tools": [{"name": "a", "parameters": deep}]}).kind == "too_deep"
    assert fault_of({"messages": [USER, {**SAYS, "note": deep}]}).kind == "too_deep"


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ("user assistant user assistant", None),
        ("system user assistant tool tool assistant", None),
        ("user user assistant", "turns 1 and 2 are both the user's"),
        ("system user assistant assistant", "turns 3 and 4 are both the assistant's"),
        ("assistant user assistant", "the assistant's turn comes first"),
        ("system assistant", "the assistant's turn comes first"),
        ("user system assistant", "turn 2 is a system message, not the first turn"),
        ("user tool assistant", "turn 2 is a tool's result, but nothing was called before it"),
    ],
)
def test_an_order_that_some_templates_refuse_is_a_warning(roles: str, words: str | None) -> None:
    turns = [{"role": role, "content": "a"} for role in roles.split()]
    found = doubt(row_of({"messages": turns}))
    if words is None:
        assert found is None
    else:
        assert found is not None and (found.kind, found.level) == ("turn_order", "warning")
        assert found.message == f"Some chat templates refuse this order: {words}."


def test_the_order_is_looked_at_across_prompt_and_completion() -> None:
    found = doubt({"prompt": [USER, SAYS], "completion": [SAYS]})
    assert found is not None and "turns 2 and 3" in found.message
    assert doubt({"prompt": "a", "completion": "b"}) is None
    assert doubt({"text": "a"}) is None


def test_a_column_that_changes_its_type_is_told_once() -> None:
    types = ColumnTypes()
    rows: list[dict[str, Any]] = [
        {"a": None},
        {"a": 1, "b": []},
        {"a": 2.5},
        {"a": "x"},
        {"a": "y"},
        {"a": True, "b": {}},
        {"b": {}},
    ]
    told = [fault and fault.message for fault in [types.changed(row) for row in rows]]
    assert told == [
        None, None, None, "`a` is a text here and a number in rows before.", None,
        "`a` is true or false here and a number in rows before.", "`b` is an object here and a list in rows before.",
    ]  # fmt: skip
