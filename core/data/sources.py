"""Which files the entries of `datasets` stand for."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from core.data.readers import DATA_SUFFIXES
from core.data.request import CheckRequest, Source
from core.data.splits import CARD_NAME, choose_files, data_suffix, first_rows, split_name, without_notes
from core.errors import SftuiError
from core.paths import expand, matching

READERS = ("json", "csv", "parquet", "arrow", "text")
"""What TRL and `datasets` take as a path for files named beside it."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of one source, in the order in which they are read."""

    source: Source
    label: str
    files: tuple[Path, ...]


def find_files(
    request: CheckRequest, arrived: Callable[[int, int], None], stop: Callable[[], bool]
) -> tuple[SourceFiles, ...]:
    """The files of each source; those of the hub are brought into its cache first, `arrived` counting bytes.

    Raises SftuiError for a source that names none; DownloadCancelledError soon after `stop()` is true.
    """
    found = []
    for source in request.sources:
        # What is wrong with it is said before a large file is read for nothing.
        first_rows(source.split, 0)
        files = _local_files(source)
        if files is None:
            from core.data.hub_dataset import bring_files

            files = bring_files(source, arrived, stop)
        found.append(SourceFiles(source, label_of(source), files))
    return tuple(found)


def is_on_hub(source: Source) -> bool:
    """Whether a source is no local path but looks like the id of a dataset on the hub."""
    is_data = data_suffix(source.path) in DATA_SUFFIXES
    return bool(_HUB_ID.fullmatch(source.path)) and not is_data and not expand(source.path).exists()


def label_of(source: Source) -> str:
    """A source as the user named it, in a few words."""
    files = source.data_files or ()
    parts = [source.path if source.path not in READERS or not files else "", source.name or "", source.data_dir or ""]
    parts += [", ".join(files[:3]) + (" …" if len(files) > 3 else "")]
    split = "" if source.split == "train" else f" ({source.split})"
    return " ".join(filter(None, parts)) + split


def _local_files(source: Source) -> tuple[Path, ...] | None:
    path = expand(source.path)
    if source.path in READERS and (source.data_files is not None or source.data_dir is not None):
        path, source = expand(source.data_dir or ""), replace(source, data_dir=None)
    elif not path.exists():
        if any(sign in source.path for sign in "*?["):
            return _of_pattern(path, source.path)
        if is_on_hub(source):
            return None
        raise _missing(path)
    if path.is_dir():
        if source.data_files is not None:
            base = path / (source.data_dir or "")
            return tuple(file for name in source.data_files for file in _named(base, name))
        return _in_folder(path, source)
    if not path.exists():
        raise _missing(path)
    if split_name(source.split) != "train":
        message = f"{path} has no split `{split_name(source.split)}`: a file has none."
        raise SftuiError("No such split", message, "Leave `split` out, or name the file of that split.")
    return (path,)


def _in_folder(folder: Path, source: Source) -> tuple[Path, ...]:
    try:
        card = (folder / CARD_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        card = ""
    names = [file.relative_to(folder).as_posix() for file in _walk(folder)]
    return tuple(folder / name for name in choose_files(names, card, source, str(folder)))


def _named(base: Path, name: str) -> tuple[Path, ...]:
    # In the source's folder, or as they stand.
    for candidate in dict.fromkeys((base / expand(name), expand(name))):
        if candidate.is_dir():
            return _all_in(candidate)
        if candidate.exists():
            return (candidate,)
    if any(sign in name for sign in "*?["):
        return _of_pattern(base / expand(name), name)
    raise _missing(base / expand(name))


def _of_pattern(path: Path, pattern: str) -> tuple[Path, ...]:
    found = sorted(matching(path))
    files = [file for file in found if file.is_file() and not file.name.startswith(".")]
    if not files:
        files = [file for folder in found if folder.is_dir() for file in _all_in(folder)]
    if not files:
        raise SftuiError("No such data file", f"No file matches {pattern}.", "Try the pattern with `ls`.")
    return tuple(files)


def _all_in(folder: Path) -> tuple[Path, ...]:
    names = sorted(file.relative_to(folder).as_posix() for file in _walk(folder))
    return tuple(folder / name for name in without_notes(names))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise SftuiError("The folder cannot be read", f"{folder}: {error.strerror}.") from error
    for entry in entries:
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            # A link may lead in a circle.
            if not entry.is_symlink():
                yield from _walk(entry)
        elif entry.is_file():
            yield entry


def _missing(path: Path) -> SftuiError:
    return SftuiError("No such data file", f"{path} does not exist.", "Give the path of a file here.")
