"""Taking a run away, with what that frees."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import SftuiError
from core.runs.folder import RunFolder
from core.text import human_bytes


@dataclass(frozen=True, slots=True)
class Freed:
    """What the parts of a run's folder take on the disk, in bytes."""

    total: int
    checkpoints: int
    checkpoint_count: int
    result: int

    def words(self) -> str:
        """ "frees 123 MB: 3 checkpoints 90 MB, its result 12 MB"."""
        parts = []
        if self.checkpoint_count:
            named = "1 checkpoint" if self.checkpoint_count == 1 else f"{self.checkpoint_count} checkpoints"
            parts.append(f"{named} {human_bytes(self.checkpoints)}")
        if self.result:
            parts.append(f"its result {human_bytes(self.result)}")
        return f"frees {human_bytes(self.total)}" + (f": {', '.join(parts)}" if parts else "")


def size_of(folder: RunFolder) -> Freed:
    """What deleting the run would free; links are counted as nothing, for they are not followed."""
    checkpoints = list(folder.checkpoints.glob("checkpoint-*")) if folder.checkpoints.is_dir() else []
    return Freed(
        total=_bytes(folder.path),
        checkpoints=_bytes(folder.checkpoints),
        checkpoint_count=len(checkpoints),
        result=_bytes(folder.adapter) + _bytes(folder.model),
    )


def delete_run(folder: RunFolder) -> int:
    """Delete the run's folder and return the bytes that this frees. Raises SftuiError while it runs, and OSError."""
    if folder.path.is_symlink():
        raise SftuiError("The run's folder is a link", f"{folder.path} leads to {folder.path.resolve()}.", "Delete it.")
    freed = _bytes(folder.path)
    with folder.locked():
        # Without it the folder is no run: killed in the middle, half a run is not among the runs.
        folder.spec_file.unlink(missing_ok=True)
        shutil.rmtree(folder.path)
    return freed


def _bytes(place: Path) -> int:
    return sum(
        (Path(where) / name).lstat().st_size
        for where, _, names in os.walk(place)
        for name in names
        if not (Path(where) / name).is_symlink()
    )
