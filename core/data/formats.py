"""What a dataset is in, told from its first rows: OpenAI messages, ShareGPT, Alpaca, preferences, plain text…"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.data.mapping import ColumnMapping
from core.data.rows import Form as Form  # noqa: PLC0414
from core.data.turns import CONTENT_KEYS, ROLE_KEYS, ROLE_NAMES, parse_turns
from core.data.values import in_words, shown
from core.text import safe, shorten

_CONVERSATIONS = ("messages", "conversations")
_ASKS = ("prompt", "instruction", "question", "query", "problem", "user", "human", "source", "input", "ask", "q")
_ANSWERS = (
    "completion", "response", "output", "answer", "solution", "target", "assistant", "gpt", "bot", "reply", "a"
)  # fmt: skip
_INPUTS = ("input", "context")
_TEXTS = ("text", "content", "document", "body", "raw_content")
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "images": ("images", "image"),
    "label": ("label",),
}
_EXTRA_TYPES: Mapping[str, tuple[type, ...]] = {
    "system": (str,),
    "history": (list, str),
    "tools": (list, dict, str),
    "images": (list, dict, str),
    "label": (bool, str),
}
_MARKS = ("true", "false")
_PLURALS = {str: "texts", dict: "objects", list: "lists", int: "numbers", float: "numbers"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the first rows."""

    name: str
    kind: str
    """What its values are, in words: "a text", "a list of turns", "a number or null"."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """What the first rows of a dataset speak for."""

    form: Form
    format_name: str
    """"OpenAI messages", "ShareGPT", "Alpaca", "prompt and completion", "plain text", "preference", "unknown"…"""
    mapping: ColumnMapping
    reason: str
    """One plain sentence without its full stop."""
    columns: tuple[Column, ...]


def recognise(rows: Sequence[Mapping[str, Any]]) -> Recognised:
    """What the first good rows are, why, and which column is what.

    The first row that is in a known form decides; columns beside it are looked for in all of them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = tuple(Column(name, _kinds([row[name] for row in rows if name in row])) for name in names)
    for row in rows:
        found = _main_columns(row)
        if found is not None:
            format_name, mapping, reason = found
            mapping = _with_extras(mapping, rows, names)
            if mapping.label is not None:
                format_name = "answers marked as good or bad"
                reason += f", and {shown(mapping.label)} says which answers are good"
            return Recognised(mapping.form, format_name, mapping, reason, columns)
    listed = ", ".join(shown(name) for name in names[:8]) or "none"
    reason = f"the columns are {listed}, and none of them is known" if rows else "there are no rows"
    return Recognised("unknown", "unknown", ColumnMapping(), reason, columns)


def _main_columns(row: Mapping[str, Any]) -> tuple[str, ColumnMapping, str] | None:
    plain = {_plain_name(name): name for name in row}
    if "chosen" in plain:
        return _preference(row, plain)
    # Any column that holds turns will do, and one of these names says that it should.
    others = [name for name in row if _plain_name(name) not in (*_ASKS, *_ANSWERS, *_EXTRAS["history"])]
    talk = next((name for name in others if _turn_keys(row[name])), None)
    talk = talk or next((plain[name] for name in _CONVERSATIONS if name in plain), None)
    if talk is not None:
        keys = _turn_keys(row[talk])
        words = f"{shown(talk)} holds turns with `{keys[0]}` and `{keys[1]}`" if keys else f"there is {shown(talk)}"
        name = "ShareGPT" if keys and keys[0] == "from" else "OpenAI messages"
        return name, ColumnMapping(messages=talk), words
    return _pair(plain) or _plain_text(row, plain)


def _preference(row: Mapping[str, Any], plain: Mapping[str, str]) -> tuple[str, ColumnMapping, str]:
    chosen = plain["chosen"]
    words = f"{shown(chosen)} is preferred to another answer and is what is learnt"
    first = _first_turn(row[chosen])
    role = str(next((first[key] for key in ROLE_KEYS if key in first), "")).lower() if first else ""
    ask = next((plain[name] for name in _ASKS if name in plain), None)
    if ask is None or (first and role not in ROLE_NAMES["assistant"]):
        mapping = ColumnMapping(messages=chosen) if first or ask else ColumnMapping(text=chosen)
    else:
        mapping = ColumnMapping(user=ask, assistant=chosen)
    return "preference", mapping, words


def _pair(plain: Mapping[str, str]) -> tuple[str, ColumnMapping, str] | None:
    asks = [name for name in _ASKS if name in plain]
    answers = [name for name in _ANSWERS if name in plain]
    if not asks or not answers:
        return None
    ask, answer = plain[asks[0]], plain[answers[0]]
    words = f"there are {shown(ask)} and {shown(answer)}"
    if (asks[0], answers[0]) == ("prompt", "completion"):
        return "prompt and completion", ColumnMapping(prompt=ask, completion=answer), words
    name = "Alpaca" if asks[0] == "instruction" and answers[0] in ("output", "response") else f"{ask} and {answer}"
    return shorten(safe(name), 40), ColumnMapping(user=ask, assistant=answer), words


def _plain_text(row: Mapping[str, Any], plain: Mapping[str, str]) -> tuple[str, ColumnMapping, str] | None:
    known = next((plain[name] for name in _TEXTS if name in plain), None)
    if known is not None:
        return "plain text", ColumnMapping(text=known), f"there is {shown(known)}"
    if len(row) == 1 and isinstance(only := next(iter(row.values())), str) and only.strip():
        name = next(iter(row))
        return "plain text", ColumnMapping(text=name), f"there is one column, {shown(name)}, and it holds texts"
    return None


def _with_extras(mapping: ColumnMapping, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> ColumnMapping:
    """The mapping with the columns that may stand beside the main ones."""
    if mapping.text is not None:
        return mapping
    taken = set(mapping.to_dict().values())
    extras: dict[str, str] = {}
    for slot, spellings in _EXTRAS.items():
        for name in names:
            values = [row[name] for row in rows if row.get(name) is not None]
            fits = values and all(isinstance(value, _EXTRA_TYPES[slot]) for value in values)
            if slot == "label":
                # Of other labels nobody knows what they say.
                fits = fits and mapping.form == "prompt-completion" and all(str(v).lower() in _MARKS for v in values)
            if _plain_name(name) in spellings and name not in taken and slot not in extras and fits:
                extras[slot] = name
    if mapping.user is not None and _plain_name(mapping.user) in ("instruction", "question"):
        inputs = [name for name in names if _plain_name(name) in _INPUTS and name not in taken]
        if inputs and all(isinstance(row.get(inputs[0]), str | None) for row in rows):
            extras["input"] = inputs[0]
    return replace(mapping, **extras)


def _plain_name(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _first_turn(value: Any) -> Mapping[str, Any] | None:
    """The first turn of a conversation, also of one in a text; None if it is none."""
    if isinstance(value, str) and value.lstrip().startswith(("[{", "[ {", "[\n")):
        value = parse_turns(value)
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, dict) else None


def _turn_keys(value: Any) -> tuple[str, str] | None:
    """The keys under which the turns of a conversation have their role and their content."""
    first = _first_turn(value) if isinstance(value, list | str) else None
    if first is None:
        return None
    role = next((key for key in ROLE_KEYS if isinstance(first.get(key), str)), None)
    content = next((key for key in (*CONTENT_KEYS, "tool_calls") if key in first and key != role), None)
    return (role, content) if role is not None and content is not None else None


def _kinds(values: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(map(_column_kind, values)))


def _column_kind(value: Any) -> str:
    if isinstance(value, list) and value:
        if _turn_keys(value):
            return "a list of turns"
        return f"a list of {_PLURALS.get(type(value[0]), 'values')}"
    if isinstance(value, str) and _turn_keys(value):
        return "a text that holds turns"
    return in_words(value)
