"""Models on this machine: the built-in starter, the Hugging Face cache, folders of one's choice."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from core import starter
from core.errors import SftuiError
from core.models.checkpoint_files import hub_cache, read_config, read_json_object, read_tensors, resolve_model_folder
from core.text import human_bytes, safe

Source = Literal["folder", "cache", "starter"]

_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
_DATA_END = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d+)')
# These are opened for every list that is shown, which says nothing about the model's use.
_LOOKED_INTO = ("config.json", _INDEX, ".safetensors")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that needs no download, or a part of one."""

    name: str
    """What goes into `model_name_or_path`: an id, or a path."""
    path: Path
    size_bytes: int
    """Of its weights."""
    model_type: str | None
    source: Source
    complete: bool
    problem: str | None = None
    last_used: float | None = None
    """When one of its files was last read, in seconds since 1970: by the file system, which keeps it to the day."""
    last_modified: float | None = None
    """When the newest of its files was written, in seconds since 1970."""
    disk_bytes: int = 0
    """What its folder takes: in the cache, all revisions and what is there of a broken download."""
    revisions: tuple[str, ...] = ()
    """In the cache, the names of the revisions that are here: "main", tags, or commits without a name."""


def local_models(folders: Sequence[Path] = ()) -> tuple[LocalModel, ...]:
    """Every model found: the starter, then the cache by name, then the folders themselves or what lies in them."""
    return tuple(find_models(folders))


def find_models(folders: Sequence[Path] = ()) -> Iterator[LocalModel]:
    """Yield the same one by one, each path once: a large cache on a slow disk takes seconds."""
    yield _look_at(str(starter.MODEL), starter.MODEL, "starter")
    yield from _cached()
    yield from models_in(folders)


def models_in(folders: Sequence[Path]) -> Iterator[LocalModel]:
    """Yield the folders that are models, and the models that lie right in the others."""
    seen: set[Path] = set()
    for folder in folders:
        inner = [folder] if _is_model(folder) else sorted(_children(folder))
        for path in inner:
            if path not in seen and _is_model(path):
                seen.add(path)
                yield _look_at(str(path), path, "folder")


def _cached() -> Iterator[LocalModel]:
    for entry in sorted(_children(hub_cache())):
        kind, _, rest = entry.name.partition("--")
        if kind != "models" or not rest:
            continue
        try:
            model = _cached_model(rest.replace("--", "/"), entry)
        except OSError:
            # Somebody else's, or deleted while it was looked at.
            continue
        if model is not None:
            yield model


def _cached_model(name: str, repository: Path) -> LocalModel | None:
    """A repository of the cache; None when nothing of a model is in it."""
    blobs = _stats(repository / "blobs")
    unfinished = sum(stat.st_size for blob, stat in blobs.items() if blob.endswith(".incomplete"))
    commits = {path.name: path for path in _children(repository / "snapshots")}
    names = _revision_names(repository / "refs")
    try:
        folder = resolve_model_folder(name, "main")
    except (SftuiError, ValueError):
        if not commits and not blobs:
            return None
        folder = max(commits.values(), key=lambda path: path.stat().st_mtime, default=repository)
        model = replace(_look_at(name, folder, "cache"), complete=False)
        if model.problem is None:
            here = ", ".join(names.get(commit, commit) for commit in commits)
            model = replace(model, problem=f"Of its revisions main is not here, only: {safe(here)}")
    else:
        model = _look_at(name, folder, "cache")
    if model.problem is not None and unfinished:
        model = replace(
            model,
            problem=f"The download is not finished: {human_bytes(unfinished)} are here of files that are not whole. "
            "Start it again to go on.",
        )
    return replace(
        model,
        disk_bytes=sum(stat.st_size for stat in blobs.values()) or model.disk_bytes,
        revisions=tuple(sorted(names.get(commit, commit) for commit in commits)),
    )


def _revision_names(refs: Path) -> dict[str, str]:
    """By commit, the branch or tag that stands for it."""
    names: dict[str, str] = {}
    for folder, _, files in os.walk(refs):
        for file in files:
            path = Path(folder, file)
            try:
                names[path.read_text(encoding="utf-8").strip()] = path.relative_to(refs).as_posix()
            except (OSError, ValueError):
                continue
    return names


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _stats(folder: Path) -> dict[str, os.stat_result]:
    """The files right in a folder, links followed; empty when it cannot be read."""
    found: dict[str, os.stat_result] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        found[entry.name] = entry.stat()
                except OSError:
                    continue
    except OSError:
        pass
    return found


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").exists()
    except OSError:
        return False


def _look_at(name: str, folder: Path, source: Source) -> LocalModel:
    model_type: str | None = None
    problem: str | None = None
    size = 0
    files = _stats(folder)
    try:
        declared = read_config(folder).get("model_type")
        model_type = declared if isinstance(declared, str) else None
        size = _whole_weights(folder, files) or sum(tensor.byte_count for tensor in read_tensors(folder))
    except SftuiError as error:
        problem = f"{error.title}: {error.message}"
    except OSError as error:
        problem = f"It cannot be read: {error.strerror}."
    return LocalModel(
        name,
        folder,
        size,
        model_type,
        source,
        problem is None,
        problem,
        last_used=_newest(stat.st_atime for file, stat in files.items() if not file.endswith(_LOOKED_INTO)),
        last_modified=_newest(stat.st_mtime for stat in files.values()),
        disk_bytes=sum(stat.st_size for stat in files.values()),
    )


def _whole_weights(folder: Path, files: Mapping[str, os.stat_result]) -> int:
    """Bytes of the weights, if all files of them are here and as long as their headers say; else 0.

    The tensors themselves are not looked at: a mixture of experts has 20,000, and a list is shown of many models.
    """
    names = {"model.safetensors"}
    if not names <= files.keys():
        if _INDEX not in files:
            return 0
        weight_map = read_json_object(folder / _INDEX, "The index of the weights cannot be read").get("weight_map")
        shards = weight_map.values() if isinstance(weight_map, dict) else ()
        names = {shard for shard in shards if isinstance(shard, str)}
    sizes = [_whole_file(folder / name, files[name].st_size) for name in names if name in files]
    return sum(sizes) if len(sizes) == len(names) and all(sizes) else 0


def _whole_file(path: Path, size: int) -> int:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 8 + length <= size and length <= _LONGEST_HEADER else b""
    end = max(map(int, _DATA_END.findall(header)), default=0)
    return end if 8 + length + end <= size else 0


def _newest(times: Iterable[float]) -> float | None:
    return max(times, default=None)
