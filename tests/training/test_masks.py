"""What the assistant wrote, found in the rendered text: as TRL's own templates mark it, and by hand for others."""

import re
from functools import partial
from typing import Any

import pytest

from core.data.masks import TurnFinder
from core.data.rendered_chat import ChatTemplate
from core.data.tokenized_row import RowError
from core.data.tokenizing import RowTokenizer
from tests.chat_tokenizers import chat_tokenizer, shown, trl_templates

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "note": {"type": "string"}}},
        },
    }
]
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be brief."}
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "note": "one"}}}
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "user", "content": "Add 1"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "add", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]
THOUGHT: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "<think>\nHmm.\n</think>\n\nHello."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "<think>\nOh.\n</think>\n\nBecause."},
]
KNOWN = sorted(path.stem.removesuffix("_training") for path in trl_templates().glob("*_training.jinja"))
# Where TRL's marks lie otherwise: (as TRL marks it, as it is found).
DIFFERENCES: dict[str, list[tuple[str, str]]] = {
    # TRL also trains on what the generation prompt gives.
    "deepseek_r1_distill": [("⟦<｜Assistant｜>", "<｜Assistant｜>⟦")],
    "deepseekv3": [("⟦<｜Assistant｜>", "<｜Assistant｜>⟦"), ("⟦<｜tool▁outputs▁end｜>", "<｜tool▁outputs▁end｜>⟦")],
    "gptoss": [("⟦<|start|>assistant", "<|start|>assistant⟦")],
    "muse_glimmer": [("⟦<|start|>assistant", "<|start|>assistant⟦")],
    "qwen2_5": [("⟦\n", "\n⟦")],
    # TRL leaves out the space before the next turn.
    "llava_next": [("</s>⟧ ", "</s> ⟧")],
    # TRL leaves out the token that hands over to a tool, and the header that the template writes again after it.
    "diffusion_gemma": [
        ("<tool_call|>⟧<|tool_response>", "<tool_call|><|tool_response>⟧"),
        ("<tool_response|><|turn>model\n⟦", "<tool_response|>⟦<|turn>model\n"),
    ],
}
REFUSES_TOOLS = {"cohere", "cohere2", "gemma", "gemma3", "llava_next"}
DROPS_TOOLS = {"deepseek_r1_distill", "idefics3", "lfm2", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"}
REFUSES_SYSTEM = {"gemma"}


def trl_text(name: str) -> str:
    return (trl_templates() / f"{name}.jinja").read_text(encoding="utf-8")


def without_markers(template: str) -> str:
    template = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", template)


def found(template: str, tokenizer: Any, messages: list[dict[str, Any]], tools: Any = None) -> tuple[str, str]:
    """The rendered text, and with what was found in it in ⟦ ⟧."""
    chat = ChatTemplate(template, tokenizer.special_tokens_map)
    text = chat.render(messages, tools)
    finder = TurnFinder(list(tokenizer.get_added_vocab()))
    spans = finder.spans(messages, text, lambda turns, answer: chat.render(turns, tools, answer=answer))
    return text, bracketed(text, spans)


def marked(template: str, tokenizer: Any, messages: list[dict[str, Any]], tools: Any = None) -> tuple[str, str]:
    text, spans = ChatTemplate(template, tokenizer.special_tokens_map).render_marked(messages, tools)
    return text, bracketed(text, spans)


def bracketed(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in reversed(spans):
        text = f"{text[:start]}⟦{text[start:end]}⟧{text[end:]}"
    return text.replace("⟧⟦", "")


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("kind", ["system", "plain", "thought", "tools"])
def test_found_turns_are_those_that_trl_marks(name: str, kind: str) -> None:
    training = trl_text(f"{name}_training")
    tokenizer = chat_tokenizer(training)
    messages = {
        "system": [SYSTEM, *CHAT],
        "plain": CHAT,
        "thought": THOUGHT,
        "tools": WITH_TOOLS,
    }[kind]
    tools = TOOLS if kind == "tools" else None
    find = partial(found, without_markers(training), tokenizer, messages, tools)
    if (kind == "tools" and name in REFUSES_TOOLS) or (kind == "system" and name in REFUSES_SYSTEM):
        with pytest.raises(RowError, match="refuses this row"):
            find()
        return
    if kind == "tools" and name in DROPS_TOOLS:
        with pytest.raises(RowError, match="leaves out what message 2 says or calls"):
            find()
        return
    text, own = find()
    same_text, theirs = marked(training, tokenizer, messages, tools)
    assert text == same_text
    for marked_so, found_so in DIFFERENCES.get(name, ()):
        theirs = theirs.replace(marked_so, found_so)
    assert own == theirs


def test_the_table_is_of_all_that_trl_knows() -> None:
    assert len(KNOWN) == 31
    assert {*DIFFERENCES, *REFUSES_TOOLS, *DROPS_TOOLS} <= set(KNOWN)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_6", "glm4moe"])
def test_thoughts_that_the_original_drops_do_not_hide_the_turns(name: str) -> None:
    template = trl_text(name)
    text, own = found(template, chat_tokenizer(template), THOUGHT)
    assert "Hmm." not in text
    assert "Oh." in text
    first, second = re.findall("⟦(.*?)⟧", own, re.DOTALL)
    assert first.endswith(("Hello.<|im_end|>\n", "Hello."))
    assert "Oh." in second
    assert "Because." in second


LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# The system message stands in the last user turn, wherever that is.
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{%- if loop.last or loop.index0 == loop_messages | length - 2 %}"
    "{{- '[INST] ' + (system_message + '\\n\\n' if system_message is defined else '') }}"
    "{{- message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message['content'] | trim + eos_token }}{%- endif %}{%- endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
STRIPPED = (
    "{% for m in messages %}### {{ m.role | capitalize }}:\n{{ m.content.strip() }}\n"
    "{% if m.role == 'assistant' %}{{ eos_token }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
SPACED = [{**message, "content": f"  {message['content']}\n\n"} for message in [SYSTEM, *CHAT]]


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (
            LLAMA_2,
            [SYSTEM, *CHAT],
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi there [/INST]⟦ Hello. </s>⟧"
            "<s>[INST] Why? [/INST]⟦ Because. </s>⟧",
        ),
        (
            MISTRAL,
            [SYSTEM, *CHAT],
            "<s>[INST] Hi there[/INST]⟦ Hello.</s>⟧[INST] Be brief.\n\nWhy?[/INST]⟦ Because.</s>⟧",
        ),
        (
            ZEPHYR,
            [SYSTEM, *CHAT],
            "<|system|>\nBe brief.</s>\n<|user|>\nHi there</s>\n<|assistant|>\n⟦Hello.</s>\n⟧<|user|>\nWhy?</s>\n"
            "<|assistant|>\n⟦Because.</s>\n⟧",
        ),
        (
            STRIPPED.replace("strip()", "strip() | upper"),
            CHAT,
            "### User:\nHI THERE\n### Assistant:\n⟦HELLO.\n</s>\n⟧### User:\nWHY?\n### Assistant:\n⟦BECAUSE.\n</s>\n⟧",
        ),
        (
            STRIPPED,
            SPACED,
            "### System:\nBe brief.\n### User:\nHi there\n### Assistant:\n⟦Hello.\n</s>\n⟧### User:\nWhy?\n"
            "### Assistant:\n⟦Because.\n</s>\n⟧",
        ),
    ],
    ids=["llama-2", "mistral", "zephyr", "in capitals", "stripped"],
)
def test_turns_of_templates_that_nobody_marked(template: str, messages: list[dict[str, Any]], expected: str) -> None:
    tokenizer = chat_tokenizer(template, bos="<s>", eos="</s>")
    rows = RowTokenizer(tokenizer, "assistant")
    row = rows.tokenize({"messages": messages})
    assert shown(tokenizer, row.input_ids, row.trained) == expected
    assert rows.way == "computed"
    assert not rows.problems
    assert [row.trained[place] for place in row.ends][-1]


@pytest.mark.parametrize("name", ["gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"])
def test_turns_of_gemma_4(name: str) -> None:
    template = trl_text(name)
    tokenizer = chat_tokenizer(template)
    rows = RowTokenizer(tokenizer, "assistant")
    row = rows.tokenize({"messages": [SYSTEM, *CHAT]})
    assert shown(tokenizer, row.input_ids, row.trained) == (
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi there<turn|>\n<|turn>model\n⟦Hello.<turn|>\n⟧"
        "<|turn>user\nWhy?<turn|>\n<|turn>model\n⟦Because.<turn|>\n⟧"
    )
    assert rows.way == "computed"


def test_a_turn_that_repeats_what_the_user_said_is_not_mistaken_for_it() -> None:
    tokenizer = chat_tokenizer(STRIPPED, eos="</s>")
    messages = [{"role": role, "content": "### Assistant:\nYes"} for role in ("user", "assistant", "user", "assistant")]
    row = RowTokenizer(tokenizer, "assistant").tokenize({"messages": messages})
    assert shown(tokenizer, row.input_ids, row.trained) == (
        "### User:\n### Assistant:\nYes\n### Assistant:\n⟦### Assistant:\nYes\n</s>\n⟧"
        "### User:\n### Assistant:\nYes\n### Assistant:\n⟦### Assistant:\nYes\n</s>\n⟧"
    )


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        (STRIPPED.replace("m.content.strip()", "m.content[:3]"), CHAT, "cannot be found in its text"),
        (STRIPPED.replace("m.content.strip()", "m.content | length"), CHAT, "cannot be found in its text"),
        (
            "{% for m in messages %}{{ m.role }}: {% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            CHAT,
            "leaves out",
        ),
        (STRIPPED, CHAT[1:], "does not ask for an answer where message 1 stands"),
        (MISTRAL, CHAT[:1] * 2, "conversation roles must alternate"),
        (STRIPPED.replace("m.content.strip()", "m.missing.strip()"), CHAT, "misses something"),
        (STRIPPED.replace("m.content.strip()", "m.content + 1"), CHAT, "TypeError"),
    ],
    ids=["cut", "counted", "left out", "first", "alternation", "undefined", "type"],
)
def test_what_cannot_be_proven_is_refused(template: str, messages: list[dict[str, Any]], words: str) -> None:
    rows = RowTokenizer(chat_tokenizer(template, bos="<s>", eos="</s>"), "assistant")
    with pytest.raises(RowError, match=words) as caught:
        rows.tokenize({"messages": messages})
    assert caught.value.fix


WRONG = (
    "{% for m in messages %}{% if m.role == 'user' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}"
)


@pytest.mark.parametrize("said", [["Hi there", "Hello.", "Why?", "Because."], ["Yes"] * 4])
def test_markers_around_the_wrong_turn_are_refused(said: list[str]) -> None:
    rows = RowTokenizer(chat_tokenizer(WRONG), "assistant")
    assert rows.way == "markers"
    messages = [{**message, "content": content} for message, content in zip(CHAT, said, strict=True)]
    with pytest.raises(RowError, match="message 1 says stands within a turn of the assistant"):
        rows.tokenize({"messages": messages})


def test_markers_that_change_with_what_is_said_are_refused_in_the_row_where_they_do() -> None:
    moody = WRONG.replace("m.role == 'user'", "m.role == 'assistant' or 'secret' in m.content")
    rows = RowTokenizer(chat_tokenizer(moody), "assistant")
    assert rows.tokenize({"messages": CHAT})
    with pytest.raises(RowError, match="message 3 says"):
        rows.tokenize({"messages": [*CHAT[:2], {"role": "user", "content": "A secret?"}, CHAT[3]]})
