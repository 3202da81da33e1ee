"""Which files the entries of `datasets` stand for."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.data.readers import DATA_SUFFIXES, PACKED_SUFFIXES
from core.data.request import CheckRequest, Source
from core.errors import SftuiError
from core.paths import expand, matching

READERS = ("json", "csv", "parquet", "arrow", "text")
"""What TRL and `datasets` take as a path for files named beside it."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Beside the rows, not among them.
_NO_DATA = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of one source, in the order in which they are read."""

    source: Source
    label: str
    files: tuple[Path, ...]


def find_files(
    request: CheckRequest,
    arrived: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> tuple[SourceFiles, ...]:
    """The files of each source; those of the hub are brought into its cache first, `arrived` counting bytes.

    Raises SftuiError for a source that names none. Ends early, with what it has, once `stop()` is true.
    """
    found = []
    for source in request.sources:
        files = _local_files(source)
        if files is None:
            # Heavy: only for the processes that may.
            from core.data.hub_dataset import bring_files

            files = bring_files(source, arrived, stop)
        found.append(SourceFiles(source, _label(source), files))
    return tuple(found)


def is_on_hub(source: Source) -> bool:
    """Whether a source is no local path but looks like the id of a dataset on the hub."""
    path = expand(source.path)
    is_data = _data_suffix(path) in DATA_SUFFIXES
    return bool(_HUB_ID.fullmatch(source.path)) and not is_data and not path.exists()


def choose_split(names: Sequence[str], split: str) -> list[str]:
    """The names, relative to their folder, that belong to a split; empty if there are none.

    A split is named by a folder or by a part of the file's name; files without any are for training.
    """
    own = [name for name in names if split in _splits_of(name, split)]
    if own or split != "train":
        return own
    return [name for name in names if not _splits_of(name, split)]


def _local_files(source: Source) -> tuple[Path, ...] | None:
    path = expand(source.path)
    if source.path in READERS and (source.data_files is not None or source.data_dir is not None):
        return _files_in(Path(), source, source.data_dir)
    if path.is_dir():
        return _files_in(path, source, source.data_dir)
    if path.exists():
        if source.split != "train":
            message = f"{path} has no split `{source.split}`: a file has none."
            raise SftuiError("No such split", message, "Leave `split` out, or name the file of that split.")
        return (path,)
    if any(sign in source.path for sign in "*?["):
        return _of_pattern(path, source.path)
    if is_on_hub(source):
        return None
    raise SftuiError("No such data file", f"{path} does not exist.", "Give the path of a file here.")


def _files_in(base: Path, source: Source, folder: str | None) -> tuple[Path, ...]:
    if source.data_files is not None:
        return tuple(file for name in source.data_files for file in _named(base, name))
    folder_path = base / expand(folder) if folder else base
    if not folder_path.is_dir():
        raise SftuiError("No such folder of data", f"{folder_path} does not exist.", "Give the path of a folder here.")
    files = {str(file.relative_to(folder_path)): file for file in _data_files(folder_path)}
    if not files:
        kinds = ", ".join(suffix for suffix in DATA_SUFFIXES if suffix != ".txt")
        raise SftuiError(
            "The folder holds no data", f"{folder_path} has no file that ends in {kinds}.", "Name another."
        )
    chosen = choose_split(list(files), source.split)
    if not chosen:
        names = ", ".join(list(files)[:5]) + (" …" if len(files) > 5 else "")
        message = f"No file in {folder_path} is of the split `{source.split}`: {names}."
        raise SftuiError("No such split", message, "Name another `split`, or the files in data_files.")
    return tuple(files[name] for name in chosen)


def _named(base: Path, name: str) -> tuple[Path, ...]:
    # As they stand, or in the source's folder.
    path = expand(name)
    inside = base / path
    for candidate in dict.fromkeys((inside, path)):
        if candidate.is_file():
            return (candidate,)
        if candidate.is_dir():
            return tuple(_data_files(candidate))
    if any(sign in name for sign in "*?["):
        return _of_pattern(inside, name)
    raise SftuiError("No such data file", f"{inside} does not exist.", "Give the path of a file here.")


def _of_pattern(path: Path, pattern: str) -> tuple[Path, ...]:
    found = list(matching(path))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not files:
        folders = sorted(folder for folder in found if folder.is_dir())
        files = [file for folder in folders for file in _data_files(folder)]
    if not files:
        raise SftuiError("No such data file", f"No file matches {pattern}.", "Try the pattern with `ls`.")
    return tuple(files)


def _data_files(folder: Path) -> list[Path]:
    files = [file for file in sorted(_walk(folder)) if is_data_file(file.name)]
    # Notes and licences are texts too.
    return [file for file in files if _data_suffix(file) != ".txt"] or files


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            if not entry.is_symlink():
                yield from _walk(entry)
        elif entry.is_file():
            yield entry


def is_data_file(name: str) -> bool:
    """Whether a file of this name may hold rows."""
    return name.lower() not in _NO_DATA and _data_suffix(Path(name)) in DATA_SUFFIXES


def _data_suffix(file: Path) -> str:
    name = file.name.lower()
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def _splits_of(name: str, wanted: str) -> set[str]:
    words = set(re.findall("[a-z]+", name.lower()))
    found = {split for split, known in _SPLIT_WORDS.items() if words & set(known)}
    if wanted not in _SPLIT_WORDS and re.search(
        rf"(^|[^a-z0-9]){re.escape(wanted.lower())}([^a-z0-9]|$)", name.lower()
    ):
        found.add(wanted)
    return found


def _label(source: Source) -> str:
    files = source.data_files or ()
    parts = [source.path if source.path not in READERS or not files else "", source.name or "", source.data_dir or ""]
    parts += [", ".join(files[:3]) + (" …" if len(files) > 3 else "")]
    split = "" if source.split == "train" else f" ({source.split})"
    return " ".join(filter(None, parts)) + split
