"""SIGKILL at every file boundary of a run's checkpoints, and at random moments; prints what became of the runs.

python -m tests.bench.kill_storm [RANDOM_KILLS [BOUNDARY_KILLS]]        200 and all by default; some seconds each
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.kill_storm import Tally, boundaries_of, end_of, prepare, random_moments, result_of, start_runner, storm
from tests.training.runs import make_run

WANTED: dict[str, Any] = {
    "max_steps": 12,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 2,
    "lora_dropout": 0.1,
    "gradient_accumulation_steps": 2,
    "packing": True,
    "test_split_size": 0.2,
    "eval_strategy": "epoch",
}


def main() -> int:
    """Run the storm; 1 if anything was lost."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    most = int(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as place:
        for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"):
            os.environ[variable] = str(Path(place) / variable)
        os.environ["HF_HUB_OFFLINE"] = "1"
        model, rows = prepare(Path(place))

        def make() -> Any:
            return make_run(model, rows, **WANTED)

        calm = make()
        began = time.monotonic()
        if end_of(start_runner(calm)) != 0:
            print(calm.log_file.read_text())
            return 1
        seconds, boundaries, wanted = time.monotonic() - began, boundaries_of(calm), result_of(calm)
        print(f"an undisturbed run takes {seconds:.1f} s and comes past {boundaries} file boundaries", flush=True)
        at_boundaries, at_random = Tally(), Tally()
        every = 1 if most is None else max(1, boundaries // most)
        storm(make, list(range(1, boundaries + 1, every))[:most], wanted, at_boundaries)
        tell("file boundaries", at_boundaries)
        storm(make, random_moments(kills, seconds, seed=7), wanted, at_random)
        tell("random moments", at_random)
        return 1 if at_boundaries.failures or at_random.failures else 0


def tell(what: str, tally: Tally) -> None:
    """Print one storm's figures."""
    runs = sum(tally.kinds.values())
    print(f"{what}: {runs} runs, {tally.kills} killed, {tally.finished} ended with the same weights", flush=True)
    for failure in tally.failures:
        print(f"  {failure}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
