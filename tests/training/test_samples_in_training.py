"""Answers while a model is trained: they come at their steps, and change nothing of what is learned."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from core.runs import events
from core.runs.folder import RunFolder
from core.spec.build import build_spec
from core.spec.problems import SpecError
from core.training.control import RunControl
from core.training.worker import TrainingWorker
from tests.training.runs import make_run, write_jsonl

ROWS = [{"prompt": f"Count to {number}.", "completion": f" {number}"} for number in range(24)]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", ROWS)


def trained(model: Path, rows: Path, *, ask_at: int = 0, **sftui: Any) -> tuple[RunFolder, list[events.Event]]:
    folder = make_run(
        model,
        rows,
        max_steps=6,
        lora_dropout=0.3,
        test_split_size=0.25,
        sftui={"device": "cpu", "name": "tiny", **sftui},
    )
    control = RunControl()
    told: list[events.Event] = []

    def hear(event: events.Event) -> None:
        told.append(event)
        if isinstance(event, events.StepCompleted) and event.step == ask_at:
            control.request_sample()

    worker = TrainingWorker(build_spec(folder.spec_values()), folder, hear, control)
    worker.start()
    worker.join()
    assert isinstance(worker.outcome, events.RunFinished), worker.outcome
    return folder, told


def weights(folder: RunFolder) -> str:
    return hashlib.sha256((folder.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_answers_come_at_their_steps_and_change_nothing(tiny_model: Path, rows: Path) -> None:
    asked, told = trained(tiny_model, rows, sample_rows=2, sample_prompts=["Hello?"], sample_every=2, ask_at=3)
    silent, _ = trained(tiny_model, rows)
    answered = [event for event in told if isinstance(event, events.SamplesAnswered)]
    assert [(one.who, one.step) for one in answered] == [
        ("base", 0), ("tuned", 2), ("tuned", 3), ("tuned", 4), ("tuned", 6),
    ]  # fmt: skip
    assert {len(one.answers) for one in answered} == {3}
    assert all(one.seconds is not None and one.seconds > 0 for one in answered)
    steps = [event.step for event in told if isinstance(event, events.StepCompleted | events.SamplesAnswered)]
    assert steps == [1, 2, 0, 2, 3, 3, 4, 4, 5, 6, 6]
    begun = next(event for event in told if isinstance(event, events.TrainingStarted))
    assert begun.sample_every == 2
    assert weights(asked) == weights(silent)


def test_asking_a_run_that_has_no_prompts_says_so(tiny_model: Path, rows: Path) -> None:
    _, told = trained(tiny_model, rows, ask_at=2)
    assert "There is nothing to answer" in [one.title for one in told if isinstance(one, events.ProblemNoticed)]


def test_every_so_many_steps_needs_something_to_answer(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(SpecError, match="nothing to answer"):
        make_run(tiny_model, rows, sftui={"device": "cpu", "sample_every": 2})
