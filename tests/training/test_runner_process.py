"""The runner as a process of its own: signals, commands, sudden death, the warm one, and where its output goes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.runs import events
from core.runs.commands import send
from core.runs.folder import RunFolder, summarize
from core.runs.launch import WarmRunner, start_run
from core.runs.state import RunState
from tests.training.runs import events_of, make_run, terminal_events, wait_for

LONG = {"max_steps": 100_000}


def pid_of(folder: RunFolder) -> int:
    return next(event.pid for event in events_of(folder) if isinstance(event, events.RunStarted))


def stepped(state: RunState) -> bool:
    return state.step >= 2


def test_a_run_can_be_watched_and_told_to_save_and_to_stop(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows, **LONG)
    process = start_run(folder)
    wait_for(folder, stepped)
    assert folder.is_alive()
    assert summarize(folder).state == "training"

    checkpoint = send(folder, "checkpoint")
    state = wait_for(folder, lambda state: bool(state.checkpoints))
    assert [accepted.command_id for accepted in state.commands] == [checkpoint]
    send(folder, "stop")
    send(folder, "stop")

    assert process.wait(timeout=60) == 0
    (ended,) = terminal_events(folder)
    assert isinstance(ended, events.RunStopped)
    assert ended.checkpoint is not None
    assert (folder.path / ended.checkpoint / "committed.json").exists()
    assert summarize(folder).state == "stopped"
    assert not folder.is_alive()
    with pytest.raises(SftuiError, match="not running"):
        send(folder, "stop")
    samples = [event for event in events_of(folder) if isinstance(event, events.MemorySampled)]
    assert samples[-1].process_bytes > 100_000_000, "torch alone is larger"
    environment = json.loads(folder.environment_file.read_text())
    assert environment["packages"]["trl"].startswith("1.16")
    assert folder.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_and_saves(tiny_model: Path, rows: Path, number: signal.Signals) -> None:
    folder = make_run(tiny_model, rows, **LONG)
    process = start_run(folder)
    wait_for(folder, stepped)

    os.kill(pid_of(folder), number)

    assert process.wait(timeout=60) == 128 + number
    (ended,) = terminal_events(folder)
    assert isinstance(ended, events.RunStopped)
    assert ended.checkpoint is not None
    assert number.name in ended.reason


def test_sudden_death_is_seen_as_an_interruption_and_the_log_holds_what_libraries_said(
    tiny_model: Path, rows: Path
) -> None:
    folder = make_run(tiny_model, rows, **LONG)
    process = start_run(folder)
    wait_for(folder, stepped)

    os.kill(pid_of(folder), signal.SIGKILL)
    process.wait(timeout=60)

    assert not terminal_events(folder)
    assert summarize(folder).state == "interrupted"


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_adapter(tiny_model: Path, rows: Path) -> None:
    wanted = {"max_steps": 60, "save_strategy": "steps", "save_steps": 20, "lora_dropout": 0.1, "load_in_4bit": True}
    undisturbed, killed = make_run(tiny_model, rows, **wanted), make_run(tiny_model, rows, **wanted)
    assert start_run(undisturbed).wait(timeout=120) == 0

    process = start_run(killed)
    wait_for(killed, lambda state: bool(state.checkpoints))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    interrupted = killed.read_state()
    resumed = subprocess.run(
        [sys.executable, "-m", "core.cli", "resume", killed.id],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert resumed.returncode == 0, resumed.stderr
    state = killed.read_state()
    assert isinstance(state.outcome, events.RunFinished)
    assert state.first_step == interrupted.checkpoints[-1].step
    assert [step.step for step in state.steps] == list(range(1, 61))
    assert [(s.loss, s.tokens_seen) for s in state.steps] == [
        (s.loss, s.tokens_seen) for s in undisturbed.read_state().steps
    ]
    weights = [(run.adapter / "adapter_model.safetensors").read_bytes() for run in (undisturbed, killed)]
    assert weights[0] == weights[1]

    again = subprocess.run(
        [sys.executable, "-m", "core.cli", "resume", killed.id], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 2
    assert "finished" in again.stderr


def test_a_runner_that_cannot_read_its_spec_says_so_in_the_journal(tiny_model: Path, rows: Path) -> None:
    folder = make_run(tiny_model, rows)
    folder.spec_file.write_text("lora_r: many\n")

    assert start_run(folder).wait(timeout=60) == 1

    (ended,) = terminal_events(folder)
    assert isinstance(ended, events.RunFailed)
    assert "lora_r" in ended.message


def test_a_warm_runner_takes_one_run_and_outlives_its_parent(tiny_model: Path, rows: Path) -> None:
    first, second = make_run(tiny_model, rows), make_run(tiny_model, rows)
    script = (
        "import sys, pathlib\n"
        "from core.runs.folder import RunFolder\n"
        "from core.runs.launch import WarmRunner\n"
        "warm = WarmRunner.start()\n"
        "taken = [warm.run(RunFolder(pathlib.Path(path))) for path in sys.argv[1:]]\n"
        "print(taken, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, str(first.path), str(second.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert parent.returncode == -signal.SIGKILL
    assert parent.stdout.strip() == "[True, False]"
    state = wait_for(first, lambda state: state.outcome is not None)
    assert isinstance(state.outcome, events.RunFinished)
    assert state.warm
    assert not events_of(second)


def test_an_idle_warm_runner_ends_with_its_parent() -> None:
    warm = WarmRunner.start()
    warm.close()
    assert warm.wait(timeout=60) == 0
