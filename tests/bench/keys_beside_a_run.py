"""How soon the monitor answers a key while a real run loads and trains on all cores of the CPU.

python -m tests.bench.keys_beside_a_run [MODEL_FOLDER]        the starter's model by default; nothing else should run

Each time is given against the same measured on an idle machine, by the same app, in the same sitting.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.redraw import answer
from tests.terminal.terminal import Terminal
from tests.training.runs import make_run

KEYS = 100
PATIENCE_SECONDS = 120.0


def describe(taken: list[float]) -> str:
    """Median and the slowest of a hundred, in milliseconds."""
    taken = sorted(taken)
    return f"median {statistics.median(taken) * 1000:.0f} ms, p99 {taken[int(0.99 * len(taken))] * 1000:.0f} ms"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {f"XDG_{kind}_HOME": f"{place}/{kind.lower()}" for kind in ("DATA", "STATE", "CACHE", "CONFIG")}
        os.environ |= {"HF_HUB_OFFLINE": "1", "TEXTUAL_ANIMATIONS": "none"}
        from core.runs.launch import start_run

        starter = Path(__file__).parents[2] / "core" / "starter"
        model, rows = sys.argv[1] if len(sys.argv) > 1 else str(starter / "model"), starter / "support.jsonl"
        folder = make_run(Path(model), rows, max_steps=1_000_000, per_device_train_batch_size=8, max_length=256)
        with Terminal("tui_app", "attach", folder.id) as terminal:
            terminal.wait_for(folder.id)
            for _ in range(30):
                terminal.read()
            print("idle:", describe([answer(terminal, "x") for _ in range(KEYS)]))
            process = start_run(folder)
            began = time.monotonic()
            loading: list[float] = []
            while folder.read_state().step < 1 and time.monotonic() - began < PATIENCE_SECONDS:
                loading.append(answer(terminal, "x"))
            print(f"while it loads ({len(loading)} keys):", describe(loading))
            print("while it trains:", describe([answer(terminal, "x") for _ in range(KEYS)]))
            step, began = folder.read_state().step, time.monotonic()
            time.sleep(10)
            print(f"{(folder.read_state().step - step) / (time.monotonic() - began):.1f} steps a second unwatched")
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
