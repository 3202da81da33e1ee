"""Sources of rows as one types them in a line: `rows.jsonl, data/*.parquet 50%, owner/name:config@split`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from core.spec.run_spec import DatasetSource

# Names of readers, which `datasets` takes beside the files they are to read.
_READERS = ("json", "csv", "parquet", "arrow", "text")
_SHARE = re.compile(r"\s+(\d+(?:\.\d+)?)\s*%$")
_HUB = re.compile(r"(?P<path>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<name>[^@:]+))?(?:@(?P<split>[\w.-]+(?:\[[^\]]*\])?))?")


def source_texts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The entries of `datasets` as one would type them, as far as they are entries."""
    return tuple(text for entry in _entries(values) for text in _texts(entry))


def typed_sources(texts: Sequence[str], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What typed texts mean; an entry that is set already keeps also what its text does not tell."""
    known = {_texts(entry): entry for entry in _entries(values)}
    kept = {texts[0]: entry for texts, entry in known.items() if len(texts) == 1}
    return [_plain(kept[text]) if text in kept else _typed(text) for text in texts]


def _typed(text: str) -> dict[str, Any]:
    share = _SHARE.search(text)
    # What would be told in other words, such as 50.0 %, would change under the user's fingers.
    if share and not (0 < float(share[1]) <= 100 and f"{float(share[1]) / 100 * 100:g}%" == share[0].strip()):
        share = None
    named = text[: share.start()] if share else text
    entry: dict[str, Any] = {"path": named}
    hub = _HUB.fullmatch(named)
    if hub and (hub["name"] or hub["split"]):
        entry = {key: value for key, value in hub.groupdict().items() if value}
    if share:
        entry["fraction"] = float(share[1]) / 100
    return entry


def _texts(entry: DatasetSource) -> tuple[str, ...]:
    share = f" {entry.fraction * 100:g}%" if entry.fraction is not None else ""
    files = entry.named_files()
    if files is not None and entry.path in _READERS:
        return tuple(file + share for file in files)
    name = f":{entry.name}" if entry.name else ""
    split = f"@{entry.split}" if entry.split != "train" else ""
    return (f"{entry.path}{name}{split}{share}",)


def _entries(values: Mapping[str, Any]) -> list[DatasetSource]:
    entries = values.get("datasets")
    found: list[DatasetSource] = []
    for entry in entries if isinstance(entries, list | tuple) else ():
        try:
            found.append(DatasetSource(path=entry) if isinstance(entry, str) else DatasetSource(**entry))
        except (ValidationError, TypeError):
            continue
    return found


def _plain(entry: DatasetSource) -> dict[str, Any]:
    return entry.model_dump(exclude_defaults=True)
