"""What holds on every screen: keys, dialogs, palette, starting a run, leaving."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from core.devices.gpu import GpuReading
from core.devices.host import HostSnapshot
from core.errors import SftuiError
from core.runs import launch
from core.runs.folder import RunFolder
from core.runs.state import RunState
from core.spec.build import build_spec
from core.spec.presets import PRESETS
from tests.tui.helpers import alive, begin, home_in, steps, until, until_shown, write_run
from tui_app import format as words
from tui_app import machine, messages
from tui_app.app import SftuiApp
from tui_app.background import in_thread
from tui_app.dialogs.error import ErrorDialog
from tui_app.screens.monitor import MonitorScreen
from tui_app.screens.runs import RunsScreen
from tui_app.steps import STEPS
from tui_app.terminal import terminal_is_gone

NARROW, WIDE = (80, 24), (120, 40)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def is_on(app: SftuiApp, name: str) -> bool:
    """Whether the app shows this step."""
    return app.screen is app.get_screen(name)


async def test_digits_go_to_the_steps_and_h_goes_home() -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=NARROW) as pilot:
        for number, name in enumerate(STEPS, start=1):
            app.set_focus(None)
            await pilot.press(str(number))
            await until(pilot, partial(is_on, app, name))
            await until_shown(pilot, f"[{number} {name.title()}")
        app.set_focus(None)
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_digits_type_into_inputs_and_nothing_typed_is_lost() -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press("3", "x", "5")
        await until(pilot, lambda: app.draft is not None and app.draft.values.get("model_name_or_path") == "3x5")
        assert app.screen is app.get_screen("model")


async def test_escape_goes_back_step_by_step_and_then_home() -> None:
    app = SftuiApp(warm=False, open_screen="precision")
    async with app.run_test(size=NARROW) as pilot:
        for name in ("precision", "data", "model"):
            await until(pilot, partial(is_on, app, name))
            app.set_focus(None)
            await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_the_starter_fills_the_draft_and_waits_for_review() -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=WIDE) as pilot:
        await until_shown(pilot, "No runs yet.")
        await pilot.press("t")
        await until_shown(pilot, "[5 Review")
        assert app.draft is not None
        assert app.draft.values["learning_rate"] == PRESETS["starter"].values["learning_rate"]


async def test_a_prefilled_draft_is_opened_where_it_was_asked_for() -> None:
    app = SftuiApp(warm=False, draft_values={"learning_rate": 3e-4}, open_screen="training")
    async with app.run_test(size=WIDE) as pilot:
        await until_shown(pilot, "[4 Training")
        assert app.draft is not None
        assert app.draft.values["learning_rate"] == 3e-4


async def test_a_question_mark_lists_the_keys_of_the_screen() -> None:
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        await pilot.press("question_mark")
        await until_shown(pilot, "Keys of this screen", "Set up a run", "Find any action by its name")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_the_palette_finds_actions_by_name() -> None:
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        await pilot.press("ctrl+p")
        await until_shown(pilot, "New run", "Set up a run (n)", "3 Precision")
        await pilot.press(*"review")
        await until_shown(pilot, "5 Review")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: pilot.app.screen is pilot.app.get_screen("review"))


async def test_errors_are_shown_in_words_over_the_screen() -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        app.post_message(messages.ErrorRaised(SftuiError("No [b]such file", "It is \x1b[31mgone.", "Look again.")))
        await until_shown(pilot, "✗ No [b]such file", "It is ␛[31mgone.", "Look again.")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_a_defect_keeps_its_traceback_in_a_file(tmp_path: Path) -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        try:
            raise KeyError("lost")
        except KeyError as error:
            app.post_message(messages.ErrorRaised(error))
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        await until_shown(pilot, "A defect in sftui", "KeyError: 'lost'")
        [kept] = (tmp_path / "state" / "sftui").glob("error-*.txt")
        assert "test_a_defect_keeps" in kept.read_text()


@dataclass
class FakeWarm:
    """A warm runner that takes a run or not."""

    takes: bool
    got: list[RunFolder]
    closed: bool = False
    is_idle: bool = True

    def run(self, folder: RunFolder) -> bool:
        """Take the run."""
        self.got.append(folder)
        return self.takes

    def close(self) -> None:
        """End."""
        self.closed = True


@pytest.mark.parametrize("takes", [True, False])
async def test_a_run_goes_to_the_warm_runner_or_else_to_a_cold_one(
    takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cold = FakeWarm(takes, []), list[RunFolder]()
    monkeypatch.setattr(launch.WarmRunner, "start", lambda: warm)
    monkeypatch.setattr(launch, "start_run", cold.append)
    spec = build_spec(PRESETS["starter"].values)
    app = SftuiApp()
    async with app.run_test(size=NARROW) as pilot:
        await until(pilot, lambda: app.warm is not None)
        app.post_message(messages.StartRequested(spec))
        app.post_message(messages.StartRequested(spec))
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until_shown(pilot, "waiting for the runner")
        assert len(warm.got) == 1
        assert len(cold) == (0 if takes else 1)
        assert warm.got[0].spec_file.exists()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
    assert warm.closed is not takes


async def test_a_run_that_cannot_be_created_leaves_the_draft_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: RunFolder) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch, "start_run", refuse)
    app = SftuiApp(warm=False, draft_values={"learning_rate": 3e-4}, open_screen="review")
    async with app.run_test(size=NARROW) as pilot:
        await until_shown(pilot, "[5 Review")
        app.post_message(messages.StartRequested(build_spec(PRESETS["starter"].values)))
        await until_shown(pilot, "The system refused", "No space left on device")
        await pilot.press("escape")
        await until_shown(pilot, "[5 Review")
        assert app.draft is not None
        assert app.draft.values["learning_rate"] == 3e-4


async def test_q_leaves_though_a_run_is_live() -> None:
    folder = write_run("live-aaaa", [*begin("live-aaaa"), *steps(1, 3)])
    app = SftuiApp(warm=False)
    with alive(folder):
        async with app.run_test(size=NARROW) as pilot:
            await until_shown(pilot, "1 live")
            await pilot.press("q")
            await until(pilot, lambda: app._exit)
    assert app.return_code == 0
    assert not folder.commands_file.exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_signals_leave_with_their_status(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui_app.app.leave_for_certain", lambda status: None)
    app = SftuiApp(warm=False)
    async with app.run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        os.kill(os.getpid(), number)
        await until(pilot, lambda: app._exit)
    assert app.return_code == 128 + number


def test_a_closed_terminal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "rb", buffering=0) as stdin:
        monkeypatch.setattr("sys.__stdin__", stdin)
        assert not terminal_is_gone()
        os.close(ours)
        assert terminal_is_gone()


async def test_a_driver_that_hangs_hangs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.devices.gpu.GpuMonitor.read", lambda _: time.sleep(60))
    began = time.monotonic()
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
    assert time.monotonic() - began < 20


async def test_what_fails_in_a_thread_fails_where_it_is_awaited() -> None:
    with pytest.raises(SftuiError, match="No such run"):
        await in_thread(_raiser(SftuiError("No such run", "It is gone.")))
    assert await in_thread(lambda: 7) == 7


def test_free_memory_must_move_before_a_plan_is_made_again() -> None:
    def devices(available: int) -> tuple[GpuReading, HostSnapshot]:
        host = HostSnapshot(2, 5.0, 10**10, 10**10 - available, available, 10**11, "cpu")
        return GpuReading((), None, "no driver"), host

    assert machine.same_memory(devices(5 * 10**9), devices(5 * 10**9 + 10**6))
    assert not machine.same_memory(devices(5 * 10**9), devices(6 * 10**9))
    assert not machine.same_memory(None, devices(10**9))


def test_numbers_are_told_as_people_read_them() -> None:
    assert words.small(0.0002) == "2e-4"
    assert words.small(1.83e-5) == "1.83e-5"
    assert words.loss(1.0421) == "1.042"
    assert words.steps(1240, 4000) == "1,240 of 4,000"
    assert words.trend_words(-0.0131) == "▼ 0.013/100 steps"
    assert words.time_line(RunState(), 0.0, alive=True) == "waiting for the runner"


def _raiser(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail
