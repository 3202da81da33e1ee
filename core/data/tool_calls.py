"""Tools and calls of them, brought from their many spellings into the one that chat templates read."""

from typing import Any

from core.data.json_lines import UnreadableError, parse_json
from core.data.rows import Fault
from core.data.values import in_words, json_fault, shown

_TOOLS = 'Write a list of {"type": "function", "function": {"name": …, "parameters": …}}.'
_CALLS = 'Write [{"type": "function", "function": {"name": …, "arguments": {…}}}].'


def tools(value: Any, column: str) -> list[dict[str, Any]] | Fault | None:
    """The tools of a row, each under its key "function"; None where there are none."""
    place = shown(column)
    if isinstance(value, str):
        if not value.strip():
            return None
        value = _parsed(value)
        if isinstance(value, UnreadableError):
            return Fault("bad_tools", column, f"{place} is not JSON.", _TOOLS)
    if isinstance(value, dict):
        value = [value]
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        return Fault("bad_tools", column, f"{place} is {in_words(value)}.", _TOOLS)
    found = []
    for index, tool in enumerate(value):
        read = _parsed(tool) if isinstance(tool, str) else tool
        if not isinstance(read, dict):
            words = "not JSON" if isinstance(read, UnreadableError) else in_words(read)
            return Fault("bad_tools", column, f"{place}[{index}] is {words}.", _TOOLS)
        inner = read.get("function", read)
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return Fault("bad_tools", column, f"{place}[{index}] has no name.", _TOOLS)
        found.append(read if inner is not read else {"type": "function", "function": _untyped(read)})
    return json_fault(found, column, place) or found


def tool_calls(value: Any, column: str, place: str) -> list[dict[str, Any]] | Fault:
    """The calls of an assistant turn, with their arguments as objects; `value` is one or a list, or JSON of them."""
    if isinstance(value, str):
        value = _parsed(value)
        if isinstance(value, UnreadableError):
            return Fault("bad_tools", column, f"The call in {place} is not JSON.", _CALLS)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        return Fault("bad_tools", column, f"The calls in {place} are {in_words(value)}.", _CALLS)
    calls = []
    for call in value:
        found = _tool_call(call, column, place)
        if isinstance(found, Fault):
            return found
        calls.append(found)
    return calls


def _tool_call(call: Any, column: str, place: str) -> dict[str, Any] | Fault:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return Fault("bad_tools", column, f"A call in {place} has no name of a function.", _CALLS)
    arguments = inner.get("arguments", inner.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments) if arguments.strip() else {}
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        words = "not JSON" if isinstance(arguments, UnreadableError) else in_words(arguments)
        return Fault("bad_tools", column, f"The arguments of a call in {place} are {words}.", _CALLS)
    outer = {} if inner is call else {name: item for name, item in call.items() if item is not None}
    identity = {} if inner is not call or call.get("id") is None else {"id": call["id"]}
    return {**outer, **identity, "type": "function", "function": {"name": inner["name"], "arguments": arguments}}


def _untyped(tool: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in tool.items() if name != "type" or item != "function"}


def _parsed(text: str) -> Any:
    """The value, or the UnreadableError that says why there is none."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except UnreadableError as error:
        return error
