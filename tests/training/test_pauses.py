"""Resting, freeing the device, going on, a damaged checkpoint, another length: all of it to the weights one expects."""

import time
from pathlib import Path

import pytest

from core.cli import main
from core.runs import events
from core.runs.checkpoints import find_damage, place_of
from core.runs.commands import send
from core.runs.folder import RunFolder, summarize
from core.runs.journal import JournalWriter
from core.runs.launch import start_run
from core.runs.state import RunState
from core.spec.yaml_file import read_spec
from core.training.control import RunControl
from core.training.worker import TrainingWorker
from tests.training.runs import PATIENCE_SECONDS, events_of, make_run, wait_for

WANTED = {
    "max_steps": 40,
    "save_strategy": "steps",
    "save_steps": 10,
    "save_total_limit": 2,
    "lora_dropout": 0.1,
    "gradient_accumulation_steps": 2,
    "packing": True,
    "test_split_size": 0.2,
    "eval_strategy": "epoch",
}


def result(folder: RunFolder) -> bytes:
    return (folder.adapter / "adapter_model.safetensors").read_bytes()


def wait_until(folder: RunFolder, *, alive: bool) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while folder.is_alive() != alive:
        assert time.monotonic() < deadline, "the runner neither came nor went"
        time.sleep(0.05)


def stepped(state: RunState) -> bool:
    return state.step >= 2


def test_a_run_that_rested_freed_its_device_and_lost_a_checkpoint_ends_the_same(tiny_model: Path, rows: Path) -> None:
    undisturbed, disturbed = make_run(tiny_model, rows, **WANTED), make_run(tiny_model, rows, **WANTED)
    assert start_run(undisturbed).wait(timeout=180) == 0
    assert [one.step for one in undisturbed.read_state().checkpoints] == [30, 40]
    assert not place_of(undisturbed, 10).exists()

    process = start_run(disturbed)
    wait_for(disturbed, stepped)
    send(disturbed, "pause")
    state = wait_for(disturbed, lambda state: state.paused is not None)
    assert summarize(disturbed).state == "paused"
    time.sleep(0.3)
    assert disturbed.read_state().step == state.step
    send(disturbed, "continue")
    wait_for(disturbed, lambda later: later.step > state.step and later.paused is None)
    send(disturbed, "release")
    assert process.wait(timeout=60) == 0
    freed = disturbed.read_state()
    assert isinstance(freed.outcome, events.RunStopped)
    assert freed.outcome.released
    assert summarize(disturbed).state == "released"
    assert 0 < freed.step < 40

    assert main(["continue", disturbed.id]) == 0
    wait_until(disturbed, alive=True)
    wait_for(disturbed, lambda state: any(one.step >= 20 for one in state.checkpoints))
    send(disturbed, "stop")
    wait_until(disturbed, alive=False)
    stopped = disturbed.read_state()
    newest, older = (stopped.checkpoints[index] for index in (-1, -2))
    (disturbed.path / newest.path / "optimizer.pt").write_bytes(b"no longer what it was")
    assert main(["resume", disturbed.id]) == 2
    assert find_damage(disturbed.path / older.path) is None
    assert main(["resume", disturbed.id, "--from", str(older.step)]) == 0

    assert isinstance(disturbed.read_state().outcome, events.RunFinished)
    assert result(disturbed) == result(undisturbed)
    assert [(s.step, s.loss) for s in disturbed.read_state().steps] == [
        (s.step, s.loss) for s in undisturbed.read_state().steps
    ]
    assert events.CheckpointDeleted(newest.path) in events_of(disturbed)


def test_a_stop_in_the_middle_of_a_step_leaves_no_trace_of_it(tiny_model: Path, rows: Path) -> None:
    whole, halved = (make_run(tiny_model, rows, **{**WANTED, "max_steps": 10}) for _ in range(2))

    def train(folder: RunFolder, stop_after: int | None = None) -> events.TerminalEvent | None:
        control = RunControl()
        journal = JournalWriter(folder.journal_file)

        def emit(event: events.Event) -> None:
            journal.write(event)
            if isinstance(event, events.StepCompleted) and event.step == stop_after:
                # The step is logged: the worker hears of it after the first batch of the next one.
                control.request_stop("by request")

        worker = TrainingWorker(read_spec(folder.spec_file), folder, emit, control)
        worker.start()
        worker.join()
        return worker.outcome

    train(whole)
    stopped = train(halved, stop_after=5)
    assert isinstance(stopped, events.RunStopped)
    assert (stopped.step, stopped.checkpoint) == (5, "checkpoints/checkpoint-5")
    assert isinstance(train(halved), events.RunFinished)
    assert result(halved) == result(whole)


def test_a_run_that_is_made_longer_on_the_way_trains_on_to_the_new_end(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows, max_steps=200, lora_dropout=0.1, lr_scheduler_type="linear")
    process = start_run(folder)
    state = wait_for(folder, stepped)
    send(folder, "set_max_steps", 300)
    longer = wait_for(folder, lambda state: state.max_steps == 300)
    assert longer.step >= state.step
    send(folder, "set_max_steps", 1)
    assert process.wait(timeout=120) == 0
    ended = folder.read_state()
    assert isinstance(ended.outcome, events.RunFinished)
    assert ended.outcome.step == ended.step < 200
    assert [one.step for one in ended.steps] == list(range(1, ended.step + 1))
    assert folder.spec_values()["max_steps"] == 1
    first, second = (event for event in events_of(folder) if isinstance(event, events.LengthChanged))
    # From the step after the change on, the learning rate falls towards the new end.
    rates = {one.step: one.learning_rate for one in ended.steps}
    assert rates[first.step] == pytest.approx(1e-2 * (1 - (first.step - 1) / 200))
    if second.step > first.step + 1:
        assert rates[first.step + 2] == pytest.approx(1e-2 * (1 - (first.step + 1) / 300))
