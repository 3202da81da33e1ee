"""Turns with marks around what people wrote, so that a rendered text tells which turn each part of it comes from."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Unicode promises that these two never stand for a character; a number of the private plane follows each.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_FIRST_NUMBER, _NUMBERS = 0xF0000, 65_000
_MARK = re.compile(f"([{_OPEN}{_CLOSE}])([\U000f0000-\U000ffffd])")
# Templates cut contents at these and look for them at the ends: they must stay outside of what is marked.
_CUT = re.compile(
    r"(</?(?:think|thinking|thought|reasoning|tool_response|tool_call)>|\[/?THINK\]|<\|channel>|<channel\|>)"
)
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a marked part comes from."""

    number: int
    message: int
    answer: bool
    """Whether a rendered text must have it: what is said or called, and not what was thought before."""


@dataclass(frozen=True, slots=True)
class Part:
    """A marked part in a rendered text, in characters of the text without marks."""

    source: Source
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class MarkedTurns:
    """Messages that render as before, but for the marks."""

    messages: list[dict[str, Any]]
    sources: list[Source]

    def read(self, rendered: str) -> tuple[str, list[Part]] | None:
        """The text without marks and the parts in it, in order; None if a mark was torn from its other half."""
        texts: list[str] = []
        parts: list[Part] = []
        opened: tuple[str, int] | None = None
        position = length = 0
        for found in _MARK.finditer(rendered):
            texts.append(rendered[position : found.start()])
            length += found.start() - position
            position = found.end()
            kind, number = found.groups()
            if kind == _OPEN and opened is None:
                opened = number, length
            elif kind == _CLOSE and opened is not None and opened[0] == number:
                parts.append(Part(self.sources[ord(number) - _FIRST_NUMBER], opened[1], length))
                opened = None
            else:
                return None
        if opened is not None:
            return None
        texts.append(rendered[position:])
        return "".join(texts), parts


def mark_turns(messages: Sequence[Mapping[str, Any]]) -> MarkedTurns | None:
    """Mark contents, thoughts and what tools are called with; None if there are too many of them."""
    sources: list[Source] = []

    def mark(text: str, message: int, spoken: bool) -> str:
        pieces = _CUT.split(text)
        last = max((index for index in range(0, len(pieces), 2) if pieces[index].strip()), default=-1)
        for index in range(0, len(pieces), 2):
            core = pieces[index].strip()
            if core:
                number = chr(_FIRST_NUMBER + len(sources) % _NUMBERS)
                sources.append(Source(len(sources), message, spoken and index == last))
                pieces[index] = pieces[index].replace(core, f"{_OPEN}{number}{core}{_CLOSE}{number}", 1)
        return "".join(pieces)

    def marked(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
        changed = dict(message)
        content = message.get("content")
        if isinstance(content, str):
            changed["content"] = mark(content, index, spoken=True)
        elif isinstance(content, list):
            changed["content"] = [
                {**block, "text": mark(block["text"], index, spoken=True)}
                if isinstance(block, Mapping) and isinstance(block.get("text"), str)
                else block
                for block in content
            ]
        for name in _THOUGHTS:
            if isinstance(message.get(name), str):
                changed[name] = mark(message[name], index, spoken=False)
        if isinstance(message.get("tool_calls"), list):
            changed["tool_calls"] = [marked_call(call, index) for call in message["tool_calls"]]
        return changed

    def marked_call(call: Any, index: int) -> Any:
        if not isinstance(call, Mapping):
            return call
        if isinstance(call.get("function"), Mapping):
            return {**call, "function": marked_call(call["function"], index)}
        if "arguments" in call:
            return {**call, "arguments": marked_values(call["arguments"], index)}
        return call

    def marked_values(value: Any, index: int) -> Any:
        if isinstance(value, str):
            return mark(value, index, spoken=True)
        if isinstance(value, Mapping):
            # Some templates sort by name: numbers that grow with the names leave that order as it is.
            names = {name: mark(name, index, spoken=True) for name in sorted(value, key=str.lower)}
            return {names[name]: marked_values(item, index) for name, item in value.items()}
        if isinstance(value, list):
            return [marked_values(item, index) for item in value]
        return value

    turns = [marked(index, message) for index, message in enumerate(messages)]
    return MarkedTurns(turns, sources) if len(sources) < _NUMBERS else None


def spoken_texts(message: Mapping[str, Any]) -> Iterator[str]:
    """What a message says, without the white space around it."""
    content = message.get("content")
    blocks = content if isinstance(content, list) else [{"text": content}]
    for block in blocks:
        text = block.get("text") if isinstance(block, Mapping) else None
        if isinstance(text, str):
            pieces = [piece.strip() for piece in _CUT.split(text)[::2]]
            yield from [piece for piece in pieces if piece][-1:]
