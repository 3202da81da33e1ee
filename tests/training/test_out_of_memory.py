"""Runs whose memory runs out: what is said then, and that they go on with a mend as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core import cli
from core.data.training_rows import TrainingRows
from core.runs import events, launch
from core.runs.checkpoints import commit, place_of, staging
from core.runs.folder import RunFolder
from core.runs.journal import JournalWriter
from core.runs.mending import apply_mend, mends_of
from core.runs.state import RunState
from core.spec.yaml_file import read_spec
from core.training.sft import SafeTrainer
from core.training.worker import TrainingWorker
from tests.training.out_of_memory_runner import MESSAGE
from tests.training.runs import make_run
from tests.tui.helpers import shown, until, until_shown
from tui_app.app import SftuiApp

ROOT = Path(__file__).parents[2]
# An epoch of 37 rows has five steps, of which the last has five rows, and its last batch one.
ACCUMULATED = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 8,
    "save_strategy": "steps",
    "save_steps": 2,
    "optim": "adamw_torch",
    "lora_dropout": 0.1,
}


class Run:
    """A run in this process, its journal written, with the sequences that each step has fetched."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.seen: dict[int, list[int]] = {}

    def train(self, monkeypatch: pytest.MonkeyPatch, *, room: int, resume_step: int | None = None) -> Any:
        """Train; batches of more than `room` rows run out of memory in the fourth step."""
        monkeypatch.undo()
        fetched: list[list[int]] = []
        sequence, step = TrainingRows._sequence, SafeTrainer.training_step

        def remembered(rows: TrainingRows, number: int) -> dict[str, Any]:
            return {**sequence(rows, number), "number": number}

        def training_step(trainer: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            now = trainer.state.global_step + 1
            if now >= 4 and len(inputs["input_ids"]) > room:
                raise torch.OutOfMemoryError(MESSAGE)
            self.seen.setdefault(now, []).extend(fetched.pop(0))
            return step(trainer, model, inputs, *more, **named)

        def collated(trainer: Any) -> Any:
            inner = trainer.data_collator

            def collate(rows: list[dict[str, Any]]) -> Any:
                fetched.append([row.pop("number") for row in rows])
                return inner(rows)

            return collate

        monkeypatch.setattr(TrainingRows, "_sequence", remembered)
        monkeypatch.setattr(SafeTrainer, "training_step", training_step)
        loader = SafeTrainer.get_train_dataloader

        def get_train_dataloader(trainer: Any) -> Any:
            whole = trainer.data_collator
            trainer.data_collator = collated(trainer)
            fetched.clear()
            try:
                return loader(trainer)
            finally:
                trainer.data_collator = whole

        monkeypatch.setattr(SafeTrainer, "get_train_dataloader", get_train_dataloader)
        self.seen.clear()
        journal = JournalWriter(self.folder.journal_file)
        worker = TrainingWorker(read_spec(self.folder.spec_file), self.folder, journal.write, None, resume_step)
        worker.start()
        worker.join(300)
        journal.close()
        return worker.outcome


def test_after_the_mend_a_run_sees_exactly_the_rows_that_it_has_not_seen_in_the_same_steps(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:37]))
    undisturbed = Run(make_run(tiny_model, rows, **ACCUMULATED))
    assert isinstance(undisturbed.train(monkeypatch, room=4), events.RunFinished)
    assert [len(seen) for seen in undisturbed.seen.values()] == [8, 8, 8, 8, 5, 8, 8, 8]

    run = Run(make_run(tiny_model, rows, **ACCUMULATED))
    run.folder.plan_file.write_text(json.dumps({"memory": {"total_bytes": 90_000, "total_is_complete": True}}))
    failed = run.train(monkeypatch, room=2)
    assert isinstance(failed, events.RunFailed)
    assert failed.title == "The GPU's memory ran out"
    known = failed.memory
    assert known is not None
    assert (known.device, known.phase, known.batch_rows, failed.step) == ("gpu", "training", 4, 3)
    assert known.batch_tokens is not None and known.batch_tokens % 4 == 0 and 4 * 40 < known.batch_tokens <= 4 * 96
    assert (known.wanted_bytes, known.predicted_bytes) == (96 << 10, 90_000)
    first = known.mends[0]
    assert first.sets == ("per_device_train_batch_size=2", "gradient_accumulation_steps=4")
    assert not first.begins_anew

    assert mends_of(run.folder.read_state()) == known.mends
    assert apply_mend(run.folder, first) is None
    spec = read_spec(run.folder.spec_file)
    assert (spec.per_device_train_batch_size, spec.gradient_accumulation_steps) == (2, 4)
    assert json.loads(run.folder.plan_file.read_text())["device"]["name"] == "CPU: host memory"

    finished = run.train(monkeypatch, room=2)
    assert isinstance(finished, events.RunFinished), finished
    # From the checkpoint of step 2 on, over the end of the first epoch.
    assert run.seen == {step: seen for step, seen in undisturbed.seen.items() if step > 2}
    state = run.folder.read_state()
    assert [step.step for step in state.steps] == list(range(1, 9))
    assert len({step.tokens_seen for step in state.steps}) == 8


def test_rows_in_order_of_their_length_stay_in_their_steps_too(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**ACCUMULATED, "train_sampling_strategy": "group_by_length", "max_steps": 5}
    undisturbed, run = Run(make_run(tiny_model, rows, **changes)), Run(make_run(tiny_model, rows, **changes))
    assert isinstance(undisturbed.train(monkeypatch, room=4), events.RunFinished)
    apply_mend(run.folder, run.train(monkeypatch, room=2).memory.mends[0])
    assert isinstance(run.train(monkeypatch, room=2), events.RunFinished)
    assert run.seen == {step: seen for step, seen in undisturbed.seen.items() if step > 2}


def start(folder: RunFolder, rows: int, step: int) -> "subprocess.Popen[bytes]":
    with folder.log_file.open("ab") as log:
        command = [sys.executable, "-m", "tests.training.out_of_memory_runner", str(rows), str(step), str(folder.path)]
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


async def test_what_was_known_is_shown_and_one_key_goes_on_to_the_end(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tiny_model, rows, **{**ACCUMULATED, "save_strategy": "no", "max_steps": 3})
    assert start(folder, rows=2, step=2).wait(300) == 1
    assert cli.main(["attach", folder.id]) == 1
    told = capsys.readouterr().out
    assert "failed: The GPU's memory ran out" in told
    assert "where    training, after step 1, in a batch of 4 rows with" in told
    assert "memory   98.3 kB were wanted" in told
    assert "mends    Batch 2, accumulation 4" in told

    monkeypatch.setattr(launch, "start_run", lambda folder, step=None, queue=False: start(folder, rows=2, step=2))
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "✗ Failed: The GPU's memory ran out", "f Mend and go on")
        await until_shown(pilot, "mends  Batch 2, accumulation 4", "f  makes the first of them, and goes on")
        await pilot.press("f")
        await until_shown(pilot, "✓ Finished")
        assert "f Mend and go on" not in shown(pilot.app)
    spec = read_spec(folder.spec_file)
    assert (spec.per_device_train_batch_size, spec.gradient_accumulation_steps) == (2, 4)
    state = folder.read_state()
    assert [step.step for step in state.steps] == [1, 2, 3]
    assert any("per_device_train_batch_size: 4 → 2" in problem.message for problem in state.problems)


def ran_out(folder: RunFolder, *mends: events.Mend) -> None:
    """A run that has saved a checkpoint of step 2, and whose memory ran out after it."""
    written = staging(folder) / "checkpoint-2"
    written.mkdir(parents=True)
    (written / "adapter_model.safetensors").write_bytes(b"weights")
    size = commit(written, place_of(folder, 2))
    memory = events.OutOfMemory("gpu", "training", mends=mends)
    journal = JournalWriter(folder.journal_file)
    journal.write(events.RunStarted(folder.id, "tiny", "lora", 1, "1", warm=False))
    journal.write(events.CheckpointCommitted(2, "checkpoints/checkpoint-2", size, 0.1))
    journal.write(events.RunFailed("OutOfMemoryError", "The GPU's memory ran out", "", "", None, 3, 1.0, memory))
    journal.close()
    folder.lock_file.touch()


def test_a_mend_that_checkpoints_do_not_go_together_with_deletes_none_unless_told_to(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tiny_model, rows, **ACCUMULATED)
    half = events.Mend("Batch 2", ("per_device_train_batch_size=2", "gradient_accumulation_steps=4"), None)
    ran_out(folder, half, events.Mend("adamw_8bit", ("optim=adamw_8bit",), 9, begins_anew=True))
    started: list[int | None] = []
    monkeypatch.setattr(launch, "start_run", lambda folder, step=None, queue=False: started.append(step))
    before = folder.spec_file.read_text()
    assert cli.main(["resume", folder.id, "--detach", "--mend", "3"]) == 2
    assert cli.main(["resume", folder.id, "--detach", "--mend", "2"]) == 2
    assert "--mend 2 --from 0` begins anew" in capsys.readouterr().err
    assert (folder.spec_file.read_text(), started) == (before, [])

    assert cli.main(["resume", folder.id, "--detach", "--mend"]) == 0
    assert read_spec(folder.spec_file).per_device_train_batch_size == 2
    assert cli.main(["resume", folder.id, "--detach", "--mend", "2", "--from", "0"]) == 0
    assert read_spec(folder.spec_file).optim == "adamw_8bit"
    assert started == [None, 0]


async def test_before_a_key_deletes_checkpoints_it_asks(
    tiny_model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tiny_model, rows, **ACCUMULATED)
    ran_out(folder, events.Mend("max_length 48", ("max_length=48",), 4_000_000, begins_anew=True))
    started: list[int | None] = []
    monkeypatch.setattr(launch, "start_run", lambda folder, step=None, queue=False: started.append(step))
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "max_length 48: saves 4.00 MB, and the run begins anew", "goes on from the beginning")
        await pilot.press("f")
        await until_shown(pilot, "max_length 48: begin anew?", "they are deleted")
        await pilot.press("escape")
        await pilot.pause()
        assert started == []
        await pilot.press("f")
        await until_shown(pilot, "max_length 48: begin anew?")
        await pilot.press("y")
        await until(pilot, lambda: started == [0])
    assert read_spec(folder.spec_file).max_length == 48


def test_a_run_that_ended_otherwise_offers_no_mend() -> None:
    assert mends_of(RunState()) == ()
    assert mends_of(RunState(outcome=events.RunFailed("E", "title", "message", "", None, 3, 1.0))) == ()
