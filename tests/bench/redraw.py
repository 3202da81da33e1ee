"""What watching a run writes to the terminal and takes of a core, and how soon a key is answered while a run trains.

python -m tests.bench.redraw [SECONDS]        20 by default; nothing else should run on the machine
"""

import fcntl
import os
import select
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from core.runs import events
from core.runs.events import Entry, Event, encode
from core.runs.folder import RunFolder
from tests.terminal.terminal import Terminal

SETTLE_SECONDS = 15.0
KEYS = 80
TICKS = os.sysconf("SC_CLK_TCK")


def step(number: int) -> Event:
    """One step of a run that learns."""
    return events.StepCompleted(number, number / 500, 1 + 2 / number, 2e-4, 0.5, number * 900, 7e3, 0.9, 0.6, 1.2, 0.01)


class Journal:
    """A run that lives as long as this is open; it tells what it is made to tell."""

    def __init__(self, folder: RunFolder) -> None:
        folder.path.mkdir(parents=True)
        folder.spec_file.write_text("model_name_or_path: /models/some-model\n")
        self._lock = folder.lock_file.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._file = folder.journal_file.open("a", encoding="utf-8")
        self._seq = 0
        self.tell(events.RunStarted(folder.id, "/models/some-model", "qlora", os.getpid(), "0.1.0", warm=False))
        self.tell(events.PhaseStarted("training"))
        self.tell(events.TrainingStarted(5000, 10.0, rows_per_step=8))
        for number in range(1, 400):
            self.tell(step(number))

    def tell(self, *happened: Event) -> None:
        """Append events."""
        for event in happened:
            self._seq += 1
            self._file.write(encode(Entry(self._seq, time.time(), event)) + "\n")
        self._file.flush()

    def end(self) -> None:
        """Finish the run."""
        self.tell(events.RunFinished(5000, "adapter", 60.0))
        fcntl.flock(self._lock, fcntl.LOCK_UN)


def cpu_seconds(pid: int) -> float:
    """What a process has used of a core."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def watch(terminal: Terminal, seconds: float) -> tuple[float, float]:
    """Bytes a second, and the share of a core, over so many seconds."""
    before, used, began = len(terminal.output.encode()), cpu_seconds(terminal.pid), time.monotonic()
    while time.monotonic() - began < seconds:
        terminal.read()
    spent = time.monotonic() - began
    return (len(terminal.output.encode()) - before) / spent, (cpu_seconds(terminal.pid) - used) / spent


def answer(terminal: Terminal, key: str) -> float:
    """Seconds from a key to the first byte that it draws."""
    while select.select([terminal.fileno], [], [], 0.15)[0]:
        terminal.read()
    began = time.perf_counter()
    terminal.type(key)
    select.select([terminal.fileno], [], [], 5.0)
    taken = time.perf_counter() - began
    terminal.read()
    return taken


def keep_a_core_busy() -> int:
    """Start a process that computes until it is killed; returns its process id."""
    pid = os.fork()
    while pid == 0:
        sum(range(10_000))
    return pid


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with tempfile.TemporaryDirectory() as place:
        for kind in ("DATA", "STATE", "CACHE", "CONFIG"):
            os.environ[f"XDG_{kind}_HOME"] = f"{place}/{kind.lower()}"
        from core.paths import runs_home

        folder = RunFolder(runs_home() / "bench-aaaa")
        journal = Journal(folder)
        over = threading.Event()

        def go_on() -> None:
            number = 400
            while not over.wait(1.0):
                journal.tell(step(number), events.MemorySampled(1 << 30, 2 << 30, 3 << 30, 50.0 + number % 7))
                number += 1

        training = threading.Thread(target=go_on, daemon=True)
        training.start()
        with Terminal("tui_app", "attach", folder.id) as terminal:
            terminal.wait_for("step")
            watch(terminal, SETTLE_SECONDS)
            rate, share = watch(terminal, seconds)
            print(f"one update a second: {rate / 1000:.1f} kB/s, {share:.1%} of a core")
            busy = [keep_a_core_busy() for _ in range(os.cpu_count() or 1)]
            taken = sorted(answer(terminal, "x") for _ in range(KEYS))
            for pid in busy:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            middle, late = statistics.median(taken), taken[int(0.99 * KEYS)]
            words = f"key to paint with all cores busy: median {middle * 1000:.0f} ms, p99 {late * 1000:.0f} ms"
            print(words)
            over.set()
            training.join()
            journal.end()
            watch(terminal, 3.0)
            rate, share = watch(terminal, seconds)
            print(f"idle: {rate / 1000:.2f} kB/s, {share:.1%} of a core")


if __name__ == "__main__":
    main()
