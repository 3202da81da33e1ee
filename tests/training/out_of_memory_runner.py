"""A real runner whose memory runs out, with PyTorch's own exception, in every batch of more rows than it has room for.

python -m tests.training.out_of_memory_runner ROWS STEP RUN_FOLDER [STEP_TO_RESUME_FROM]

Batches of more than ROWS rows are refused from step STEP on.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from core.runs.folder import RunFolder
from core.training import runner
from core.training.libraries import import_libraries

MESSAGE = (
    "CUDA out of memory. Tried to allocate 96.00 KiB. GPU 0 has a total capacity of 23.69 GiB of which 32.00 KiB is "
    "free. Including non-PyTorch memory, this process has 23.60 GiB memory in use."
)


def run_out(rows: int, step: int) -> None:
    """From now on training runs out of memory as told."""
    import_libraries()
    from core.training.sft import SafeTrainer

    whole = SafeTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = whole(self, model, inputs, *args, **kwargs)
        if self.state.global_step + 1 >= step and len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError(MESSAGE)
        return loss

    setattr(SafeTrainer, "training_step", training_step)  # noqa: B010


if __name__ == "__main__":
    run_out(int(sys.argv[1]), int(sys.argv[2]))
    resume_step = int(sys.argv[4]) if len(sys.argv) > 4 else None
    sys.exit(runner.Runner(RunFolder(Path(sys.argv[3])), resume_step=resume_step).run())
