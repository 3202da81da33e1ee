"""How soon a run with a long history is on the screen, and how soon all of it; against the app without a run.

python -m tests.bench.attach [EVENTS]        100,000 by default
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from core.runs import events
from core.runs.events import Entry, encode
from core.runs.folder import RunFolder

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


async def attach(folder: RunFolder | None) -> tuple[float, float]:
    """Seconds from making the app until something of the run is drawn, and until its whole history is."""
    from tui_app.app import SftuiApp

    began = time.perf_counter()
    app = SftuiApp(open_screen="monitor", run=folder, warm=False) if folder else SftuiApp(warm=False)
    shown = 0.0
    async with app.run_test(size=(120, 40)) as pilot:
        while folder is not None:
            state = getattr(app.screen, "state", None)
            if state is not None and state.last_seq and not shown:
                await pilot.pause()
                shown = time.perf_counter() - began
            if shown and state is not None and len(state.steps) > 50_000:
                break
            await asyncio.sleep(0.005)
        await pilot.pause()
        return shown or time.perf_counter() - began, time.perf_counter() - began


def main() -> None:
    """Measure in turns and print medians."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as place:
        for variable in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            os.environ[variable] = str(Path(place) / variable)
        folder = RunFolder(Path(place) / "runs" / "long")
        write_run(folder, count)
        asyncio.run(attach(None))
        asyncio.run(attach(folder))
        empty, first, whole = [], [], []
        for _ in range(ROUNDS):
            empty.append(asyncio.run(attach(None))[0])
            shown, all_of_it = asyncio.run(attach(folder))
            first.append(shown)
            whole.append(all_of_it)
        words = ("the app without a run", f"a run of {count:,} events on the screen", "its whole history")
        for name, seconds in zip(words, (empty, first, whole), strict=True):
            print(f"{name:45} {sorted(seconds)[ROUNDS // 2]:.3f} s")


if __name__ == "__main__":
    main()
