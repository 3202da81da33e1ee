"""Text as a terminal may show it: foreign text made harmless, and numbers in human words."""

import math
import re
import unicodedata

_TAB = "    "

# Shown as nothing, or as something else than what is stored: enough to hide or to reorder words.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e01ef"
)
# Persian, Indic scripts and emoji are spelled with U+200C and U+200D, which stay between two such letters.
_JOINABLE = (
    "\u0590-\u061b\u061d-\u115e\u1161-\u17b3\u17b6-\u180a\u1810-\u1fff"
    "\u2190-\u23ff\u2440-\u2bff\ufe0e\ufe0f\U0001f000-\U0001faff"
)
_JOINERS = rf"(?<![{_JOINABLE}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINABLE}])"
_FOREIGN = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_INVISIBLE}]|{_JOINERS}")


def safe(text: str, *, keep_newlines: bool = False) -> str:
    """Return `text` with all that a terminal would obey, hide or reorder replaced by a visible stand-in.

    C0 and DEL become control pictures (ESC is ␛), a tab becomes four spaces, a newline ⏎ unless
    `keep_newlines`, and C1, bidirectional controls, invisible characters and lone surrogates become ‹U+202E›
    and the like.
    Applying it twice changes nothing more. The result is plain text: it may still contain markup characters.
    """
    if _FOREIGN.search(text) is None:
        return text
    if keep_newlines:
        return "\n".join(safe(line) for line in text.split("\n"))
    return _FOREIGN.sub(_stand_in, text)


def _stand_in(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\n":
        return "⏎"
    if character == "\t":
        return _TAB
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"‹U+{code:04X}›"


def cell_width(text: str) -> int:
    """Return how many terminal cells `text` takes: two for wide characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def shorten(text: str, width: int) -> str:
    """Return `text` cut to at most `width` terminal cells, ending in an ellipsis where something was cut."""
    if cell_width(text) <= width:
        return text
    if width <= 0:
        return ""
    kept: list[str] = []
    room = width - 1
    for character in text:
        room -= _character_width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def human_bytes(count: float | None) -> str:
    """Return a number of bytes in decimal units and three digits, "4.21 GB"; None is "n/a"."""
    if count is None:
        return "n/a"
    if abs(count) < 1000:
        return f"{count:.0f} B"
    value, units = float(count), ("kB", "MB", "GB", "TB", "PB")
    for unit in units:
        value /= 1000
        # 999.5 rounds to a fourth digit, which belongs to the next unit.
        if abs(value) < 999.5 or unit == units[-1]:
            break
    size = abs(value)
    decimals = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"


def human_count(count: float | None) -> str:
    """Return a number of parameters, tokens or rows with one decimal, "134.5 M"; None is "n/a"."""
    if count is None:
        return "n/a"
    if abs(count) < 1000:
        return f"{count:.0f}"
    value, units = float(count), ("k", "M", "B", "T")
    for unit in units:
        value /= 1000
        if abs(value) < 999.95 or unit == units[-1]:
            break
    return f"{value:.1f} {unit}"


def human_duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units, "4 min 10 s"; None, NaN and infinity are "n/a"."""
    if seconds is None or not math.isfinite(seconds):
        return "n/a"
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    # With hours or days the smaller units are noise, so they are rounded away before splitting.
    if whole >= 86_400:
        whole = round(whole / 3600) * 3600
    elif whole >= 3600:
        whole = round(whole / 60) * 60
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    named = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(named[:2]) or "0 s"
