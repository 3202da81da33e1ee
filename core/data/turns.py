"""Turns of a conversation in their many spellings, checked and brought into role and content."""

from collections.abc import Mapping, Sequence
from typing import Any

from core import python_source
from core.data.images import image_source
from core.data.json_lines import UnreadableError, parse_json
from core.data.rows import Fault, ProblemKind
from core.data.tool_calls import tool_calls
from core.data.values import half_character, in_words, is_whole, json_fault, shown

CALL = "tool_call"
"""The role of a ShareGPT turn whose text is a call of a tool."""
ROLE_NAMES: Mapping[str, Sequence[str]] = {
    "system": ("system",),
    "developer": ("developer",),
    "user": ("user", "human", "prompter", "customer", "person"),
    "assistant": (
        "assistant", "gpt", "chatgpt", "gpt4", "gpt-4", "gpt-3.5", "bard", "bing", "claude", "gemini", "palm", "model",
        "bot", "chatbot", "ai", "llm", "agent",
    ),
    "tool": (
        "tool", "function", "observation", "function_response", "tool_response", "tool_result", "tool_results",
        "function_result", "ipython", "environment",
    ),
    CALL: (CALL, "function_call", "tool_calls", "function-call"),
}  # fmt: skip
_ROLES = {name: role for role, names in ROLE_NAMES.items() for name in names}
_PLAIN = frozenset(("system", "user", "assistant", "tool"))
ROLE_KEYS = ("role", "from", "speaker", "author")
CONTENT_KEYS = ("content", "value", "text", "message")
# Python needs many times its length to read a printed list.
_PRINTED_LIMIT = 2**20
_SHAPE = 'Write a list of {"role": …, "content": …}.'
_KNOWN = "Roles are system, user, assistant and tool."
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image")


def turns(value: Any, column: str, images: list[str]) -> list[dict[str, Any]] | Fault:
    """A conversation as a list of {"role", "content", …}; what its parts show is added to `images`.

    `value` is a list of turns, one turn, or JSON of them in a text. Content is a text, or a list of text and image
    parts where there are images. An assistant's turn without words and calls is a fault.
    """
    if type(value) is not list:
        value = _listed(value, column)
        if isinstance(value, Fault):
            return value
    if not value:
        return Fault("empty_value", column, f"{shown(column)} is empty.", "Give it turns or remove the row.")
    found: list[dict[str, Any]] = []
    for index, turn in enumerate(value):
        # Most turns by far are this plain and stay as they are.
        if type(turn) is dict and len(turn) == 2:
            plain, role, content = turn, turn.get("role"), turn.get("content")
            if role is None and type(name := turn.get("from")) is str:
                role, content = _ROLES.get(name), turn.get("value")
                plain = {"role": role, "content": content}
            if type(content) is str and type(role) is str and role in _PLAIN:
                if not is_whole(content):
                    return half_character(column, _place(column, index))
                if role == "assistant" and (not content or content.isspace()):
                    return _empty_answer(column, index)
                found.append(plain)
                continue
        mended = _turn(turn, column, index, images)
        if isinstance(mended, Fault):
            return mended
        found.append(mended)
    return found


def has_answer(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is an assistant's turn to learn from."""
    return any(turn["role"] == "assistant" for turn in found)


def order_fault(found: Sequence[Mapping[str, Any]]) -> Fault | None:
    """What some chat templates refuse about the order of turns."""
    before = ""
    for index, turn in enumerate(found):
        role = turn["role"]
        words = ""
        if role in ("system", "developer"):
            words = f"turn {index + 1} is a {role} message, not the first turn" if index else ""
            role = ""
        elif role == "user":
            words = f"turns {index} and {index + 1} are both the user's" if before == "user" else ""
        elif role == "assistant":
            if before == "assistant":
                words = f"turns {index} and {index + 1} are both the assistant's"
            elif not before:
                words = "the assistant's turn comes first"
        elif before not in ("assistant", "tool"):
            words = f"turn {index + 1} is a tool's result, but nothing was called before it"
        if words:
            return Fault(
                "turn_order",
                "",
                f"Some chat templates refuse this order: {words}.",
                "Join, move or remove turns if the model's template refuses it.",
                "warning",
            )
        before = role
    return None


def _listed(value: Any, column: str) -> Any:
    if isinstance(value, dict):
        return [value]
    if isinstance(value, str):
        if not value.strip():
            return Fault("empty_value", column, f"{shown(column)} is empty.", "Give it turns or remove the row.")
        parsed = parse_turns(value)
        if isinstance(parsed, dict):
            return [parsed]
        if not isinstance(parsed, list):
            return Fault("wrong_type", column, f"{shown(column)} is a text, not turns or JSON of them.", _SHAPE)
        return parsed
    kind: ProblemKind = "null_value" if value is None else "wrong_type"
    return Fault(kind, column, f"{shown(column)} is {in_words(value)}.", _SHAPE)


def parse_turns(text: str) -> Any:
    """What a text spells in JSON, or as Python prints a list, which is how pandas writes one to CSV; or None."""
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except UnreadableError:
        pass
    if len(text) <= _PRINTED_LIMIT and text.lstrip().startswith(("[{'", '[{"', "{'")):
        try:
            return python_source.literal(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return None


def _turn(turn: Any, column: str, index: int, images: list[str]) -> dict[str, Any] | Fault:
    place = _place(column, index)
    if not isinstance(turn, dict):
        return Fault("wrong_type", column, f"{place} is {in_words(turn)}.", 'Write {"role": …, "content": …}.')
    role_key = next((key for key in ROLE_KEYS if key in turn), "role")
    name = turn.get(role_key)
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        words = f"{place} has no role." if name is None else f"{place} has the role {_short(name)}."
        return Fault("unknown_role", column, words, _KNOWN)
    content_key = next((key for key in CONTENT_KEYS if key in turn and key != role_key), "content")
    content = turn.get(content_key)
    mended: dict[str, Any] = {"role": role, "content": content}
    mended |= {
        key: item for key, item in turn.items() if item is not None and key not in (role_key, content_key, "role")
    }
    called = mended.pop("function_call", None)
    if role == CALL:
        called, content, mended["role"], mended["content"] = content, "", "assistant", ""
    if called or mended.get("tool_calls"):
        calls = tool_calls(called or mended["tool_calls"], column, place)
        if isinstance(calls, Fault):
            return calls
        mended["tool_calls"] = calls
        content = mended["content"] = "" if content is None else content
    else:
        mended.pop("tool_calls", None)
    if isinstance(content, list):
        content = _content(content, column, place, images)
        if isinstance(content, Fault):
            return content
        mended["content"] = content
    elif content is None:
        return Fault("null_value", column, f"{place} has no content.", "Give it a text or remove the row.")
    elif not isinstance(content, str):
        return Fault("wrong_type", column, f"{place} has a content that is {in_words(content)}.", "Write a text.")
    if mended["role"] == "assistant" and "tool_calls" not in mended and (not content or str(content).isspace()):
        return _empty_answer(column, index)
    return json_fault(mended, column, place) or mended


def _content(parts: list[Any], column: str, place: str, images: list[str]) -> str | list[dict[str, Any]] | Fault:
    """Text and image parts; one text where there are no images."""
    found: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            found.append({"type": "text", "text": part})
            continue
        kind = (
            part.get("type", next((key for key in ("text", "image", "image_url") if key in part), None))
            if (isinstance(part, dict))
            else in_words(part)
        )
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            found.append({"type": "text", "text": part["text"]})
        elif kind in _IMAGE_PARTS:
            source = image_source(part)
            if source is not None:
                images.append(source)
            found.append({"type": "image"})
        else:
            words = (
                f"{place} has a part that is {_short(kind)}." if kind not in _TEXT_PARTS else f"{place} has no text."
            )
            return Fault("wrong_type", column, words, "Texts and images are understood.")
    if all(part["type"] == "text" for part in found):
        return "".join(part["text"] for part in found)
    return found


def _empty_answer(column: str, index: int) -> Fault:
    words = f"{_place(column, index)} is an answer without words."
    return Fault("empty_answer", column, words, "The model would learn to say nothing: fill or remove it.")


def _place(column: str, index: int) -> str:
    return f"{shown(column)[:-1]}[{index}]`"


def _short(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else in_words(value)
