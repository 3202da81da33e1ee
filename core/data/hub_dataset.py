"""A dataset of the hub: which files a configuration and a split are, brought into the Hugging Face cache.

Never a loading script: files alone are read. What was brought once is found again without the hub.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from core.data.request import Source
from core.data.splits import CARD_NAME, choose_files, is_data_file, of_one_kind
from core.errors import SftuiError
from core.models.checkpoint_files import hub_cache
from core.models.download import DownloadProgress, bring, name_revision
from core.models.hub import HubFile, hub_file
from core.models.hub_client import DATASETS, get_json, in_words, is_offline, understood
from core.paths import cache_home, write_atomically
from core.text import safe

_REVISION = "main"
_CARD_LIMIT = 4 * 2**20
_STOP_SECONDS = 0.05

Arrived = Callable[[int, int], None]
Stop = Callable[[], bool]


def bring_files(source: Source, arrived: Arrived, stop: Stop) -> tuple[Path, ...]:
    """The files of a source of the hub, in the cache; `arrived` is told bytes and their total while they come.

    Raises SftuiError; DownloadCancelledError soon after `stop()` is true.
    """
    repository = hub_cache() / f"datasets--{source.path.replace('/', '--')}"
    try:
        sha, files = _ask(source.path)
    except SftuiError:
        # Without a network, or with a login that has run out, what is here will do if it is whole.
        here = _files_here(repository, source)
        if here is None:
            if is_offline():
                raise _not_here(source) from None
            raise
        return here
    snapshot = repository / "snapshots" / sha
    cancelled = threading.Event()

    def tell(progress: DownloadProgress) -> None:
        arrived(progress.done_bytes, progress.total_bytes)

    with _watched(stop, cancelled):
        by_name = {file.name: file for file in files}
        card = by_name.get(CARD_NAME)
        if card is not None and card.size_bytes <= _CARD_LIMIT:
            bring(f"{DATASETS}{source.path}", [card], snapshot, cancelled)
        chosen = _choose(source, list(by_name), snapshot)
        bring(f"{DATASETS}{source.path}", [by_name[name] for name in chosen], snapshot, cancelled, tell)
    _remember(repository, sha, files)
    return tuple(snapshot / name for name in chosen)


def _ask(dataset: str) -> tuple[str, tuple[HubFile, ...]]:
    answer, _ = get_json(f"/api/datasets/{dataset}/revision/{_REVISION}", {"blobs": "true"}, f"{DATASETS}{dataset}")
    return understood(lambda: _details(answer))


def _details(answer: dict[str, Any]) -> tuple[str, tuple[HubFile, ...]]:
    sha = answer["sha"]
    if re.fullmatch(r"[0-9a-f]{40}", sha) is None:
        raise ValueError(sha)
    return sha, tuple(hub_file(entry) for entry in answer["siblings"] if _is_wanted(entry["rfilename"]))


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    proper = "\\" not in name and not path.is_absolute() and str(path) == name and ".." not in path.parts
    return proper and (name == CARD_NAME or is_data_file(name))


def _choose(source: Source, names: list[str], snapshot: Path) -> list[str]:
    card = ""
    with suppress(OSError):
        card = (snapshot / CARD_NAME).read_text(encoding="utf-8", errors="replace")
    where = f"“{safe(source.path)}”"
    try:
        return of_one_kind(choose_files(names, card, source, where))
    except SftuiError as error:
        if any(map(is_data_file, names)):
            raise
        message = f"{where} has no file of rows that sftui reads; a script that makes them is never run."
        raise SftuiError("The dataset has no data files", message, "Choose another version of it.") from error


def _files_here(repository: Path, source: Source) -> tuple[Path, ...] | None:
    """The files of the commit that was asked for last, if all of them are here."""
    try:
        sha = (repository / "refs" / _REVISION).read_text(encoding="utf-8").strip()
        snapshot = repository / "snapshots" / sha
        names = _remembered(repository, sha)
        if names is None:
            # Another program brought them.
            names = [str(file.relative_to(snapshot)) for file in snapshot.rglob("*") if file.is_file()]
    except OSError:
        return None
    if not any(map(is_data_file, names)):
        return None
    files = tuple(snapshot / name for name in _choose(source, names, snapshot))
    return files if all(file.is_file() for file in files) else None


def _listing(repository: Path, sha: str) -> Path:
    return cache_home() / "listings" / f"{repository.name}@{sha}.json"


def _remember(repository: Path, sha: str, files: tuple[HubFile, ...]) -> None:
    # A snapshot holds only what was brought; that something is missing is seen by this.
    def write() -> None:
        listing = _listing(repository, sha)
        listing.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(listing, json.dumps([asdict(file) for file in files]))
        name_revision(repository, _REVISION, sha)

    in_words(write)


def _remembered(repository: Path, sha: str) -> list[str] | None:
    try:
        return [file["name"] for file in json.loads(_listing(repository, sha).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _watched(stop: Stop, cancelled: threading.Event) -> Iterator[None]:
    """Set the event when `stop()` is true, also while nothing arrives."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_STOP_SECONDS):
            if stop():
                cancelled.set()

    threading.Thread(target=watch, name="sftui-stop", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _not_here(source: Source) -> SftuiError:
    parts = [f"“{safe(source.path)}”", safe(source.name or ""), f"({safe(source.split)})"]
    return SftuiError(
        "Offline",
        f"HF_HUB_OFFLINE is set, and {' '.join(filter(None, parts))} is not wholly in the cache.",
        "Unset HF_HUB_OFFLINE to download it. If this is a file, its path is wrong.",
    )
