"""Where sftui keeps its files (XDG base directories), and how it writes one wholly or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NAME = "sftui"


def data_home() -> Path:
    """Return the folder for runs and models: $XDG_DATA_HOME/sftui, by default ~/.local/share/sftui."""
    return _xdg("XDG_DATA_HOME", ".local/share") / _NAME


def runs_home() -> Path:
    """Return the folder that holds one folder for each run."""
    return data_home() / "runs"


def config_home() -> Path:
    """Return the folder for settings: $XDG_CONFIG_HOME/sftui, by default ~/.config/sftui."""
    return _xdg("XDG_CONFIG_HOME", ".config") / _NAME


def state_home() -> Path:
    """Return the folder for logs and history: $XDG_STATE_HOME/sftui, by default ~/.local/state/sftui."""
    return _xdg("XDG_STATE_HOME", ".local/state") / _NAME


def cache_home() -> Path:
    """Return the folder for what can be made again: $XDG_CACHE_HOME/sftui, by default ~/.cache/sftui."""
    return _xdg("XDG_CACHE_HOME", ".cache") / _NAME


def ends_with_newline(file: Path) -> bool:
    """Whether a file of lines ends with a whole one; an empty one does. Raises OSError."""
    with file.open("rb") as written:
        if written.seek(0, os.SEEK_END) == 0:
            return True
        written.seek(-1, os.SEEK_END)
        return written.read(1) == b"\n"


def expand(name: str | Path) -> Path:
    """Return the path with a leading ~ replaced; that of a user who does not exist stays as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def matching(pattern: str | Path) -> Iterator[Path]:
    """The files and folders that a pattern with * ? [] or ** stands for, in no order; none for a name without them."""
    path = expand(pattern)
    if any(sign in str(path) for sign in "*?["):
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            yield from Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def open_log(path: Path) -> BinaryIO:
    """Open a log to write at its end, mode 0600. The folder must exist. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def _xdg(variable: str, default: str) -> Path:
    # The XDG specification: a relative path is invalid and is to be ignored.
    value = Path(os.environ.get(variable, ""))
    return value if value.is_absolute() else Path.home() / default


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` (text as UTF-8), mode 0600, wholly and durably or not at all.

    The folder must exist. Raises OSError; then `path` is as it was before.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    # mkstemp creates with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
