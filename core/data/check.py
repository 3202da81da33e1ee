"""One pass over a dataset: every row is read, checked and counted, and the good ones are indexed. Constant memory."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from core.data.facts import DataFacts, Progress
from core.data.readers import read_rows
from core.data.request import CheckRequest, files_request
from core.data.row_pass import RowPass
from core.data.row_store import RowStore, StoredFile
from core.data.sources import SourceFiles, find_files
from core.errors import SftuiError
from core.models.blobs import DownloadCancelledError
from core.paths import cache_home
from core.version import version

# Of what is kept, beside the version of sftui: raise it when reading, mapping or the store change what is in it.
_FORMAT = 2
_FACTS_NAME = "facts.json"
_LOCK_NAME = "pass.lock"
_REPORT_SECONDS = 0.1
_KEPT_SECONDS = 30 * 24 * 3600.0

Tell = Callable[[Progress], None]
Stop = Callable[[], bool]


class StoppedError(Exception):
    """The pass was stopped before its end; nothing is left of it."""


def check(request: CheckRequest, progress: Tell = lambda _: None, stop: Stop = lambda: False) -> DataFacts:
    """What the request's rows are. Unchanged files that were read once are not read again.

    Bad rows are counted and told, never raised. Raises SftuiError for sources that cannot be read; StoppedError soon
    after `stop()` is true.
    """
    sources, files, folder = _find(request, progress, stop)
    facts = _read(folder)
    if facts is None:
        with _folder_beside(folder) as made:
            _run_pass(made, request, sources, files, progress, stop)
        facts = _read(folder)
        if facts is None:
            changed = [file.path for group in files for file in group if StoredFile.of(file.path) != file]
            message = f"{changed[0] if changed else folder} changed while the data was read."
            raise SftuiError("The data has changed", message, "Wait until it is written, then have it read again.")
        _clear_away(folder.parent)
    return facts


def kept_facts(request: CheckRequest, progress: Tell, stop: Stop) -> DataFacts | None:
    """What an earlier pass over the same files found; None if there was none. Raises as `check` does."""
    return _read(_find(request, progress, stop)[2])


def read_facts(files: Sequence[Path]) -> DataFacts:
    """What the rows of local files are. Raises SftuiError for a file that cannot be read."""
    return check(files_request(*files))


def _find(
    request: CheckRequest, progress: Tell, stop: Stop
) -> tuple[Sequence[SourceFiles], list[list[StoredFile]], Path]:
    """Each source with its files as they are now, and where what is found in them is kept."""
    began = time.monotonic()

    def arrived(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        progress(Progress(done, total, 0, 0, rate, downloading=True))

    try:
        sources = find_files(request, arrived, stop)
    except DownloadCancelledError:
        raise StoppedError from None
    files = [[StoredFile.of(file) for file in source.files] for source in sources]
    return sources, files, cache_home() / "data" / _key(request, sources, files)


def _run_pass(
    folder: Path,
    request: CheckRequest,
    sources: Sequence[SourceFiles],
    files: Sequence[Sequence[StoredFile]],
    progress: Tell,
    stop: Stop,
) -> None:
    total = sum(file.size for group in files for file in group)
    began = told = time.monotonic()
    before = here = 0

    def at(position: int) -> None:
        nonlocal here
        here = position

    def look_up() -> bool:
        nonlocal told
        now = time.monotonic()
        if now - told >= _REPORT_SECONDS:
            told = now
            done = min(before + here, total)
            progress(Progress(done, total, rows.good, rows.problems, done / (now - began)))
        return stop()

    with RowPass(folder, request.columns) as rows:
        for source, group in zip(sources, files, strict=True):
            rows.begin(source, group)
            for number, file in enumerate(group):
                here = 0
                for row in read_rows(file.path, look_up, at):
                    rows.take(row, number)
                    if rows.hopeless:
                        break
                if stop():
                    raise StoppedError
                before += file.size
            rows.end()
        facts = rows.finish()
    (folder / _FACTS_NAME).write_text(json.dumps(facts.to_json()))
    taken = time.monotonic() - began
    progress(Progress(total, total, facts.rows, rows.problems, total / max(taken, 1e-9)))


def _key(request: CheckRequest, sources: Sequence[SourceFiles], files: Sequence[Sequence[StoredFile]]) -> str:
    parts = [
        [
            source.label,
            source.source.columns,
            source.source.fraction,
            [[str(f.path), f.size, f.mtime_ns] for f in group],
        ]
        for source, group in zip(sources, files, strict=True)
    ]
    return hashlib.sha256(json.dumps([_FORMAT, version(), request.columns, parts]).encode()).hexdigest()[:32]


def _read(folder: Path) -> DataFacts | None:
    try:
        facts = DataFacts.from_json(json.loads((folder / _FACTS_NAME).read_bytes()))
        RowStore.open(folder).close()
        # Used just now: not to be cleared away.
        os.utime(folder / _FACTS_NAME)
    except (OSError, ValueError, KeyError, TypeError, SftuiError):
        return None
    report = folder / "problems.jsonl"
    return replace(facts, report=report if report.exists() else None, store=folder if facts.rows else None)


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A folder to be filled that takes the name when it is whole; whoever dies before leaves it to `_clear_away`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone_in(folder.parent):
            made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            lock = (made / _LOCK_NAME).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise _no_room(folder.parent, error) from error
    try:
        yield made
        with _alone_in(folder.parent):
            # Another pass over the same files may have been faster, and its rows be read already.
            if _read(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
    except OSError as error:
        raise _no_room(made, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        lock.close()


def _clear_away(home: Path) -> None:
    """Remove what dead passes left, and what nobody has used for a month."""
    with contextlib.suppress(OSError), _alone_in(home):
        for entry in home.iterdir():
            with contextlib.suppress(OSError):
                if entry.name.startswith("."):
                    with (entry / _LOCK_NAME).open("rb") as lock:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(entry, ignore_errors=True)
                elif time.time() - (entry / _FACTS_NAME).stat().st_mtime > _KEPT_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _alone_in(home: Path) -> Iterator[None]:
    # A folder that was made but is not locked yet must not look like that of a dead pass.
    with home.with_name(f"{home.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _no_room(folder: Path, error: OSError) -> SftuiError:
    return SftuiError(
        "The dataset's index cannot be written",
        f"{folder}: {error.strerror or error}.",
        "Make room there, or set XDG_CACHE_HOME to another disk.",
    )
