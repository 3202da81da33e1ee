"""Rows into tokens: what TRL itself would train on, what is mended, and what is said about template and tokenizer."""

from typing import Any

import pytest

from core.data.learn_from import LearnFrom
from core.data.tokenizing import RowError, RowTokenizer
from tests.chat_tokenizers import chat_tokenizer, prepared_by_trl, shown, trl_templates
from tests.tiny import CHAT_TEMPLATE

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
]
CHATML = CHAT_TEMPLATE
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
        },
    }
]
CALLING: list[dict[str, Any]] = [
    {"role": "user", "content": "Add 1"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "name": "add", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]


def template(name: str) -> str:
    return (trl_templates() / f"{name}.jinja").read_text(encoding="utf-8")


def training(name: str) -> str:
    return template(f"{name}_training")


def assert_as_trl(tokenizer: Any, row: dict[str, Any], learn_from: LearnFrom, patched: str | None = None) -> None:
    completion = None if learn_from != "all" else False
    ids, labels = prepared_by_trl(
        tokenizer, row, assistant=learn_from == "assistant", completion=completion, template=patched
    )
    made = RowTokenizer(tokenizer, learn_from).tokenize(row)
    assert made.input_ids == ids
    assert [token if one else -100 for token, one in zip(made.input_ids, made.trained, strict=True)] == labels


TEXT_ROWS: list[tuple[dict[str, Any], LearnFrom]] = [
    ({"text": "The sky is blue."}, "all"),
    ({"text": "It ends already.<eos>"}, "all"),
    ({"prompt": "2 + 2 =", "completion": " 4"}, "completion"),
    ({"prompt": "2 + 2 =", "completion": " 4"}, "all"),
    ({"prompt": "The pr", "completion": "inter prints"}, "completion"),
    ({"prompt": "", "completion": "no prompt"}, "completion"),
    ({"prompt": CHAT[:1], "completion": CHAT[1:2]}, "completion"),
    ({"prompt": CHAT[:3], "completion": CHAT[3:]}, "completion"),
    ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "completion"),
    ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "assistant"),
    ({"prompt": CHAT[:1], "completion": CHAT[1:2]}, "all"),
    ({"messages": CHAT}, "all"),
    ({"messages": CHAT}, "assistant"),
]


@pytest.mark.parametrize(("row", "learn_from"), TEXT_ROWS)
@pytest.mark.parametrize("adds_bos", [False, True])
def test_tokens_and_labels_are_those_of_trl(row: dict[str, Any], learn_from: LearnFrom, adds_bos: bool) -> None:
    assert_as_trl(chat_tokenizer(CHATML, adds_bos=adds_bos), row, learn_from)


@pytest.mark.parametrize(
    "name", ["qwen2_5", "qwen3", "gemma3", "llama3", "phi3", "gptoss", "glm4moe", "cohere2", "deepseekv3"]
)
def test_assistant_turns_are_those_of_trls_own_template(name: str) -> None:
    tokenizer = chat_tokenizer(template(name))
    assert RowTokenizer(tokenizer, "assistant").way == "training-template"
    assert_as_trl(tokenizer, {"messages": CHAT}, "assistant", training(name))


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "gptoss", "glm4moe", "deepseekv3"])
def test_tool_calls_are_learned_as_trl_does(name: str) -> None:
    tokenizer = chat_tokenizer(template(name))
    assert_as_trl(tokenizer, {"messages": CALLING, "tools": TOOLS}, "assistant", training(name))


def test_tools_may_be_json_text() -> None:
    tokenizer = chat_tokenizer(template("qwen3"))
    rows = RowTokenizer(tokenizer, "assistant")
    as_text = '[{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]'
    assert "# Tools" in tokenizer.decode(rows.tokenize({"messages": CALLING, "tools": as_text}).input_ids)


def test_a_prompt_that_the_template_changes_is_refused() -> None:
    # The question is written another way once it is answered.
    moody = (
        "{% for m in messages %}{{ m.role }}: "
        "{{ m.content if loop.last or m.role == 'assistant' else m.content | upper }}\n{{ eos_token }}{% endfor %}"
    )
    rows = RowTokenizer(chat_tokenizer(moody), "completion")
    with pytest.raises(RowError, match="writes the prompt otherwise") as caught:
        rows.tokenize({"prompt": CHAT[:1], "completion": CHAT[1:2]})
    assert caught.value.kind == "mask_unproven"


def test_a_text_that_begins_with_the_begin_token_gets_no_second_one() -> None:
    tokenizer = chat_tokenizer(CHATML, adds_bos=True)
    bos = tokenizer.bos_token_id
    assert tokenizer("<bos>Hi")["input_ids"][:2] == [bos, bos]
    row = RowTokenizer(tokenizer, "all").tokenize({"text": "<bos>Hi"})
    assert row.input_ids.count(bos) == 1
    row = RowTokenizer(tokenizer, "completion").tokenize({"prompt": "<bos>Hi", "completion": " there"})
    assert row.input_ids.count(bos) == 1
    assert shown(tokenizer, row.input_ids, row.trained) == "<bos>Hi⟦ there<eos>⟧"


def test_a_template_that_writes_the_begin_token_gets_no_second_one() -> None:
    tokenizer = chat_tokenizer(template("llama3"), adds_bos=True)
    rows = RowTokenizer(tokenizer, "assistant")
    assert rows.tokenize({"messages": CHAT}).input_ids.count(tokenizer.bos_token_id) == 1
    assert ("bos_token", "once") in [(choice.name, choice.value) for choice in rows.choices]


def test_a_template_with_two_begin_tokens_is_named() -> None:
    rows = RowTokenizer(chat_tokenizer("{{ bos_token }}" + template("llama3")), "all")
    assert any("begins with <bos> twice" in problem.message for problem in rows.problems)


@pytest.mark.parametrize(
    ("row", "learn_from", "kind"),
    [
        ({"text": "Plain."}, "assistant", "wrong_form"),
        ({"text": "Plain."}, "completion", "wrong_form"),
        ({"prompt": "a", "completion": "b"}, "assistant", "wrong_form"),
        ({"messages": CHAT}, "completion", "wrong_form"),
        ({"messages": CHAT[:1]}, "assistant", "nothing_trained"),
        ({"messages": CHAT, "images": ["cat.png"]}, "all", "images"),
    ],
)
def test_nothing_is_trained_on_nothing(row: dict[str, Any], learn_from: LearnFrom, kind: str) -> None:
    with pytest.raises(RowError) as caught:
        RowTokenizer(chat_tokenizer(CHATML), learn_from).tokenize(row)
    assert caught.value.kind == kind
    assert caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("learn_from", ["all", "assistant"])
def test_without_a_template_conversations_are_refused(learn_from: LearnFrom) -> None:
    rows = RowTokenizer(chat_tokenizer(None), learn_from)
    with pytest.raises(RowError, match="no chat template") as caught:
        rows.tokenize({"messages": CHAT})
    assert "chatml" in caught.value.fix


@pytest.mark.parametrize("learn_from", ["all", "assistant", "completion"])
def test_a_template_that_drops_the_tools_that_were_called_is_refused(learn_from: LearnFrom) -> None:
    rows = RowTokenizer(chat_tokenizer(template("llama3")), learn_from)
    row: dict[str, Any] = {"messages": CALLING, "tools": TOOLS}
    if learn_from == "completion":
        row = {"prompt": CALLING[:1], "completion": CALLING[1:], "tools": TOOLS}
    with pytest.raises(RowError, match="leaves out what message 2 says or calls"):
        rows.tokenize(row)


def test_a_template_of_blocks_gets_blocks() -> None:
    tokenizer = chat_tokenizer(template("smolvlm"))
    rows = RowTokenizer(tokenizer, "assistant")
    row = rows.tokenize({"messages": CHAT[:2]})
    assert shown(tokenizer, row.input_ids, row.trained) == (
        "<|im_start|>User: Hi there<end_of_utterance>\nAssistant:⟦ Hello.<end_of_utterance>\n⟧"
    )
    assert "contents" in [choice.name for choice in rows.choices]


def test_a_template_whose_end_is_no_token_is_named() -> None:
    tokenizer = chat_tokenizer(None)
    rows = RowTokenizer(tokenizer, "assistant", CHATML)
    (problem,) = rows.problems
    assert "ends answers with <|im_end|>, and the tokenizer has no such token" in problem.message
    assert tokenizer.chat_template is None


def test_a_template_without_any_end_is_named() -> None:
    open_ended = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    ways: tuple[LearnFrom, ...] = ("all", "assistant")
    for learn_from in ways:
        (problem,) = RowTokenizer(chat_tokenizer(open_ended), learn_from).problems
        assert "will not learn to stop" in problem.message


def test_markers_that_leave_the_end_out_are_named() -> None:
    outside = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = chat_tokenizer(CHATML)
    assert "will not learn to stop" in RowTokenizer(tokenizer, "assistant", outside).problems[0].message
    assert not RowTokenizer(tokenizer, "all", outside).problems


def test_an_end_of_turn_that_is_not_the_tokenizers_end_is_told() -> None:
    tokenizer = chat_tokenizer(template("llama3"))
    rows = RowTokenizer(tokenizer, "assistant")
    told = {choice.name: choice.value for choice in rows.choices}
    assert told["end of turn"] == "<|eot_id|>"
    assert rows.end_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")}
    row = rows.tokenize({"messages": CHAT})
    assert [row.trained[place] for place in row.ends] == [False, True, False, True]


def test_a_pad_token_that_is_the_end_token_is_told() -> None:
    tokenizer = chat_tokenizer(CHATML, eos="<|im_end|>")
    tokenizer.pad_token = tokenizer.eos_token
    assert "pad_token" in [choice.name for choice in RowTokenizer(tokenizer, "all").choices]


def test_a_broken_template_is_named_and_refuses_each_row() -> None:
    rows = RowTokenizer(chat_tokenizer("{% for m in messages %}"), "assistant")
    (problem,) = rows.problems
    assert problem.field == "chat_template_path"
    assert "endfor" in problem.message
    with pytest.raises(RowError, match="endfor"):
        rows.tokenize({"messages": CHAT})
    # Plain texts need none.
    assert not RowTokenizer(chat_tokenizer("{% for m in messages %}"), "all", turns=False).problems


def test_each_row_with_tools_may_have_a_template_of_its_own() -> None:
    plain = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    tokenizer = chat_tokenizer(CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": plain}
    rows = RowTokenizer(tokenizer, "assistant")
    with_tools = rows.tokenize({"messages": CHAT, "tools": TOOLS})
    assert shown(tokenizer, with_tools.input_ids, with_tools.trained) == (
        "Hi there<eos>⟦Hello.<eos>⟧Why?<eos>⟦Because.<eos>⟧"
    )
    assert "<|im_start|>" in tokenizer.decode(rows.tokenize({"messages": CHAT}).input_ids)


def test_a_tokenizer_without_offsets_is_asked_for_the_tokens_before_each_turn() -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert not tokenizer.is_fast
    rows = RowTokenizer(tokenizer, "assistant")
    assert rows.way == "computed"
    row = rows.tokenize(
        {"messages": [{"role": "user", "content": "Grüße?"}, {"role": "assistant", "content": "Ja, ß."}]}
    )
    trained = [token for token, one in zip(row.input_ids, row.trained, strict=True) if one]
    assert tokenizer.decode(trained) == "Ja, ß.</s>"
    assert row.ends[-1] == len(row.input_ids) - 1


def test_a_turn_that_begins_within_a_token_without_offsets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BatchEncoding

    merged = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }} toke"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = chat_tokenizer(merged)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "nizer"}]
    assert len(tokenizer(" tokenizer")["input_ids"]) == 1
    rows = RowTokenizer(tokenizer, "assistant")
    monkeypatch.setattr(BatchEncoding, "encodings", None)
    with pytest.raises(RowError, match="a turn begins within one"):
        rows.tokenize({"messages": messages})


def test_an_end_that_shares_a_token_with_the_next_turn_is_refused() -> None:
    shared = (
        "{% for m in messages %}{% if m.role == 'user' %}izer {{ m.content }}> {% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    rows = RowTokenizer(chat_tokenizer(shared), "assistant")
    messages = [{**message, "content": "token"} for message in CHAT]
    with pytest.raises(RowError, match="are one token: ' tokenizer'"):
        rows.tokenize({"messages": messages})


def test_many_rows_are_made_as_one_by_one_with_the_refused_among_them() -> None:
    tokenizer = chat_tokenizer(CHATML, adds_bos=True)
    rows: list[dict[str, Any]] = [
        {"text": "One."},
        {"messages": CHAT},
        {"messages": CHAT, "tools": "{"},
        {"prompt": "2 + 2 =", "completion": " 4"},
        {"prompt": CHAT[:1], "completion": CHAT[1:2]},
        {"messages": CHAT, "images": ["cat.png"]},
    ]
    maker = RowTokenizer(tokenizer, "all")
    made = maker.tokenize_many(rows)
    assert [one.kind if isinstance(one, RowError) else "made" for one in made] == [
        *("made", "made", "wrong_form", "made", "made", "images")
    ]
    assert [one for one in made if not isinstance(one, RowError)] == [maker.tokenize(rows[at]) for at in (0, 1, 3, 4)]
    assert maker.tokenize_many([]) == []


def test_a_start_that_shares_a_token_with_the_turn_before_is_refused() -> None:
    joined = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    rows = RowTokenizer(chat_tokenizer(joined), "assistant")
    messages = [{"role": "user", "content": "token"}, {"role": "assistant", "content": "izer"}]
    with pytest.raises(RowError, match="are one token: 'tokenizer'"):
        rows.tokenize({"messages": messages})
