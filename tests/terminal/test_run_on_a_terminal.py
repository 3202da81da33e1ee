"""Headless commands on a real terminal: the progress bar, Ctrl-C, and a lost connection."""

import signal
from pathlib import Path

import pytest

from core.runs import events
from core.runs.folder import RunFolder, all_runs
from tests.terminal.terminal import Terminal
from tests.tiny import build_tiny_model, write_rows


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A run that would go on for hours."""
    model = build_tiny_model(tmp_path / "tiny-llama")
    rows = write_rows(tmp_path / "rows.jsonl", 40)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model_name_or_path: {model}\n"
        f"datasets: [{{path: json, data_files: {rows}}}]\n"
        "use_peft: true\nload_in_4bit: true\nmax_steps: 100000\nper_device_train_batch_size: 2\n"
        "save_strategy: 'no'\nsftui: {device: cpu, name: long}\n"
    )
    return path


def the_run() -> RunFolder:
    (folder,) = all_runs()
    return folder


def test_ctrl_c_saves_and_the_exit_status_tells(spec: Path) -> None:
    with Terminal("core.cli", "run", str(spec)) as terminal:
        terminal.wait_for("step/s")
        terminal.wait_for("loss")
        terminal.type("\x03")
        assert terminal.wait() == 128 + signal.SIGINT

    ended = the_run().read_state().outcome
    assert isinstance(ended, events.RunStopped)
    assert ended.checkpoint is not None
    assert (the_run().path / ended.checkpoint / "committed.json").exists()


def test_a_lost_connection_leaves_the_run_going(spec: Path) -> None:
    with Terminal("core.cli", "run", str(spec)) as terminal:
        terminal.wait_for("step/s")
        terminal.hang_up()

    folder = the_run()
    before = folder.read_state().step
    with Terminal("core.cli", "attach", folder.id) as attached:
        attached.wait_for("step/s")
        attached.wait_until(lambda: folder.read_state().step > before + 5, "more steps")
        with Terminal("core.cli", "stop", folder.id) as stopping:
            assert stopping.wait() == 0
        assert attached.wait() == 0
    assert isinstance(folder.read_state().outcome, events.RunStopped)
