"""How soon all runs are listed: the first time, and when their lines are known.

python -m tests.bench.runs_list [RUNS] [EVENTS]        1,000 runs of 2,000 events by default
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from core.runs import events
from core.runs.events import Entry, encode

ROUNDS = 7


def write_runs(home: Path, runs: int, count: int) -> None:
    """Runs that have ended, each with a journal of so many events."""
    happened: list[events.Event] = [
        events.RunStarted("run", "/models/some-model", "qlora", 1, "0.1.0", warm=False),
        events.TrainingStarted(count, 1.0),
        *(
            events.StepCompleted(step, step / count, 1 + 1 / step, 2e-4, 0.5, step * 1000, 7e3, 0.5)
            for step in range(1, count)
        ),
        events.EvaluationCompleted(count, 1.1, 1.0),
        events.RunFinished(count, "adapter", 60.0),
    ]
    lines = "".join(encode(Entry(seq, 1.7e9 + seq, event)) + "\n" for seq, event in enumerate(happened, 1))
    for number in range(runs):
        folder = home / f"20260101-some-model-{number:04}"
        folder.mkdir(parents=True)
        (folder / "run.yaml").write_text("model_name_or_path: /models/some-model\ndatasets:\n- path: rows.jsonl\n")
        (folder / "events.jsonl").write_text(lines)
        (folder / "runner.lock").touch()


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"XDG_DATA_HOME": f"{place}/data", "XDG_CACHE_HOME": f"{place}/cache"}
        from core.paths import runs_home
        from core.runs.table import list_runs

        write_runs(runs_home(), runs, count)
        taken = []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            assert len(list_runs()) == runs
            taken.append(time.perf_counter() - began)
        print(f"{runs:,} runs of {count:,} events: {taken[0]:.2f} s the first time, then {sorted(taken[1:])[3]:.3f} s")


if __name__ == "__main__":
    main()
