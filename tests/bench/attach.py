"""How soon a run with a long history is on the screen, against a run with a short one; on a real terminal.

python -m tests.bench.attach [EVENTS]        100,000 by default
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from core.runs import events
from core.runs.events import Entry, encode
from core.runs.folder import RunFolder
from tests.terminal.terminal import Terminal

ROUNDS = 5


def write_run(folder: RunFolder, count: int) -> None:
    """A journal of so many events: two steps for each sample of the memory."""
    folder.path.mkdir(parents=True)
    folder.spec_file.touch()
    gpu = (events.GpuUse(0, "NVIDIA H100", 80 << 30, 9 << 30, 8 << 30, 97, 54, 612.0),)
    with folder.journal_file.open("w", encoding="utf-8") as file:
        first: list[events.Event] = [
            events.RunStarted(folder.id, "model", "lora", 1, "0", warm=False),
            events.TrainingStarted(count, 1.0),
        ]
        for number in range(1, count - 1):
            event: events.Event = events.MemorySampled(1 << 30, 2 << 30, 3 << 30, 50.0, gpu)
            if number % 3:
                event = events.StepCompleted(number, number / count, 1 + 1 / number, 2e-4, 0.5, number * 1000, 7e3, 0.5)
            first.append(event)
        for seq, event in enumerate(first, 1):
            file.write(encode(Entry(seq, 1.7e9 + seq, event)) + "\n")


def attach(folder: RunFolder, words: str) -> float:
    """Seconds from the command on a terminal until these words are on the screen."""
    began = time.perf_counter()
    with Terminal("tui_app", "attach", folder.id) as terminal:
        while words not in terminal.output:
            assert terminal.read(0.005), terminal.text
        return time.perf_counter() - began


def main() -> None:
    """Measure in turns and print medians."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as place:
        for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            os.environ[variable] = str(Path(place) / variable)
        from core.paths import runs_home

        short, long = RunFolder(runs_home() / "short-aaaa"), RunFolder(runs_home() / "long-bbbb")
        write_run(short, 100)
        write_run(long, count)
        attach(long, f"{count - 2:,}")
        taken: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            taken.setdefault("a run of 100 events: its last step is on the screen after", []).append(
                attach(short, f"{98:,}")
            )
            taken.setdefault(f"a run of {count:,} events: its last step is on the screen after", []).append(
                attach(long, f"{count - 2:,}")
            )
        for words, seconds in taken.items():
            print(f"{words:70} {sorted(seconds)[ROUNDS // 2]:.3f} s")


if __name__ == "__main__":
    main()
