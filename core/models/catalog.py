"""Models on this machine: the built-in starter, the Hugging Face cache, folders of one's choice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core import starter
from core.errors import SftuiError
from core.models.checkpoint_files import hub_cache, read_config, read_tensors, resolve_model_folder

Source = Literal["folder", "cache", "starter"]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that needs no download."""

    name: str
    """What goes into `model_name_or_path`: an id, or a path."""
    path: Path
    size_bytes: int
    model_type: str | None
    source: Source
    complete: bool
    problem: str | None = None


def local_models(folders: Sequence[Path] = ()) -> tuple[LocalModel, ...]:
    """Every model found: the starter, then the cache by name, then the folders themselves or what lies in them."""
    found = [_look_at(str(starter.MODEL), starter.MODEL, "starter")]
    found += [_look_at(name, folder, "cache") for name, folder in _cached()]
    for folder in folders:
        inner = [folder] if _is_model(folder) else sorted(_children(folder))
        found += [_look_at(str(path), path, "folder") for path in inner if _is_model(path)]
    return tuple(found)


def _cached() -> Iterator[tuple[str, Path]]:
    for entry in sorted(_children(hub_cache())):
        kind, _, rest = entry.name.partition("--")
        if kind != "models" or not rest:
            continue
        name = rest.replace("--", "/")
        try:
            yield name, resolve_model_folder(name, "main")
        except SftuiError:
            continue


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").exists()
    except OSError:
        return False


def _look_at(name: str, folder: Path, source: Source) -> LocalModel:
    model_type: str | None = None
    problem: str | None = None
    size = 0
    try:
        declared = read_config(folder).get("model_type")
        model_type = declared if isinstance(declared, str) else None
        size = sum(tensor.byte_count for tensor in read_tensors(folder))
    except SftuiError as error:
        problem = f"{error.title}: {error.message}"
    return LocalModel(name, folder, size, model_type, source, problem is None, problem)
