"""In which type a CPU trains faster, float32 or bfloat16.

    python tests/bench/cpu_dtype.py MODEL [STEPS [ROUNDS]]

Runs QLoRA (NF4, double quantization) on the starter's conversations through the training worker, the two types in turn
in one process, so that other load on the machine meets both alike. Prints one JSON object: median seconds a step of
each, and the ratio of bfloat16 to float32. The first steps of a run, in which buffers are made, do not count.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from core import starter
from core.runs import events
from core.runs.folder import create_run
from core.spec.build import build_spec
from core.training.worker import TrainingWorker

_TYPES = ("float32", "bfloat16")
_WARM_UP = 2


def seconds_of_steps(model: str, dtype: str, steps: int) -> list[float]:
    """Train a few steps and return what each took. Raises RuntimeError when the run fails."""
    values = {
        "model_name_or_path": model,
        "datasets": [str(starter.TRAIN_DATA)],
        "dtype": dtype,
        "use_peft": True,
        "load_in_4bit": True,
        "use_bnb_nested_quant": True,
        "per_device_train_batch_size": 4,
        "max_steps": steps + _WARM_UP,
        "max_length": 256,
        "activation_checkpointing": False,
        "save_strategy": "no",
        "sftui": {"device": "cpu"},
    }
    spec = build_spec(values)
    taken: list[float] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.StepCompleted):
            taken.append(event.seconds)

    worker = TrainingWorker(spec, create_run(spec), note)
    worker.start()
    worker.join()
    if not isinstance(worker.outcome, events.RunFinished):
        raise RuntimeError(str(worker.outcome))
    return taken[_WARM_UP:]


def main() -> None:
    """Measure and print."""
    model, given = sys.argv[1], [int(word) for word in sys.argv[2:]]
    steps, rounds = (*given, *(8, 2)[len(given) :])
    taken: dict[str, list[float]] = {dtype: [] for dtype in _TYPES}
    with tempfile.TemporaryDirectory() as home:
        os.environ["XDG_DATA_HOME"] = home
        for _ in range(rounds):
            for dtype in _TYPES:
                taken[dtype] += seconds_of_steps(model, dtype, steps)
    medians = {dtype: round(statistics.median(seconds), 3) for dtype, seconds in taken.items()}
    ratio = round(medians["bfloat16"] / medians["float32"], 2)
    print(json.dumps({"model": Path(model).name, "seconds_a_step": medians, "bfloat16_to_float32": ratio}))


if __name__ == "__main__":
    main()
