"""The app on a real terminal: a run started by keys outlives it, whatever ends it."""

import os
import signal
import time

import pytest

from core.runs import events
from core.runs.folder import RunFolder, all_runs
from tests.terminal.terminal import Terminal

CTRL_S = "\x13"
LEAVE_ALTERNATE_SCREEN = "\x1b[?1049l"


def started_run(terminal: Terminal) -> RunFolder:
    """Open the demo, press the key that starts it, and wait for steps; it may be pressed while sftui still reads."""
    terminal.wait_for("Start")
    terminal.type(CTRL_S)
    terminal.wait_until(lambda: bool(all_runs()), "a run's folder")
    (folder,) = all_runs()
    terminal.wait_until(lambda: folder.read_state().step >= 2, "steps")
    terminal.wait_for("tokens/s")
    return folder


def stop(folder: RunFolder) -> None:
    """End the run and wait for its end."""
    with Terminal("core.cli", "stop", folder.id) as stopping:
        assert stopping.wait() == 0
    with Terminal("core.cli", "attach", "--json", folder.id) as attached:
        attached.wait()


@pytest.mark.slow
def test_a_run_started_by_keys_finishes_though_the_app_is_killed_and_is_shown_again() -> None:
    with Terminal("tui_app", "demo") as terminal:
        folder = started_run(terminal)
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait()

    assert folder.is_alive()
    with Terminal("tui_app", "attach", folder.id) as terminal:
        terminal.wait_for("training")
        terminal.wait_until(lambda: folder.read_state().outcome is not None, "the end of the run")
        terminal.wait_for("Finished")
        terminal.type("q")
        assert terminal.wait() == 0
    assert isinstance(folder.read_state().outcome, events.RunFinished)
    assert (folder.adapter / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_a_lost_terminal_ends_the_app_alone_and_quitting_says_that_the_run_goes_on() -> None:
    with Terminal("tui_app", "demo") as terminal:
        folder = started_run(terminal)
        terminal.hang_up()
        deadline = time.monotonic() + 30
        while os.waitpid(terminal.pid, os.WNOHANG) == (0, 0):
            assert time.monotonic() < deadline, "the app did not notice that its terminal is gone"
            time.sleep(0.05)
    assert folder.is_alive()

    with Terminal("tui_app", "attach", folder.id) as terminal:
        terminal.wait_for("tokens/s")
        terminal.type("q")
        assert terminal.wait() == 0
        assert LEAVE_ALTERNATE_SCREEN in terminal.output
        assert f"sftui attach {folder.id}" in terminal.text
    assert folder.is_alive()
    stop(folder)
    assert isinstance(folder.read_state().outcome, events.RunStopped)


def test_a_termination_leaves_the_terminal_as_it_was() -> None:
    with Terminal("tui_app") as terminal:
        terminal.wait_for("New run")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert LEAVE_ALTERNATE_SCREEN in terminal.output
