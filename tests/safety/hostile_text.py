"""Ten thousand strings that would command a terminal or an app that shows them, and how to see whether one did."""

import re
import unicodedata
from functools import cache

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

COUNT = 10_000
_AT_ONCE = 50
_BYTES = 18
# In every sequence below, and in none that Textual sends by itself.
SIGN = "6660"
_PARTS = (
    "\x1b]0;6660\x07", "\x1b]2;6660\x1b\\", "\x1b]8;;http://6660/\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;NjY2MA==6660\x07", "\x1b]9;6660\x07", "\x1b]777;notify;6660;6660\x07", "\x1b]1337;File=6660\x07",
    "\x1b[6660m", "\x1b[2J\x1b[6660;1H", "\x1b[?6660h", "\x1bP6660q\x1b\\", "\x1b_6660\x1b\\", "\x1b^6660\x1b\\",
    "\x1bX6660\x1b\\", "\x1bc6660", "\x1b(0", "\x1b#8", "\x9b6660m", "\x9d0;6660\x9c", "\x90 6660\x9c",
    "\x9f6660\x9c", "\x85", "\x84", "\x1b", "\x9b", "\r", "\n", "\t", "\b", "\x00", "\x07", "\x0e", "\x0f", "\x7f",
    "\u202e", "\u2066", "\u2069", "\u200b", "\u200f", "\u2028", "\u2029", "\ufeff", "\U000e0041", "\ud800", "\udfff",
    "[@click=app.bell]6660[/]", "[@click='app.quit']6660[/]", "[link=http://6660/]6660[/link]", "[bold", "[/]",
    "[/INST]", "[red]", "[on $error]", "[$accent]", "\\[", "]", "{6660}", "%s%n", "$6660", ":bomb:", "{{ 6660 }}",
    "[click](javascript:6660)", "# ", "```", "<b>6660</b>", "日本", "e\u0301", "👩\u200d👧", "مرحبا", " ", "a", "Z",
)  # fmt: skip
_ORDERS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
# What Textual's driver sends for modes, queries, styles and places; nothing else may be in its output.
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*.|)|[\x80-\x9f]", re.DOTALL)
_STYLE = re.compile(
    r"\x1b\[(?:(?:[0-9]|2[1-9]|3[0-7]|39|4[0-7]|49|9[0-7]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3}|);?)*m"
)
_OTHERS = re.compile(
    r"\x1b\[(?:\d{1,4};\d{1,4}H|\?(?:7|25|1000|1003|1004|1006|1015|1016|1049|2004|2026|2048)[hl]|\?(?:2026|2048)\$p|"
    r">\d+u|<u|c|H|2J)|\x1b\]22;[a-z-]*\x07"
)


@cache
def hostile_texts() -> tuple[str, ...]:
    """The same ten thousand strings in every process."""
    found: list[str] = []
    length = _AT_ONCE * _BYTES

    @settings(
        max_examples=COUNT // _AT_ONCE + 20,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=length, max_size=length))
    def collect(drawn: bytes) -> None:
        found.extend(_text(drawn[start : start + _BYTES]) for start in range(0, length, _BYTES))

    collect()
    assert len(set(found[-COUNT:])) > 0.8 * COUNT
    return tuple(found[-COUNT:])


def _text(drawn: bytes) -> str:
    """Up to six parts, each of three bytes: a known danger, or any character at all."""
    parts = [drawn[start : start + 3] for start in range(0, 3 * (drawn[0] % 6 + 1), 3)]
    return "".join(
        _PARTS[first % len(_PARTS)] if second < 160 else chr(second << 8 | third) for first, second, third in parts
    )


def plain_texts(count: int) -> list[str]:
    """Of them, some that can be written into a file or given to a program: without NUL and half characters."""
    return [text.replace("\x00", "").encode("utf-8", "ignore").decode() for text in hostile_texts()[:count]]


def assert_harmless(shown: str) -> None:
    """Fail unless nothing in it but newlines is a control, an order of direction or half a character."""
    for character in set(shown) - {"\n"}:
        harmless = unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        assert harmless and unicodedata.bidirectional(character) not in _ORDERS, (
            f"U+{ord(character):04X} in {shown[max(0, shown.index(character) - 40) :][:80]!r}"
        )


def foreign_sequences(output: str) -> list[str]:
    """The commands to the terminal in a program's output that Textual would not send."""
    found = [match.group() for match in ESCAPE.finditer(output)]
    left = re.sub(r"[\r\n]", "", ESCAPE.sub("", output))
    controls = [character for character in left if ord(character) < 0x20 or ord(character) == 0x7F]
    return controls + [
        sequence
        for sequence in found
        if SIGN in sequence or not (_STYLE.fullmatch(sequence) or _OTHERS.fullmatch(sequence))
    ]
