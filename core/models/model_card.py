"""Reads the license from a model card: the YAML block at the head of README.md."""

import re
from pathlib import Path
from typing import Any

import yaml

_MAX_CARD_BYTES = 1_000_000
_MAX_ENTRY = 2_000
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def read_license(folder: Path) -> str | None:
    """Return the license that the model card names, "apache-2.0"; None when it names none or cannot be read.

    A card that says "other" is asked for the license's own name.
    """
    path = folder / "README.md"
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            text = file.read(_MAX_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    front = _FRONT_MATTER.match(text)
    if front is None:
        return None
    named = _words(_entry(front[1], "license"))
    if named is None or named == "other":
        return _words(_entry(front[1], "license_name")) or named
    return named


def _entry(front: str, key: str) -> Any:
    """Return one entry of the block: a card may carry thousands of lines of test results, which are not parsed."""
    found = re.search(rf"^{key}[ \t]*:.*(?:\n(?:[ \t-].*)?)*", front, re.MULTILINE)
    # An alias, repeated, makes a small text into a huge value.
    if found is None or len(found[0]) > _MAX_ENTRY or re.search(r"(^|[\s\[{,:])[&*!]", found[0]):
        return None
    try:
        value = yaml.safe_load(found[0])
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return value.get(key) if isinstance(value, dict) else None


def _words(value: Any) -> str | None:
    entries = value if isinstance(value, list) else [value]
    words = [" ".join(entry.split()) for entry in entries if isinstance(entry, str)]
    return ", ".join(word for word in words if word)[:200] or None
