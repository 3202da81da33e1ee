"""The list of runs: what it shows, what its keys do."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import DataTable

from core.runs import events
from tests.tui.helpers import add, alive, begin, home_in, shown, step, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.dialogs.confirm import ConfirmDialog
from tui_app.screens.monitor import MonitorScreen
from tui_app.screens.runs import RunsScreen
from tui_app.widgets.run_table import fitting

NARROW, WIDE = (80, 24), (120, 40)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_newcomer_is_told_what_to_do(size: tuple[int, int]) -> None:
    async with SftuiApp(warm=False).run_test(size=size) as pilot:
        await until_shown(pilot, "No runs yet.", "t  try the built-in model", "n  set up a run")


async def test_each_run_has_a_line_with_state_steps_and_loss() -> None:
    write_run("done-aaaa", [*begin("done-aaaa"), *steps(1, 100), events.RunFinished(100, "adapter", 63.0)])
    write_run("bad-bbbb", [*begin("bad-bbbb"), *steps(1, 7), _failure(7)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "2 runs, none live")
        lines = {line.split()[2]: line for line in shown(pilot.app).splitlines() if "-aaaa" in line or "-bbbb" in line}
        assert "✓ finished" in lines["done-aaaa"]
        assert "100 of 100" in lines["done-aaaa"]
        assert "2.000" in lines["done-aaaa"]
        assert "1 min 3 s" in lines["done-aaaa"]
        assert "✗ failed" in lines["bad-bbbb"]
        assert "7 of 100" in lines["bad-bbbb"]


async def test_a_live_run_moves_by_itself_and_the_cursor_stays() -> None:
    write_run("old-aaaa", [*begin("old-aaaa"), *steps(1, 5), events.RunStopped(5, None, "asked to", 3.0)])
    folder = write_run("live-bbbb", [*begin("live-bbbb"), *steps(1, 3)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        with alive(folder):
            await until_shown(pilot, "2 runs, 1 live", "3 of 100")
            await pilot.press("j")
            table = pilot.app.screen.query_one(DataTable)
            before = table.cursor_row
            add(folder, steps(4, 41))
            await until_shown(pilot, "41 of 100", "2.590")
            assert table.cursor_row == before == 1
        await until_shown(pilot, "! interrupted")


async def test_a_diverged_loss_is_shown_in_words() -> None:
    write_run("nan-aaaa", [*begin("nan-aaaa"), step(1, float("nan"))])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "NaN")


async def test_names_are_shown_as_they_are_and_never_as_markup() -> None:
    write_run("[bold]x\x1b[31m-aaaa", begin("x"))
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "[bold]x␛[31m-aaaa")


async def test_enter_watches_the_run_under_the_cursor_and_escape_comes_back() -> None:
    write_run("one-aaaa", [*begin("one-aaaa"), *steps(1, 5)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "one-aaaa")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, MonitorScreen))
        await until_shown(pilot, "Monitor   one-aaaa", "step 5 of 100")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_s_asks_first_and_then_tells_the_runner_to_stop() -> None:
    folder = write_run("live-aaaa", [*begin("live-aaaa"), *steps(1, 3)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        with alive(folder):
            await until_shown(pilot, "1 live")
            await pilot.press("s")
            await until_shown(pilot, "Stop this run?", "saves a checkpoint")
            await pilot.press("escape")
            assert not folder.commands_file.exists()
            await pilot.press("s")
            await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
            await pilot.press("y")
            await until(pilot, folder.commands_file.exists)
            assert '"stop"' in folder.commands_file.read_text()


async def test_stopping_a_run_that_has_ended_is_refused_in_words() -> None:
    folder = write_run("done-aaaa", [*begin("done-aaaa"), events.RunFinished(0, "adapter", 1.0)])
    async with SftuiApp(warm=False).run_test(size=NARROW, notifications=True) as pilot:
        await until_shown(pilot, "done-aaaa")
        await pilot.press("s")
        await until_shown(pilot, "is not running")
        assert not folder.commands_file.exists()


async def test_the_machine_stands_beside_the_list_where_there_is_room() -> None:
    async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Machine", "Memory", "CPU", "Disk")
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "No runs yet.")
        assert "╭─ Machine" not in shown(pilot.app)


async def test_a_long_journal_is_told_by_its_ends() -> None:
    write_run("long-aaaa", [*begin("long-aaaa", 9000), *steps(1, 3000), events.RunStopped(3000, None, "asked", 9.0)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "3,000 of 9,000", "-27.000", "■ stopped")


def test_columns_fit_the_terminal() -> None:
    for width in range(80, 240):
        chosen = fitting(width)
        side = 42 if width >= 110 else 0
        assert sum(chosen.values()) + 2 * len(chosen) <= width - side
        assert {"state", "run", "step", "loss"} <= set(chosen)
    assert len(fitting(200)) == 8


def _failure(at: int) -> events.RunFailed:
    return events.RunFailed("OutOfMemory", "Out of memory", "It needed more.", "Halve it.", "traceback.txt", at, 4.0)
