"""Runs whose numbers go wrong: they end at the last good checkpoint, and nothing of what went wrong is kept."""

import math
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.runs.checkpoints import committed_checkpoints, step_of
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.sft import SafeTrainer
from core.training.worker import TrainingWorker
from tests.training.runs import make_run

# Each step multiplies the weights by a hundred thousand: soon there is no number for them.
DIVERGES = {
    "learning_rate": 10.0,
    "weight_decay": 1e4,
    "optim": "sgd",
    "max_steps": 12,
    "lr_scheduler_type": "constant",
    "save_strategy": "steps",
    "save_steps": 1,
}


class Watched:
    """A run in this process, with what it told."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.told: list[Event] = []
        self.control = RunControl()
        self.worker = TrainingWorker(read_spec(folder.spec_file), folder, self._take, self.control)

    def _take(self, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, events.RunPaused):
            self.control.request_stop("seen enough")

    def train(self) -> events.RunStopped:
        self.worker.start()
        self.worker.join(timeout=300)
        outcome = self.worker.outcome
        assert isinstance(outcome, events.RunStopped), outcome
        return outcome

    def found(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


def test_a_loss_that_is_no_number_stops_the_run_at_the_last_checkpoint_that_is_beyond_doubt(
    tiny_model: Path, rows: Path
) -> None:
    run = Watched(make_run(tiny_model, rows, **DIVERGES))
    outcome = run.train()

    (noticed,) = run.found(events.TroubleNoticed)
    last = run.found(events.StepCompleted)[-1]
    assert math.isnan(last.loss)
    assert (noticed.kind, noticed.step, noticed.action) == ("not_finite", last.step, "stop")
    assert outcome.step == last.step
    assert "not a number" in outcome.reason
    # The step before made the weights that gave this loss.
    assert outcome.checkpoint == f"checkpoints/checkpoint-{last.step - 2}"
    assert [step_of(path) for path in committed_checkpoints(run.folder)] == list(range(1, last.step))
    assert not run.folder.adapter.exists()


def test_a_rest_for_a_loss_that_is_no_number_says_so_and_its_weights_are_never_saved(
    tiny_model: Path, rows: Path
) -> None:
    changes = {**DIVERGES, "save_strategy": "no", "sftui": {"device": "cpu", "on_not_finite": "pause"}}
    run = Watched(make_run(tiny_model, rows, **changes))
    outcome = run.train()

    (paused,) = run.found(events.RunPaused)
    assert "The loss is not a number" in paused.reason
    (problem,) = run.found(events.ProblemNoticed)
    assert problem.title == f"No checkpoint of step {paused.step}"
    assert (outcome.checkpoint, outcome.reason) == (None, "seen enough")
    assert committed_checkpoints(run.folder) == ()


def test_a_held_out_loss_that_is_no_number_stops_the_run_before_these_weights_are_saved(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SafeTrainer.prediction_step

    def prediction_step(trainer: Any, *arguments: Any, **named: Any) -> Any:
        loss, *rest = whole(trainer, *arguments, **named)
        return (loss * math.nan if trainer.state.global_step == 3 else loss, *rest)

    monkeypatch.setattr(SafeTrainer, "prediction_step", prediction_step)
    evaluated = {"test_split_size": 0.1, "eval_strategy": "steps", "eval_steps": 1}
    run = Watched(make_run(tiny_model, rows, max_steps=6, save_strategy="steps", save_steps=1, **evaluated))
    outcome = run.train()
    (noticed,) = run.found(events.TroubleNoticed)
    assert (noticed.kind, noticed.step, noticed.action) == ("not_finite", 3, "stop")
    assert (outcome.step, outcome.checkpoint) == (3, "checkpoints/checkpoint-2")
    assert [step_of(path) for path in committed_checkpoints(run.folder)] == [1, 2]
