"""Which column of a dataset is what, and rows brought into the one form that is trained on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from core.data.images import image_list, place_images
from core.data.rows import Fault, Form, ProblemKind
from core.data.tool_calls import tools
from core.data.turns import has_answer, order_fault, parse_turns, turns
from core.data.values import half_character, in_words, is_whole, shown
from core.errors import SftuiError

# In the order in which they are looked for: earlier ones win.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "user": ("user", "assistant"),
    "prompt": ("prompt", "completion"),
    "text": ("text",),
}
_FORMS: Mapping[str, Form] = {
    "messages": "messages",
    "user": "prompt-completion",
    "prompt": "prompt-completion",
    "text": "text",
}


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """For each slot the dataset's column that fills it; empty slots are None."""

    messages: str | None = None
    """A conversation: OpenAI messages or ShareGPT turns, or JSON of them in a text."""
    prompt: str | None = None
    """What is given, as it stands: a text without a chat template, or messages."""
    completion: str | None = None
    """What is learnt, as it stands: a text without a chat template, or messages."""
    user: str | None = None
    """A text that becomes the user's turn."""
    assistant: str | None = None
    """A text that becomes the assistant's turn."""
    text: str | None = None
    """A plain text, learnt as it stands."""
    system: str | None = None
    """A text that becomes the system message."""
    input: str | None = None
    """A text that follows the user's after an empty line (Alpaca's input)."""
    history: str | None = None
    """Earlier turns, pairs of a question and its answer."""
    tools: str | None = None
    """Descriptions of the tools that may be called, a list or JSON of one."""
    images: str | None = None
    """One image or a list of them."""
    label: str | None = None
    """Whether the answer is a good one; rows whose answer is not are problems."""

    @property
    def form(self) -> Form:
        """What the rows become; "unknown" while a slot is missing for each."""
        needed = self._needed_slots
        return _FORMS[needed[0]] if needed else "unknown"

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that no row can do without."""
        return tuple(getattr(self, slot) for slot in self._needed_slots)

    @property
    def _needed_slots(self) -> tuple[str, ...]:
        filled = [slots for slots in _NEEDED.values() if all(getattr(self, slot) is not None for slot in slots)]
        return filled[0] if filled else ()

    def to_dict(self) -> dict[str, str]:
        """Slot to column, as `sftui.columns` of a spec holds it."""
        return {slot: column for slot in SLOTS if (column := getattr(self, slot)) is not None}

    @classmethod
    def from_dict(cls, columns: Mapping[str, str]) -> "ColumnMapping":
        """The mapping that a spec holds. Raises SftuiError for a slot that there is not."""
        unknown = [slot for slot in columns if slot not in SLOTS]
        if unknown:
            raise SftuiError(
                "There is no such slot for a column",
                f"`{unknown[0]}` is none of {', '.join(SLOTS)}.",
                "Write what the column is to be as the key, and the column's name as its value.",
            )
        return cls(**columns)


SLOTS = tuple(field.name for field in fields(ColumnMapping))

_LOOKS_LIKE_TURNS = re.compile(r"""\s*\[\s*\{\s*["'](?:role|from|content|value)["']""")
_LABEL = (bool, int, str)
_LABELS: Mapping[object, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
_ONE_FORM = "Rows before it have them: all rows must be in one form."


def canonical(value: Any, mapping: ColumnMapping) -> dict[str, Any] | Fault:
    """The row in the form that is trained on, or what is wrong with it.

    messages: {"messages", "tools"?, "images"?}; prompt-completion: {"prompt", "completion", "tools"?, "images"?},
    both texts or both lists of messages; text: {"text"}. JSON-like throughout. Never raises.
    """
    if not isinstance(value, dict):
        words = f"The row is {in_words(value)}, not an object."
        return Fault("not_an_object", "", words, 'Write {"messages": […]} or the like.')
    if mapping.label is not None and (fault := _judged(value, mapping.label)) is not None:
        return fault
    if mapping.messages is not None:
        return _missing(value, mapping, "messages") or _conversation(value, mapping, mapping.messages)
    if mapping.user is not None and mapping.assistant is not None:
        return _missing(value, mapping, "user") or _pair(value, mapping, mapping.user, mapping.assistant)
    if mapping.prompt is not None and mapping.completion is not None:
        return _missing(value, mapping, "prompt") or _as_it_stands(value, mapping, mapping.prompt, mapping.completion)
    if mapping.text is not None:
        return _missing(value, mapping, "text") or _text(value[mapping.text], mapping.text)
    names = ", ".join(shown(str(name)) for name in list(value)[:8]) or "none"
    return Fault("unknown_form", "", f"No known columns, only {names}.", "Say which column is what.")


def doubt(row: dict[str, Any]) -> Fault | None:
    """What some chat templates refuse about a canonical row: a warning, because the template decides."""
    messages = row.get("messages")
    if messages is None:
        prompt, completion = row.get("prompt"), row.get("completion")
        if not isinstance(prompt, list) or not isinstance(completion, list):
            return None
        messages = prompt + completion
    return order_fault(messages)


def _judged(value: dict[str, Any], column: str) -> Fault | None:
    """What keeps a row from being learnt whose answer is marked as good or bad."""
    told = value.get(column)
    good = _LABELS.get(told.strip().lower() if isinstance(told, str) else told) if isinstance(told, _LABEL) else None
    if good is None:
        kind: ProblemKind = "null_value" if told is None else "wrong_type"
        return Fault(kind, column, f"{shown(column)} is {in_words(told)}.", "It must be true or false.")
    words = f"{shown(column)} marks the answer as a bad one."
    return None if good else Fault("bad_answer", column, words, "Leave it out: only good answers are to be learnt.")


def _missing(value: dict[str, Any], mapping: ColumnMapping, kind: str) -> Fault | None:
    needed = [getattr(mapping, slot) for slot in _NEEDED[kind]]
    missing = [column for column in needed if column not in value]
    if not missing:
        return None
    if len(missing) < len(needed):
        return Fault("missing_column", missing[0], f"There is no column {shown(missing[0])}.", _ONE_FORM)
    names = " and ".join(map(shown, missing))
    return Fault("other_form", missing[0], f"There is no column {names}.", _ONE_FORM)


def _conversation(value: dict[str, Any], mapping: ColumnMapping, column: str) -> dict[str, Any] | Fault:
    images: list[str] = []
    found = turns(value[column], column, images)
    if isinstance(found, Fault):
        return found
    if not has_answer(found):
        words = f"{shown(column)} has no assistant turn."
        return Fault("no_answer", column, words, "There is nothing to learn from: add one or remove the row.")
    before = _turns_before(value, mapping, found)
    if isinstance(before, Fault):
        return before
    row: dict[str, Any] = {"messages": before + found if before else found}
    return _with_extras(row, "messages", value, mapping, images)


def _pair(value: dict[str, Any], mapping: ColumnMapping, ask: str, answer: str) -> dict[str, Any] | Fault:
    images: list[str] = []
    prompt = _asked(value, mapping, ask, images)
    if isinstance(prompt, Fault):
        return prompt
    completion = _answered(value[answer], answer, images)
    if isinstance(completion, Fault):
        return completion
    before = _turns_before(value, mapping, prompt)
    if isinstance(before, Fault):
        return before
    row: dict[str, Any] = {"prompt": before + prompt, "completion": completion}
    return _with_extras(row, "prompt", value, mapping, images)


def _as_it_stands(value: dict[str, Any], mapping: ColumnMapping, ask: str, answer: str) -> dict[str, Any] | Fault:
    prompt, completion = value[ask], value[answer]
    plain = isinstance(prompt, str) and isinstance(completion, str)
    # A system message or earlier turns have no place in a plain text.
    turned = any((mapping.system, mapping.input, mapping.history, mapping.tools, mapping.images))
    if not plain or turned or _LOOKS_LIKE_TURNS.match(completion):
        return _pair(value, mapping, ask, answer)
    fault = _wrong_text(prompt, ask) or _wrong_text(completion, answer)
    if fault is not None:
        return fault
    if not completion or completion.isspace():
        return _no_words(answer)
    return {"prompt": prompt, "completion": completion}


def _text(text: Any, column: str) -> dict[str, Any] | Fault:
    fault = _wrong_text(text, column)
    if fault is not None:
        return fault
    if not text or text.isspace():
        return Fault("empty_value", column, f"{shown(column)} is empty.", "Give it a text or remove the row.")
    return {"text": text}


def _asked(
    value: dict[str, Any], mapping: ColumnMapping, column: str, images: list[str]
) -> list[dict[str, Any]] | Fault:
    asked = value[column]
    if isinstance(asked, list | dict) or (isinstance(asked, str) and _LOOKS_LIKE_TURNS.match(asked)):
        return turns(asked, column, images)
    # Alpaca's input may be null or missing, and so may be its instruction beside an input.
    more = None if mapping.input is None else value.get(mapping.input)
    texts = []
    for name, text in ((column, asked), (mapping.input or "", more)):
        if text is None and (name != column or more):
            continue
        fault = _wrong_text(text, name)
        if fault is not None:
            return fault
        if text and not text.isspace():
            texts.append(text)
    if not texts:
        return Fault("empty_value", column, f"{shown(column)} is empty.", "Give it a text or remove the row.")
    return [{"role": "user", "content": "\n\n".join(texts)}]


def _answered(value: Any, column: str, images: list[str]) -> list[dict[str, Any]] | Fault:
    if isinstance(value, list | dict) or (isinstance(value, str) and _LOOKS_LIKE_TURNS.match(value)):
        found = turns(value, column, images)
        if isinstance(found, Fault) or has_answer(found):
            return found
        words = f"{shown(column)} has no assistant turn."
        return Fault("no_answer", column, words, "There is nothing to learn from: add one or remove the row.")
    fault = _wrong_text(value, column)
    if fault is not None:
        return fault
    if not value or value.isspace():
        return _no_words(column)
    return [{"role": "assistant", "content": value}]


def _turns_before(
    value: dict[str, Any], mapping: ColumnMapping, found: list[dict[str, Any]]
) -> list[dict[str, Any]] | Fault:
    """The system message and the earlier turns of columns of their own."""
    before: list[dict[str, Any]] = []
    system = None if mapping.system is None else value.get(mapping.system)
    if system is not None and mapping.system is not None:
        fault = _wrong_text(system, mapping.system)
        if fault is not None:
            return fault
        message = {"role": "system", "content": system}
        if system and not system.isspace() and message not in found[:1]:
            before.append(message)
    if mapping.history is not None:
        earlier = _history(value.get(mapping.history), mapping.history)
        if isinstance(earlier, Fault):
            return earlier
        before += earlier
    return before


def _history(value: Any, column: str) -> list[dict[str, Any]] | Fault:
    if isinstance(value, str):
        value = parse_turns(value) if value.strip() else None
    if value is None:
        return []
    shape = "Write a list of pairs, a question and its answer."
    if not isinstance(value, list):
        return Fault("wrong_type", column, f"{shown(column)} is {in_words(value)}.", shape)
    found = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            return Fault("wrong_type", column, f"{shown(column)} holds no pair of texts at {index}.", shape)
        fault = _wrong_text(pair[0], column) or _wrong_text(pair[1], column)
        if fault is not None:
            return fault
        found += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return found


def _with_extras(
    row: dict[str, Any], first: str, value: dict[str, Any], mapping: ColumnMapping, images: list[str]
) -> dict[str, Any] | Fault:
    """The row with its tools and images; `first` holds the turns in which images are shown."""
    if mapping.tools is not None:
        found = tools(value.get(mapping.tools), mapping.tools)
        if isinstance(found, Fault):
            return found
        if found is not None:
            row["tools"] = found
    column = mapping.images or mapping.messages or mapping.user or mapping.prompt or ""
    if mapping.images is not None:
        listed = image_list(value.get(mapping.images), mapping.images)
        if isinstance(listed, Fault):
            return listed
        # Turns that name their images need no column of them.
        images = images or listed
    if images or any(isinstance(turn["content"], list) for turn in row[first]):
        placed = place_images(row[first], images, column)
        if isinstance(placed, Fault):
            return placed
        row[first] = placed
        row["images"] = images
    return row


def _wrong_text(text: Any, column: str) -> Fault | None:
    if isinstance(text, str):
        return None if is_whole(text) else half_character(column, shown(column))
    kind: ProblemKind = "null_value" if text is None else "wrong_type"
    return Fault(kind, column, f"{shown(column)} is {in_words(text)}.", "It must be a text.")


def _no_words(column: str) -> Fault:
    words = f"{shown(column)} is an answer without words."
    return Fault("empty_answer", column, words, "The model would learn to say nothing: fill it or remove the row.")
