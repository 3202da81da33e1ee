"""Runs that are killed with SIGKILL again and again, at chosen or random moments, and must lose nothing.

The libraries are imported once; each runner is a fork of that process, so that a storm takes minutes and not hours.
"""

import hashlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.runs import events
from core.runs.checkpoints import find_damage
from core.runs.folder import RunFolder
from core.runs.journal import JournalReader
from core.training.libraries import import_libraries
from core.training.runner import Runner

# What Python tells of when a file is made, renamed or deleted. What C++ writes is cut by kills at random moments.
_BOUNDARIES = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Tally:
    """What became of the runs of a storm."""

    kills: int = 0
    finished: int = 0
    failures: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


def start_runner(folder: RunFolder, kill_at: int | None = None) -> int:
    """Fork a runner on a folder and return its process id; it kills itself at that boundary of its checkpoints."""
    import_libraries()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        log = os.open(folder.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _count_boundaries(folder, kill_at)
        os._exit(Runner(folder).run())
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        sys.excepthook(*sys.exc_info())
        os._exit(70)


def end_of(pid: int) -> int:
    """Wait for a runner; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def boundaries_of(folder: RunFolder) -> int:
    """How many boundaries an undisturbed run of this folder came past."""
    return int((folder.path / "boundaries").read_text())


def _count_boundaries(folder: RunFolder, kill_at: int | None) -> None:
    place, count, lock = str(folder.checkpoints), 0, threading.Lock()
    told = os.open(folder.path / "boundaries", os.O_WRONLY | os.O_CREAT, 0o600)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if not (opens or event in _BOUNDARIES) or not str(arguments[0]).startswith(place):
            return
        with lock:
            count += 1
            os.pwrite(told, str(count).encode(), 0)
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def result_of(folder: RunFolder) -> str:
    """The hash of the adapter's weights."""
    return hashlib.sha256((folder.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def storm(make: Callable[[], RunFolder], moments: Sequence[int | float], wanted: str, tally: Tally) -> None:
    """For each moment a new run that is killed then (a boundary, or after so many seconds), and resumed to its end."""
    for moment in moments:
        folder = make()
        pid = start_runner(folder, moment if isinstance(moment, int) else None)
        viewer = Viewer(folder)
        viewer.start()
        if isinstance(moment, float):
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
        status = end_of(pid)
        tally.kinds["killed" if status == -signal.SIGKILL else f"ended with {status}"] += 1
        tally.kills += status == -signal.SIGKILL
        for problem in lost(folder):
            tally.failures.append(f"{moment}: {problem}")
        ended = 0 if status == 0 else end_of(start_runner(folder))
        viewer.stop()
        if ended != 0:
            tally.failures.append(
                f"{moment}: the resumed run ended with {ended}: {folder.log_file.read_text()[-2000:]}"
            )
        elif result_of(folder) != wanted:
            tally.failures.append(f"{moment}: the resumed run learnt something else")
        else:
            tally.finished += 1
        tally.failures += [f"{moment}: {problem}" for problem in viewer.problems]


def lost(folder: RunFolder) -> list[str]:
    """What the journal calls committed, and is not whole on the disk."""
    kept: dict[str, events.CheckpointCommitted] = {}
    for entry in JournalReader(folder.journal_file).read_new():
        if isinstance(entry.event, events.CheckpointCommitted):
            kept[entry.event.path] = entry.event
        elif isinstance(entry.event, events.CheckpointDeleted):
            kept.pop(entry.event.path, None)
    found = list(folder.checkpoints.glob("checkpoint-*"))
    whole = {f"{path.parent.name}/{path.name}": find_damage(path) for path in found}
    problems = [f"{path}: {damage}" for path, damage in whole.items() if damage is not None]
    # The oldest may be deleted already, and the word of it not written yet.
    newest = max(kept, key=lambda path: kept[path].step, default=None)
    if newest is not None and newest not in whole:
        problems.append(f"{newest} was committed and is gone")
    return problems


class Viewer(threading.Thread):
    """Somebody who watches the run from its beginning to its end, whoever works on it."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(daemon=True)
        self.problems: list[str] = []
        self._folder = folder
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Look once more, and end."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Follow the journal; `stop` ends it."""
        reader, seq = JournalReader(self._folder.journal_file), 0
        while True:
            last = self._stopped.wait(0.05)
            try:
                for entry in reader.read_new():
                    if entry.seq != seq + 1:
                        self.problems.append(f"entry {entry.seq} follows entry {seq}")
                    seq = entry.seq
                self._folder.is_alive()
            except Exception as error:  # noqa: BLE001 - whatever it is, the storm is to tell of it
                self.problems.append(f"a viewer fell: {error!r}")
                return
            if last:
                return


def random_moments(count: int, seconds: float, seed: int) -> list[int | float]:
    """So many moments of a run that takes so many seconds."""
    draw = random.Random(seed)
    return [draw.uniform(0.0, seconds) for _ in range(count)]


def prepare(folder: Path) -> tuple[Path, Path]:
    """A tiny model and rows, made by a process of their own: a fork after torch has computed would hang."""
    import subprocess

    code = (
        "import sys; from pathlib import Path; from tests.tiny import build_tiny_model, write_rows; "
        "build_tiny_model(Path(sys.argv[1]) / 'model'); write_rows(Path(sys.argv[1]) / 'rows.jsonl', 40)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[1])
    return folder / "model", folder / "rows.jsonl"
