"""A probe tries two steps before a run, tells what they held, and leaves no trace in what the run makes."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from core.runs import events
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.sft import SafeTrainer
from core.training.worker import TrainingWorker
from tests.training.out_of_memory_runner import MESSAGE
from tests.training.runs import make_run

BASE: dict[str, Any] = {
    "max_steps": 3,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "save_strategy": "steps",
    "save_steps": 2,
}


def train(folder: RunFolder, control: RunControl | None = None) -> tuple[events.TerminalEvent | None, list[Event]]:
    told: list[Event] = []
    worker = TrainingWorker(read_spec(folder.spec_file), folder, told.append, control)
    worker.start()
    worker.join(300)
    return worker.outcome, told


def probed(told: list[Event]) -> list[events.MemoryProbed]:
    return [event for event in told if isinstance(event, events.MemoryProbed)]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"load_in_4bit": True, "optim": "adamw_8bit", "dtype": "bfloat16", "activation_checkpointing": True},
        {"use_peft": False, "optim": "adafactor", "packing": True, "dtype": "bfloat16", "learning_rate": 1e-3},
    ],
    ids=["lora", "qlora", "full"],
)
def test_a_run_with_a_probe_makes_the_same_to_the_bit(tiny_model: Path, rows: Path, changes: dict[str, Any]) -> None:
    results = []
    for probes in (False, True):
        sftui = {"device": "cpu", "probe": probes}
        folder = make_run(tiny_model, rows, **{**BASE, **changes, "sftui": sftui})
        outcome, told = train(folder)
        assert isinstance(outcome, events.RunFinished), outcome
        (weights,) = (folder.path / outcome.result).glob("*model.safetensors")
        steps = [event for event in told if isinstance(event, events.StepCompleted)]
        figures = [(step.step, step.loss, step.grad_norm, step.tokens_seen, step.token_accuracy) for step in steps]
        optimizer = sha256(folder.checkpoints / "checkpoint-2" / "optimizer.pt")
        results.append((sha256(weights), optimizer, figures))
        assert len(probed(told)) == probes
        if probes:
            (found,) = probed(told)
            assert (found.device, found.rows) == ("host", 1 if changes.get("packing") else 2)
            # The process of the tests may have held more before, and then it does not grow.
            assert 0 <= found.bytes < (found.total_bytes or 0)
            (data,) = (event for event in told if isinstance(event, events.DataPrepared))
            # The longest rows, or sequences.
            assert (data.tokens or 0) / (data.sequences or 1) < found.tokens / found.rows
            before = told[told.index(found) - 1]
            assert isinstance(before, events.PhaseStarted) and before.phase == "training"
    assert results[0] == results[1]


def test_a_probe_that_runs_out_of_memory_is_told_before_the_first_step(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError(MESSAGE)

    monkeypatch.setattr(SafeTrainer, "training_step", run_out)
    folder = make_run(tiny_model, rows, **{**BASE, "sftui": {"device": "cpu", "probe": True}})
    outcome, _ = train(folder)
    assert isinstance(outcome, events.RunFailed)
    assert outcome.memory is not None
    assert (outcome.step, outcome.memory.phase) == (0, "training")
    assert outcome.memory.mends[0].sets == ("per_device_train_batch_size=1", "gradient_accumulation_steps=4")


def test_a_stop_is_heard_while_it_probes(tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = RunControl()
    whole = SafeTrainer.training_step

    def training_step(*arguments: Any, **named: Any) -> Any:
        control.request_stop("by request")
        return whole(*arguments, **named)

    monkeypatch.setattr(SafeTrainer, "training_step", training_step)
    folder = make_run(tiny_model, rows, **{**BASE, "sftui": {"device": "cpu", "probe": True}})
    outcome, told = train(folder, control)
    assert isinstance(outcome, events.RunStopped)
    assert (outcome.step, outcome.checkpoint) == (0, None)
    assert not probed(told)
