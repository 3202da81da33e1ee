"""Writing a folder or a file beside its place, and putting it there when it is whole."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.checkpoints import flush
from core.text import human_bytes, safe

MARK = "sftui-export.json"
"""In every export: what it is. Only a folder that has it is ever replaced."""
_MARGIN_BYTES = 16 << 20


@contextmanager
def written_beside(
    target: Path, needed: int, told: Mapping[str, object], *, force: bool, file: str = ""
) -> Iterator[Path]:
    """A folder to write to, NAME.partial; afterwards it, or only `file` of it, is at the target.

    What an attempt that failed has left in it is there again if it was for the same (`told`). Raises SftuiError where
    something is there already, where there is not enough room for `needed` bytes, and where nothing can be written.
    """
    try:
        refuse_existing(target, force=force, is_file=bool(file))
        beside = target.with_name(f"{target.name}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        _make(beside, told)
        with _alone_in(beside):
            _refuse_lack_of_room(beside, needed)
            yield beside
            flush(beside)
            _put(beside / file if file else beside, target)
            if file:
                shutil.rmtree(beside)
    except OSError as error:
        raise SftuiError(
            "The export cannot be written",
            f"{safe(str(error.filename or target))}: {error.strerror or error}.",
            "Make room there, or choose another place.",
        ) from error


def refuse_existing(target: Path, *, force: bool, is_file: bool) -> None:
    """Raise SftuiError where something is at the target that may not be replaced."""
    name = safe(str(target))
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not is_file and not target.is_symlink() and not any(target.iterdir()):
        return
    if not force:
        hint = "Choose another name, or replace it: --force"
        raise SftuiError("Something is there already", f"{name} exists.", hint)
    ours = (target.is_file() and is_file) or (target.is_dir() and not is_file and (target / MARK).is_file())
    if target.is_symlink() or not ours:
        # A slip of the hand must not take away a home.
        what = "no file" if is_file else f"no export: it has no {MARK}"
        raise SftuiError("It is not replaced", f"{name} is {what}.", "Choose another place, or remove it yourself.")


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _make(beside: Path, told: Mapping[str, object]) -> None:
    mark = json.dumps(told, indent=1)
    if beside.is_symlink() or (beside.exists() and not (beside / MARK).is_file() and any(beside.iterdir())):
        message = f"{safe(str(beside))} is in the way, and is not ours."
        raise SftuiError("Something is there already", message, "Move it away.")
    if beside.exists() and (beside / MARK).is_file() and (beside / MARK).read_text(encoding="utf-8") != mark:
        with _alone_in(beside):
            shutil.rmtree(beside)
    beside.mkdir(exist_ok=True)
    if not (beside / MARK).is_file():
        write_atomically(beside / MARK, mark)


@contextmanager
def _alone_in(beside: Path) -> Iterator[None]:
    descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        message = f"{safe(str(beside))} is being written by another export."
        raise SftuiError("It is being exported already", message, "Wait for it, or choose another place.") from error
    finally:
        os.close(descriptor)


def _refuse_lack_of_room(beside: Path, needed: int) -> None:
    missing = max(0, needed - size_of(beside)) + _MARGIN_BYTES
    free = shutil.disk_usage(beside).free
    if free < missing:
        raise SftuiError(
            "There is not enough room",
            f"{missing:,} bytes ({human_bytes(missing)}) are needed at {safe(str(beside.parent))}, and "
            f"{human_bytes(free)} are free.",
            "Make room, or choose a place on another disk.",
        )


def _put(made: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        # An empty folder goes too: a folder cannot be renamed onto one of another owner's making.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(old)
        target.rename(old)
    made.rename(target)
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)
