"""Exports that go on by themselves: each one writes its lines to a file, from which anybody can tell how far it is."""

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import SftuiError
from core.paths import open_log, state_home
from core.results.exporting import Exported, ExportProgress, ExportRequest, start_export, told
from core.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class ExportState:
    """How an export is doing."""

    request: ExportRequest
    steps: tuple[ExportProgress, ...]
    """Each step once, as far as it came; the last one is under way while nothing came of it."""
    outcome: Exported | SftuiError | None
    alive: bool


def start_in_background(run: RunFolder, request: ExportRequest) -> Path:
    """Start an export that nobody waits for, and return the file of its lines. Raises OSError."""
    folder = state_home() / "exports"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{run.id}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"
    with open_log(path) as log:
        # Whoever inherits the file holds the lock too: it is held for as long as the process lives.
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log.write(json.dumps({"request": asdict(request)}).encode() + b"\n")
        log.flush()
        process = start_export(run, request, log)
        log.write(json.dumps({"pid": process.pid}).encode() + b"\n")
    return path


def newest(run: RunFolder) -> Path | None:
    """The file of the last export of a run; None if there was none."""
    found = sorted((state_home() / "exports").glob(f"{run.id}-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else None


def read_export(path: Path) -> ExportState | None:
    """How an export is doing; None where the file is gone or is none."""
    # Asked before it is read: what it said before it ended has been read then.
    alive = _is_alive(path)
    try:
        lines = path.read_bytes().splitlines()
        request = ExportRequest(**json.loads(lines[0])["request"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    steps: dict[str, ExportProgress] = {}
    outcome: Exported | SftuiError | None = None
    for line in lines[1:]:
        match told(line):
            case ExportProgress() as progress:
                steps[progress.step] = progress
            case Exported() | SftuiError() as end:
                outcome = end
    if outcome is None and not alive:
        outcome = SftuiError(
            "The export ended without a word", f"Its process was killed; see {path}.", "Start it again."
        )
    return ExportState(request, tuple(steps.values()), outcome, alive)


def cancel_export(path: Path) -> None:
    """End an export; what it has written is gone on with when it is started again."""
    if not _is_alive(path):
        return
    with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
        pid = next(json.loads(line)["pid"] for line in path.read_bytes().splitlines() if line.startswith(b'{"pid"'))
        # It leads a group of its own, with a converter that it may have started.
        os.killpg(pid, signal.SIGTERM)


def _is_alive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
