"""Local JSONL and JSON files: their rows with their lines, the form they are in, and what is wrong with them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.data.mapping import ColumnMapping
from core.data.rows import Form as Form  # noqa: PLC0414
from core.data.turns import CONTENT_KEYS, ROLE_KEYS, ROLE_NAMES, parse_turns
from core.data.values import in_words, shown
from core.errors import SftuiError
from core.text import safe, shorten

_COLUMNS: Mapping[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
}
_CONVERSATIONS = (
    "messages", "conversations", "conversation", "dialogue", "dialog", "dialogues", "chat", "turns", "message"
)  # fmt: skip
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
}
_EXTRA_TYPES: Mapping[str, tuple[type, ...]] = {
    "system": (str,),
    "history": (list, str),
    "tools": (list, dict, str),
    "images": (list, dict, str, bytes),
}
_PLURALS = {str: "texts", dict: "objects", list: "lists", int: "numbers", float: "numbers"}
ROLES = ("system", "developer", "user", "assistant", "tool")
PREVIEW_ROWS = 50
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One thing wrong with one row."""

    file: Path
    line: int
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} {self.fix}"


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a dataset is, after one pass over it."""

    form: Form
    reason: str
    rows: int
    """Good ones."""
    columns: tuple[str, ...]
    preview: tuple[dict[str, Any], ...]
    problems: tuple[DataProblem, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object and where it stands."""

    file: Path
    line: int
    value: Any
    problem: str = ""
    """Why there is no value."""


def read_facts(files: Sequence[Path]) -> DataFacts:
    """One pass over the files. Bad rows become problems; SftuiError only for a file that cannot be read."""
    form: Form = "unknown"
    reason = "there are no rows"
    columns: dict[str, None] = {}
    preview: list[dict[str, Any]] = []
    problems: list[DataProblem] = []
    rows = 0
    for row in read_rows(files):
        if row.problem:
            problems.append(DataProblem(row.file, row.line, row.problem, "Mend or remove the row."))
            continue
        if isinstance(row.value, dict):
            columns.update(dict.fromkeys(row.value))
            if form == "unknown":
                form, reason = _recognise_row(row.value)
        found = check_row(row.value, form)
        if found is None:
            rows += 1
            if len(preview) < PREVIEW_ROWS:
                preview.append(row.value)
        else:
            problems.append(DataProblem(row.file, row.line, *found))
    return DataFacts(form, reason, rows, tuple(columns), tuple(preview), tuple(problems), tuple(files))


def read_rows(files: Sequence[Path]) -> Iterator[Row]:
    """Every row of JSONL and JSON files with its line, also those that are not JSON."""
    for file in files:
        try:
            with file.open("rb") as opened:
                head = opened.read(4096)
                opened.seek(0)
                if head.startswith(_UTF16):
                    yield Row(file, 1, None, "The file is in UTF-16: save it as UTF-8.")
                elif head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                    yield from _array_rows(file, opened.read())
                else:
                    yield from _line_rows(file, opened)
        except FileNotFoundError as error:
            raise SftuiError("No such data file", f"{file} does not exist.", "Give the path of a file here.") from error
        except OSError as error:
            raise SftuiError("The data file cannot be read", f"{file}: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the first rows."""

    name: str
    kind: str
    """What its values are, in words: "text", "list of messages", "text or null"."""


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
            return Recognised(mapping.form, format_name, _with_extras(mapping, rows, names), reason, columns)
    listed = ", ".join(shown(name) for name in names[:8]) or "none"
    reason = f"the columns are {listed}, and none of them is known" if rows else "there are no rows"
    return Recognised("unknown", "unknown", ColumnMapping(), reason, columns)


def _main_columns(row: Mapping[str, Any]) -> tuple[str, ColumnMapping, str] | None:
    plain = {_plain_name(name): name for name in row}
    if "chosen" in plain:
        return _preference(row, plain)
    talk = next((plain[name] for name in _CONVERSATIONS if name in plain), None)
    if talk is None:
        others = [name for name in row if _plain_name(name) not in (*_ASKS, *_ANSWERS, *_EXTRAS["history"])]
        talk = next((name for name in others if _turn_keys(row[name])), None)
    # Conversations in a column of another name come second to a pair of columns only where they are no turns.
    if talk is not None and (_turn_keys(row[talk]) or not _pair(row, plain)):
        keys = _turn_keys(row[talk])
        words = f"{shown(talk)} holds turns with `{keys[0]}` and `{keys[1]}`" if keys else f"there is {shown(talk)}"
        name = "ShareGPT" if keys and keys[0] == "from" else "OpenAI messages"
        return name, ColumnMapping(messages=talk), words
    return _pair(row, plain) or _plain_text(row, plain)


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


def _pair(row: Mapping[str, Any], plain: Mapping[str, str]) -> tuple[str, ColumnMapping, str] | None:
    asks = [name for name in _ASKS if name in plain]
    answers = [name for name in _ANSWERS if name in plain]
    if not asks or not answers:
        return None
    ask, answer = plain[asks[0]], plain[answers[0]]
    words = f"there are {shown(ask)} and {shown(answer)}"
    if (asks[0], answers[0]) == ("prompt", "completion"):
        return "prompt and completion", ColumnMapping(prompt=ask, completion=answer), words
    more = next((plain[name] for name in _INPUTS if name in plain and plain[name] not in (ask, answer)), None)
    if asks[0] not in ("instruction", "question") or (more and not isinstance(row[more], str | None)):
        more = None
    name = "Alpaca" if asks[0] == "instruction" and answers[0] in ("output", "response") else f"{ask} and {answer}"
    return shorten(safe(name), 40), ColumnMapping(user=ask, assistant=answer, input=more), words


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
            if _plain_name(name) in spellings and name not in taken and slot not in extras and fits:
                extras[slot] = name
    if mapping.user is not None and mapping.input is None:
        inputs = [name for name in names if _plain_name(name) in _INPUTS and name not in taken]
        asked = _plain_name(mapping.user) in ("instruction", "question")
        if asked and inputs and all(isinstance(row.get(inputs[0]), str | None) for row in rows):
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


def _recognise_row(row: dict[str, Any]) -> tuple[Form, str]:
    """The form that a row's columns speak for, and why."""
    if "messages" in row:
        return "messages", "there is a column `messages`"
    if "prompt" in row and "completion" in row:
        return "prompt-completion", "there are columns `prompt` and `completion`"
    if "text" in row:
        return "text", "there is a column `text`"
    return "unknown", f"columns are {', '.join(f'`{name}`' for name in list(row)[:8]) or 'none'}"


def check_row(row: Any, form: Form) -> tuple[str, str] | None:
    """What is wrong with a row and how to mend it; None for a good one."""
    if not isinstance(row, dict):
        return f"The row is {_kind(row)}, not an object.", 'Write {"messages": […]} or the like.'
    missing = [name for name in _COLUMNS.get(form, ()) if name not in row]
    if missing:
        return f"There is no column `{missing[0]}`.", f"Rows before it are in {form} form: all must be in one form."
    match form:
        case "messages":
            return _check_messages(row.get("messages"), "messages", needs_assistant=True)
        case "prompt-completion":
            prompt, completion = row.get("prompt"), row.get("completion")
            if isinstance(prompt, str) and isinstance(completion, str):
                if not completion:
                    return "`completion` is empty.", "Give it a text or remove the row."
                return _check_text(prompt, "`prompt`") or _check_text(completion, "`completion`")
            if isinstance(prompt, list) and isinstance(completion, list):
                return _check_messages(prompt, "prompt") or _check_messages(completion, "completion", True)
            kinds = f"{_kind(prompt)} and {_kind(completion)}"
            return f"`prompt` and `completion` are {kinds}.", "Both must be texts, or both lists of messages."
        case "text":
            text = row.get("text")
            if isinstance(text, str) and text:
                return _check_text(text, "`text`")
            return f"`text` is {_kind(text) if text != '' else 'empty'}.", "It must be a text."
        case "unknown":
            return (
                "No known columns.",
                "Rows need `messages`, or `prompt` and `completion`, or `text`.",
            )


def _check_text(text: str, place: str) -> tuple[str, str] | None:
    # JSON can spell one half of a pair of surrogates; no tokenizer and no file can hold it.
    if not text.isascii() and _HALF_CHARACTER.search(text):
        return f"{place} holds half a character (a lone surrogate).", "Write the whole character or remove it."
    return None


def _check_messages(value: Any, name: str, needs_assistant: bool = False) -> tuple[str, str] | None:
    if not isinstance(value, list):
        return f"`{name}` is {_kind(value)}.", 'It must be a list of {"role": …, "content": …}.'
    if not value:
        return f"`{name}` is empty.", "Give it messages or remove the row."
    for index, message in enumerate(value):
        place = f"`{name}[{index}]`"
        if not isinstance(message, dict):
            return f"{place} is {_kind(message)}.", 'It must be {"role": …, "content": …}.'
        if message.get("role") not in ROLES:
            return f"{place} has the role {message.get('role')!r:.40}.", f"Roles are {', '.join(ROLES)}."
        if not isinstance(message.get("content"), str):
            return f"{place} has a content that is {_kind(message.get('content'))}.", "It must be a text."
        found = _check_text(message["content"], place)
        if found is not None:
            return found
    if needs_assistant and not any(message["role"] == "assistant" for message in value):
        return f"`{name}` has no assistant turn.", "There is nothing to learn from: add one or remove the row."
    return None


def _line_rows(file: Path, lines: Iterator[bytes]) -> Iterator[Row]:
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        if not line.strip():
            continue
        try:
            yield Row(file, number, json.loads(line.rstrip(b"\r\n").decode("utf-8")))
        except UnicodeDecodeError as error:
            yield Row(file, number, None, f"Byte {error.start + 1} of the line is not UTF-8.")
        except json.JSONDecodeError as error:
            yield Row(file, number, None, f"Not JSON at column {error.colno}: {error.msg}.")
        except RecursionError:
            yield Row(file, number, None, "Nested too deeply.")
        except ValueError:
            yield Row(file, number, None, "A number has too many digits.")


def _array_rows(file: Path, data: bytes) -> Iterator[Row]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Row(file, data.count(b"\n", 0, error.start) + 1, None, "The file is not UTF-8 here.")
        return
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    line, counted = 1, 0
    while True:
        position = _skip(text, position, " \t\r\n,")
        line, counted = line + text.count("\n", counted, position), position
        if position >= len(text):
            yield Row(file, line, None, "The array is not closed: the file may be cut off.")
            return
        if text[position] == "]":
            position = _skip(text, position + 1, " \t\r\n")
            if position < len(text):
                line += text.count("\n", counted, position)
                yield Row(file, line, None, "There is more after the end of the array; it was not read.")
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            words = f"Not JSON at column {error.colno}: {error.msg}; the rest of the file was not read."
            yield Row(file, error.lineno, None, words)
            return
        except (RecursionError, ValueError) as error:
            words = "Nested too deeply" if isinstance(error, RecursionError) else "A number has too many digits"
            yield Row(file, line, None, f"{words}; the rest of the file was not read.")
            return
        yield Row(file, line, value)


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _kind(value: Any) -> str:
    names = {type(None): "null", str: "a text", bool: "true or false", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")
