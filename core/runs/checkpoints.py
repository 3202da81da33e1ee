"""Checkpoints that are whole or not there: written beside, flushed, described by a manifest, then put in place."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.folder import RunFolder
from core.text import safe

MANIFEST = "committed.json"
_BESIDE = ".partial"


class DamagedCheckpointError(SftuiError):
    """The checkpoint to go on from is damaged; `good_step` is that of the next older whole one, 0 without any."""

    def __init__(self, title: str, message: str, hint: str, good_step: int) -> None:
        super().__init__(title, message, hint)
        self.good_step = good_step


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a committed checkpoint that is not what was committed."""

    checkpoint: Path
    file: str
    what: str
    """"is missing", "is 5 bytes long instead of 9", …"""

    def __str__(self) -> str:
        return f"{self.checkpoint / self.file} {self.what}"


def staging(folder: RunFolder) -> Path:
    """The place beside the checkpoints where one is written; nothing that lies there counts."""
    return folder.checkpoints / _BESIDE


def place_of(folder: RunFolder, step: int) -> Path:
    """Where the checkpoint of a step stands once it is whole."""
    return folder.checkpoints / f"checkpoint-{step}"


def commit(written: Path, place: Path) -> int:
    """Make a checkpoint that was written beside count, at its place. Returns the bytes it takes.

    Every file is flushed to the disk before the manifest names it, and the manifest before the folder gets its name. A
    checkpoint that is at the place already is kept if it counts: it is of the same step.
    """
    if is_committed(place):
        shutil.rmtree(written)
        return _size(place)
    flush(written)
    files = sorted(path for path in written.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {str(path.relative_to(written)): {"size": path.stat().st_size, "sha256": _hash(path)} for path in files}
    write_atomically(written / MANIFEST, json.dumps({"files": manifest}, indent=1))
    if place.exists():
        # Half a checkpoint of somebody else's making: a folder cannot be renamed onto it.
        shutil.rmtree(place)
    written.rename(place)
    _flush_folder(place.parent)
    return _size(place)


def flush(folder: Path) -> None:
    """Bring every file of a folder, and the folders themselves, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _flush_folder(inner)


def sweep(folder: RunFolder) -> None:
    """Take away what a runner that was killed left half written or half deleted."""
    shutil.rmtree(staging(folder), ignore_errors=True)


def discard_after(folder: RunFolder, step: int) -> tuple[Path, ...]:
    """Delete what is of later steps than `step`, from which the run makes them anew. Returns what is gone."""
    later = tuple(path for path in folder.checkpoints.glob("checkpoint-*") if step_of(path) > step)
    for path in later:
        _delete(folder, path)
    return later


def rotate(folder: RunFolder, keep: int | None, best_step: int | None) -> tuple[Path, ...]:
    """Delete the oldest checkpoints until `keep` are left (None: all stay), and the best one besides them.

    Returns those that are gone.
    """
    checkpoints = committed_checkpoints(folder)
    surplus = checkpoints[: max(0, len(checkpoints) - keep)] if keep is not None else ()
    gone = tuple(path for path in surplus if step_of(path) != best_step)
    for path in gone:
        _delete(folder, path)
    return gone


def is_committed(checkpoint: Path) -> bool:
    """Whether the manifest is there and every file it names has its size."""
    try:
        files = _manifest(checkpoint)
        return bool(files) and all((checkpoint / name).stat().st_size == entry["size"] for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def committed_checkpoints(folder: RunFolder) -> tuple[Path, ...]:
    """The whole checkpoints of a run, by step."""
    found = [path for path in folder.checkpoints.glob("checkpoint-*") if is_committed(path)]
    return tuple(sorted(found, key=step_of))


def size_of_last(folder: RunFolder) -> int | None:
    """The bytes that the newest checkpoint takes: what the next one will take too. None before the first."""
    checkpoints = committed_checkpoints(folder)
    return _size(checkpoints[-1]) if checkpoints else None


def find_damage(checkpoint: Path) -> Damage | None:
    """The first file of a checkpoint that is not what was committed; all of them are hashed. None if it is good.

    This finds damage. It proves nothing of a folder from elsewhere, whose maker could write any manifest: that no
    pickle in it runs is seen to where files are loaded.
    """
    try:
        files = _manifest(checkpoint)
        for name, entry in files.items():
            path = checkpoint / name
            if ".." in path.parts or Path(name).is_absolute() or (path.exists() and not path.is_file()):
                return Damage(checkpoint, MANIFEST, f"names {safe(name)}, which is no file of its own")
            if not path.exists():
                return Damage(checkpoint, name, "is missing")
            if (size := path.stat().st_size) != entry["size"]:
                return Damage(checkpoint, name, f"is {size:,} bytes long instead of {entry['size']:,}")
            if _hash(path) != entry["sha256"]:
                return Damage(checkpoint, name, "is not as it was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Damage(checkpoint, MANIFEST, "cannot be read")
    return None


def checkpoint_to_resume(folder: RunFolder, step: int | None = None) -> Path | None:
    """The checkpoint that a run goes on from: the newest, or that of `step`; None without any, or for step 0.

    Raises DamagedCheckpointError that names the damaged file and offers the next older checkpoint that is good;
    SftuiError if there is no checkpoint of the step. Half checkpoints were never committed, and are passed over.
    """
    steps = {step_of(path): path for path in folder.checkpoints.glob("checkpoint-*") if (path / MANIFEST).exists()}
    if step == 0:
        return None
    if step is not None and step not in steps:
        there = ", ".join(str(number) for number in sorted(steps)) or "none"
        raise SftuiError("No such checkpoint", f"{folder.id} has none of step {step}; it has {there}.")
    if not steps:
        return None
    chosen = steps[max(steps) if step is None else step]
    damage = find_damage(chosen)
    if damage is None:
        return chosen
    older = [path for number, path in sorted(steps.items(), reverse=True) if number < step_of(chosen)]
    good = next((step_of(path) for path in older if find_damage(path) is None), 0)
    words = f"goes on from step {good:,}, the newest that is whole" if good else "begins anew: no other one is whole"
    hint = f"`sftui resume {folder.id} --from {good}` {words}."
    raise DamagedCheckpointError("The checkpoint is damaged", f"{damage}.", hint, good)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 for a name without one."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _delete(folder: RunFolder, checkpoint: Path) -> None:
    # Killed in the middle of deleting, it must not look like a checkpoint that lost its files.
    aside = staging(folder) / f"{checkpoint.name}.old"
    aside.parent.mkdir(exist_ok=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _manifest(checkpoint: Path) -> dict[str, dict[str, int | str]]:
    files: dict[str, dict[str, int | str]] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
    return files


def _size(checkpoint: Path) -> int:
    return sum(int(entry["size"]) for entry in _manifest(checkpoint).values())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
