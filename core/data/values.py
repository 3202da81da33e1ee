"""Values of foreign rows in words, and what in them no file and no tokenizer can hold."""

from typing import Any

import orjson

from core.data.rows import Fault, ProblemKind
from core.text import safe, shorten

_WORDS = {type(None): "null", str: "a text", bool: "true or false", dict: "an object", list: "a list"}
_WORDS |= {int: "a number", float: "a number"}


def in_words(value: Any) -> str:
    """What a value is: "a text", "a list", "null"…"""
    return type_in_words(type(value))


def type_in_words(kind: type) -> str:
    """What values of a type are."""
    return _WORDS.get(kind, f"a {kind.__name__}")


def shown(name: str) -> str:
    """A foreign name as it may stand in a sentence."""
    return f"`{shorten(safe(name), 40)}`"


def is_whole(text: str) -> bool:
    """Whether no half of a character is in it: JSON can spell one, but no tokenizer and no file can hold it."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def text_fault(text: str, column: str, place: str) -> Fault | None:
    """What in a text no file can hold."""
    return None if is_whole(text) else half_character(column, place)


def half_character(column: str, place: str) -> Fault:
    """What is wrong with a text that is not whole."""
    words = f"{place} holds half a character (a lone surrogate)."
    return Fault("lone_surrogate", column, words, "Write the whole character or remove it.")


def json_fault(value: Any, column: str, place: str) -> Fault | None:
    """What in an object or a list cannot be written as JSON and read again."""
    try:
        # It will stand a few levels deeper in its row.
        orjson.dumps([[[[[[value]]]]]])
    except orjson.JSONEncodeError:
        kind, words = _flaw(value)
        return Fault(kind, column, f"{place} holds {words}.", "Mend it or remove the row.")
    return None


def _flaw(value: Any) -> tuple[ProblemKind, str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str):
            if not is_whole(item):
                return "lone_surrogate", "half a character (a lone surrogate)"
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**64:
                return "wrong_type", "a number of more than 64 bits"
        elif item is not None and not isinstance(item, float):
            return "wrong_type", f"{in_words(item)}, which JSON does not know"
    return "too_deep", "what is nested too deeply"
