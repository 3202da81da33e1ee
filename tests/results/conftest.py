"""A tiny model and runs of it that have ended, for all tests of this folder; none of them changes either."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.runs.events import RunFinished
from core.runs.folder import RunFolder
from core.runs.journal import JournalWriter
from core.spec.yaml_file import read_spec
from core.training.environment import put_down
from core.training.worker import TrainingWorker
from tests.tiny import build_tiny_model, write_rows
from tests.training.runs import make_run

LEARNING: dict[str, Any] = {
    "max_steps": 8,
    "assistant_only_loss": True,
    "lora_r": 8,
    "lora_dropout": 0.0,
    "test_split_size": 0.2,
    "save_strategy": "steps",
    "save_steps": 4,
}
NF4 = {"load_in_4bit": True, "use_bnb_nested_quant": True, "dtype": "float32"}


def train(folder: RunFolder) -> RunFolder:
    """Do the run in this process, with its journal."""
    put_down(folder)
    journal = JournalWriter(folder.journal_file)
    worker = TrainingWorker(read_spec(folder.spec_file), folder, journal.write)
    worker.start()
    worker.join(timeout=300)
    journal.close()
    assert isinstance(worker.outcome, RunFinished), worker.outcome
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def ended(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """Trains a run and gives its folder."""
    home = tmp_path_factory.mktemp("ended")
    rows = write_rows(home / "rows.jsonl", 40)

    def run(model: Path = tiny_model, **changes: Any) -> RunFolder:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DATA", "CACHE", "STATE", "CONFIG"):
                patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
            return train(make_run(model, rows, **{**LEARNING, **changes}))

    return run


@pytest.fixture(scope="session")
def qlora(ended: Callable[..., RunFolder]) -> RunFolder:
    """A run of QLoRA that has ended, with checkpoints of the steps 4 and 8."""
    return ended(**NF4)


@pytest.fixture(scope="session")
def full(ended: Callable[..., RunFolder]) -> RunFolder:
    """A run that trained every weight."""
    return ended(use_peft=False, save_strategy="no", learning_rate=1e-3)
