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


def text_fault(text: str, column: str, place: str) -> Fault | None:
    """Half a character: JSON can spell one half of a pair of surrogates; no tokenizer and no file can hold it."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        words = f"{place} holds half a character (a lone surrogate)."
        return Fault("lone_surrogate", column, words, "Write the whole character or remove it.")
    return None


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
            if text_fault(item, "", "") is not None:
                return "lone_surrogate", "half a character (a lone surrogate)"
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**64:
                return "wrong_type", "a number of more than 64 bits"
        elif item is not None and not isinstance(item, float):
            return "wrong_type", f"{in_words(item)}, which JSON does not know"
    return "too_deep", "what is nested too deeply"
