"""Checkpoints that are whole: a manifest with the size and hash of every file, written last."""

import hashlib
import json
import os
from pathlib import Path

from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.folder import RunFolder

MANIFEST = "committed.json"


def commit(checkpoint: Path) -> int:
    """Flush every file of a checkpoint to the disk, then write its manifest. Returns the bytes it takes."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {str(path.relative_to(checkpoint)): _flush_and_hash(path) for path in files}
    for folder in (checkpoint, *(path for path in checkpoint.rglob("*") if path.is_dir())):
        _flush_folder(folder)
    write_atomically(checkpoint / MANIFEST, json.dumps({"files": manifest}, indent=1))
    return sum(int(entry["size"]) for entry in manifest.values())


def is_committed(checkpoint: Path) -> bool:
    """Whether the manifest is there and every file it names has its size."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all((checkpoint / name).stat().st_size == entry["size"] for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def committed_checkpoints(folder: RunFolder) -> tuple[Path, ...]:
    """The whole checkpoints of a run, by step."""
    found = [path for path in folder.checkpoints.glob("checkpoint-*") if is_committed(path)]
    return tuple(sorted(found, key=step_of))


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """The last whole checkpoint, its files hashed again; None without one.

    Raises SftuiError that names the file whose content is not what was committed.
    """
    checkpoints = committed_checkpoints(folder)
    if not checkpoints:
        return None
    newest = checkpoints[-1]
    files = json.loads((newest / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name, entry in files.items():
        if _hash(newest / name) != entry["sha256"]:
            raise SftuiError(
                "The checkpoint is damaged",
                f"{newest / name} is not as it was written.",
                f"Delete {newest} to go on from the checkpoint before it, or from the beginning.",
            )
    return newest


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 for a name without one."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _flush_and_hash(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        size = os.fstat(file.fileno()).st_size
    return {"size": size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
