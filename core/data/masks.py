"""Which characters of a rendered conversation the assistant wrote, with a proof that it is so.

A conversation is rendered a second time with invisible marks around what each turn says. Without its marks that text
must be the first one, letter for letter: then it is known which turn every part of it comes from. Where an answer
begins is what follows the text that the model is asked with; where it ends is what the template adds after it when the
conversation stops there.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.marked_turns import MarkedTurns, Part, Source, mark_turns, spoken_texts
from core.data.tokenized_row import RowError

Span = tuple[int, int]
Messages = Sequence[Mapping[str, Any]]
Render = Callable[[Messages, bool], str]
"""(messages, whether the model is to answer) to text. Raises RowError."""

# An opened thought is the model's own, even where the generation prompt opens it.
_THOUGHT = "<think>"
_REMEMBERED = 4096
_FIX = "Take another template (chat_template_path), or learn from the completion or the whole text."


class TurnFinder:
    """Finds the assistant's turns in conversations that one template renders."""

    def __init__(self, special_tokens: Sequence[str]) -> None:
        words = [*sorted(filter(None, special_tokens), key=len, reverse=True)]
        self._units = re.compile("|".join([*map(re.escape, words), r"\s+", r"\w+", "."]), re.DOTALL)
        self._special = set(words)
        # What stands between two contents is nearly always the same: where it parts is then known already.
        self._starts: dict[str, int] = {}
        self._ends: dict[tuple[str, bool], int] = {}

    def spans(self, messages: Messages, text: str, render: Render) -> list[Span]:
        """The assistant's turns in `text`, as characters from and to, in order, each with its end-of-turn token.

        Raises RowError when they cannot be proven.
        """
        turns = mark_turns(messages)
        parts = _parts(turns, text, render)
        if turns is None or parts is None:
            raise _unproven("The template changes what the turns say, so that they cannot be found in its text.")
        row = _Row(turns, parts, text, render)
        spans = [self._span(row, index) for index, message in enumerate(messages) if message["role"] == "assistant"]
        check_parts(messages, turns, parts, spans)
        return spans

    def _span(self, row: "_Row", index: int) -> Span:
        own = [place for place, part in enumerate(row.parts) if part.source.message == index]
        before = own[0] - 1 if own else row.place_before(index)
        anchor = row.parts[before].end if before >= 0 else 0
        following = (own[-1] if own else before) + 1
        limit = row.parts[following].start if following < len(row.parts) else len(row.text)
        gap = row.text[anchor : row.parts[own[0]].start if own else limit]
        source = row.parts[before].source if before >= 0 else None
        if not own:
            return anchor + _start(row, index, gap, source), anchor + self._end(row, index, gap, gap, source)
        start = self._starts.get(gap)
        if start is None:
            start = _start(row, index, gap, source)
            _remember(self._starts, gap, start)
        last = row.parts[own[-1]]
        tail = row.text[last.end : limit]
        key = tail, index == len(row.turns.messages) - 1
        end = self._ends.get(key)
        if end is None:
            end = self._end(row, index, tail, gap, last.source)
            _remember(self._ends, key, end)
        return anchor + start, last.end + end

    def _end(self, row: "_Row", index: int, tail: str, gap: str, source: Source | None) -> int:
        """How much of what follows an answer ends it, and does not begin the next turn."""
        ending = row.after(source, index + 1, answer=False)
        if ending is not None:
            if tail.startswith(ending):
                return len(ending)
            common = self._common(ending, tail)
            if common:
                return common
        # The template ends the last turn otherwise: this one ends as the turn before it does.
        unit = self._units.match(gap)
        if unit is not None and unit.group() in self._special and tail.startswith(unit.group()):
            return unit.end()
        raise _unproven(f"Where message {index + 1} ends and the next one begins cannot be told.")

    def _common(self, one: str, other: str) -> int:
        length = 0
        for unit, same in zip(self._units.findall(one), self._units.findall(other), strict=False):
            if unit != same:
                break
            length += len(unit)
        return length


@dataclass(frozen=True, slots=True)
class _Row:
    turns: MarkedTurns
    parts: list[Part]
    text: str
    render: Render

    def rendered(self, count: int, *, answer: bool) -> tuple[str, list[Part]] | None:
        """The first messages alone; None where the template refuses or cuts them."""
        try:
            return self.turns.read(self.render(self.turns.messages[:count], answer))
        except RowError:
            return None

    def after(self, source: Source | None, count: int, *, answer: bool) -> str | None:
        """What follows this part when it is the last of the first messages."""
        read = self.rendered(count, answer=answer)
        if read is None:
            return None
        text, parts = read
        if (parts[-1].source if parts else None) != source:
            return None
        return text[parts[-1].end if parts else 0 :]

    def place_before(self, index: int) -> int:
        """The place of the part that a turn without any of its own follows; -1 if there is none."""
        read = self.rendered(index, answer=True)
        if read is not None and not read[1]:
            return -1
        places = [place for place, part in enumerate(self.parts) if read and part.source == read[1][-1].source]
        if not places:
            raise _unproven(f"What stands before message {index + 1} is not the same in the whole text.")
        return places[-1]


def _start(row: _Row, index: int, gap: str, source: Source | None) -> int:
    """How much of the gap before an answer is what the model is asked with."""
    header = row.after(source, index, answer=True) if index else None
    if header is None:
        raise _unproven(f"The template does not ask for an answer where message {index + 1} stands.")
    if _THOUGHT in header:
        header = header[: header.index(_THOUGHT)]
    if gap.startswith(header):
        return len(header)
    if header.startswith(gap):
        return len(gap)
    raise _unproven(f"Message {index + 1} does not follow the text that the model is asked with.")


class SpanChecker:
    """Proves that spans which a template marks itself are the assistant's turns."""

    def __init__(self) -> None:
        # Sequences of roles whose marks were proven part by part: words alone could be anybody's.
        self._proven: set[tuple[str, ...]] = set()

    def check(self, messages: Messages, text: str, spans: Sequence[Span], render: Render) -> None:
        """Raise RowError unless they hold all that the assistant says, in order, and nothing that others say."""
        missing = _missing_words(messages, text, spans)
        roles = tuple(str(message.get("role")) for message in messages)
        if missing is None and roles in self._proven and all(_only_speaks(message) for message in messages):
            return
        turns = mark_turns(messages)
        parts = _parts(turns, text, render)
        if turns is not None and parts is not None:
            check_parts(messages, turns, parts, spans)
            if len(self._proven) < _REMEMBERED:
                self._proven.add(roles)
        elif missing is not None:
            raise _unproven(missing)


def check_answers(messages: Messages, text: str, render: Render) -> None:
    """Raise RowError if the template leaves out what the assistant says or calls, as far as that can be told."""
    answers = [message for message in messages if message.get("role") == "assistant"]
    if all(_only_speaks(message) and all(words in text for words in spoken_texts(message)) for message in answers):
        return
    turns = mark_turns(messages)
    parts = _parts(turns, text, render)
    if turns is not None and parts is not None:
        _check_none_missing(messages, turns, parts)


def check_prompt(prompt: Messages, asked: str, text: str) -> None:
    """Raise RowError if the whole text parts from that of the prompt within what the prompt says."""
    if text.startswith(asked):
        return
    said = [words for message in prompt for words in spoken_texts(message)]
    end = asked.rfind(said[-1]) + len(said[-1]) if said and said[-1] in asked else len(asked)
    if text[:end] != asked[:end]:
        raise _unproven("The template writes the prompt otherwise once an answer follows.")


def check_parts(messages: Messages, turns: MarkedTurns, parts: Sequence[Part], spans: Sequence[Span]) -> None:
    """The same, of parts whose turn is known."""
    if any(start >= end for start, end in spans):
        raise _unproven("A turn of the assistant has no text that could be told from the turns around it.")
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        raise _unproven("The assistant's turns overlap in the text.")
    spoken = -1
    for part in parts:
        inside = any(start <= part.start and part.end <= end for start, end in spans)
        touched = any(start < part.end and part.start < end for start, end in spans)
        number = part.source.message
        if messages[number].get("role") != "assistant":
            if touched:
                raise _unproven(f"What message {number + 1} says stands within a turn of the assistant.")
            continue
        if not inside:
            raise _unproven(f"Not all that message {number + 1} says stands within its turn.")
        if number < spoken:
            raise _unproven("The assistant's turns are not in order in the text.")
        spoken = number
    _check_none_missing(messages, turns, parts)


def _check_none_missing(messages: Messages, turns: MarkedTurns, parts: Sequence[Part]) -> None:
    there = {part.source for part in parts}
    for source in turns.sources:
        if source.answer and source not in there and messages[source.message].get("role") == "assistant":
            message = f"The chat template leaves out what message {source.message + 1} says or calls."
            raise RowError("template_refuses", message, "Mend or remove the row, or take another template.")


def _missing_words(messages: Messages, text: str, spans: Sequence[Span]) -> str | None:
    """What is not found, in order, within the spans (of the assistant) or outside of them (of all others)."""
    inside = "\0".join([text[start:end] for start, end in spans])
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    outside = "\0".join([text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)])
    places = {True: 0, False: 0}
    for number, message in enumerate(messages, start=1):
        own = message.get("role") == "assistant"
        for words in spoken_texts(message):
            place = (inside if own else outside).find(words, places[own])
            if place < 0:
                where = "within a turn of the assistant" if own else "outside of the assistant's turns"
                return f"What message {number} says is not found {where}."
            places[own] = place + len(words)
    return None


def _only_speaks(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("content"), str) and not message.get("tool_calls")


def _parts(turns: MarkedTurns | None, text: str, render: Render) -> list[Part] | None:
    """The parts of the marked text, if it is `text` but for its marks."""
    if turns is None:
        return None
    try:
        read = turns.read(render(turns.messages, False))
    except RowError:
        return None
    return read[1] if read is not None and read[0] == text else None


def _remember(known: dict[Any, int], key: Any, value: int) -> None:
    if len(known) < _REMEMBERED:
        known[key] = value


def _unproven(message: str) -> RowError:
    return RowError("mask_unproven", message, _FIX)
