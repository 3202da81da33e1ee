"""The tokens of a store's rows, made once and kept between runs."""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from core.data.check import StoppedError
from core.data.row_store import RowStore
from core.data.token_file import TokenFile, TokenWriter
from core.data.tokenized_row import RowError
from core.data.tokenizing import RowTokenizer
from core.paths import cache_home

_LISTED = 200
_ENCODED_AT_ONCE = 128
_TELL_SECONDS = 0.5
_KEPT_SECONDS = 30 * 24 * 3600
_TOKENS, _FACTS = "tokens.arrow", "facts.json"

Tell = Callable[[int, int], object]
"""Rows that are done, and all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be tokenized."""

    row: int
    """Number in the store."""
    kind: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The tokens of a store."""

    file: TokenFile
    refused: tuple[Refused, ...]
    """The first ones."""
    refused_kinds: dict[str, int]
    """How many of each kind there are."""


def tokenize_store(
    store: RowStore, tokenizer: RowTokenizer, key: str, tell: Tell, stop: Callable[[], bool]
) -> Tokenized:
    """The tokens that are kept under this key, or those of the store, which are kept from then on.

    Rows that cannot be tokenized are counted, never raised. Raises StoppedError as soon as `stop()` is true; OSError
    if there is no room.
    """
    folder = cache_home() / "tokenized" / key
    kept = _read(folder)
    if kept is not None:
        os.utime(folder)
        return kept
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(folder.parent)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{key}."))
    try:
        _write(beside, store, tokenizer, tell, stop)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    try:
        beside.rename(folder)
    except OSError:
        # Another run put the very same there in between.
        shutil.rmtree(beside, ignore_errors=True)
    made = _read(folder)
    if made is None:
        raise OSError(f"{folder} cannot be read though it was just written")
    return made


def _write(folder: Path, store: RowStore, tokenizer: RowTokenizer, tell: Tell, stop: Callable[[], bool]) -> None:
    writer = TokenWriter(folder / _TOKENS)
    refused: list[Refused] = []
    kinds: Counter[str] = Counter()
    told_at = time.monotonic()
    done = 0
    rows = store.rows()
    while batch := list(islice(rows, _ENCODED_AT_ONCE)):
        if stop():
            raise StoppedError
        for number, made in enumerate(tokenizer.tokenize_many([row.canonical for row in batch]), start=done):
            if isinstance(made, RowError):
                kinds[made.kind] += 1
                if len(refused) < _LISTED:
                    refused.append(Refused(number, made.kind, made.message, made.fix))
            else:
                writer.add(number, made)
        done += len(batch)
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            tell(done, len(store))
    writer.close()
    facts = {
        "bytes": (folder / _TOKENS).stat().st_size,
        "refused": [[one.row, one.kind, one.message, one.fix] for one in refused],
        "kinds": dict(kinds),
    }
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _read(folder: Path) -> Tokenized | None:
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        refused = tuple(Refused(*one) for one in facts["refused"])
        if (folder / _TOKENS).stat().st_size != facts["bytes"]:
            return None
        return Tokenized(TokenFile(folder / _TOKENS), refused, facts["kinds"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        # Not there, or damaged: it is made anew.
        return None


def _forget_old(cache: Path) -> None:
    for folder in cache.iterdir():
        if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
