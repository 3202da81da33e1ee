"""The list of runs: what it shows, what its keys do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.widgets import DataTable

from core.runs import events
from core.runs.checkpoints import place_of
from core.runs.folder import RunFolder
from core.runs.tags import read_tags, write_tags
from tests.tui.helpers import add, alive, begin, home_in, shown, step, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.dialogs.confirm import ConfirmDialog
from tui_app.screens.monitor import MonitorScreen
from tui_app.screens.review import ReviewScreen
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


async def test_keys_work_on_the_first_run_of_a_newcomer_who_comes_home() -> None:
    async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "No runs yet.")
        await pilot.press("t")
        await until_shown(pilot, "5 Review")
        write_run("done-aaaa", [*begin("done-aaaa"), *steps(1, 100), events.RunFinished(100, "adapter", 63.0)])
        await pilot.press("h")
        await until_shown(pilot, "1 run, none live", "n New run", "q Quit")
        table = pilot.app.screen.query_one(DataTable)
        assert not table.show_horizontal_scrollbar
        await pilot.press("space")
        await until_shown(pilot, "1 marked")


async def test_a_run_that_has_ended_meanwhile_is_offered_what_an_ended_one_is() -> None:
    first, second = write_run("run-aaaa", begin("run-aaaa")), write_run("run-bbbb", begin("run-bbbb"))
    async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
        with alive(first):
            await until_shown(pilot, "2 runs, 1 live")
            home = pilot.app.screen
            assert isinstance(home, RunsScreen)
            if home.chosen is None or home.chosen.id != "run-aaaa":
                await pilot.press("j")
            await until_shown(pilot, "s Stop")
            assert "Ask it" not in shown(pilot.app)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, MonitorScreen))
        add(first, [*steps(1, 100), events.RunFinished(100, "adapter", 63.0)])
        with alive(second):
            await pilot.press("h")
            await until_shown(pilot, "2 runs, 1 live", "✓ finished", "a Ask it")


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
        await until_shown(pilot, "done-aaaa", "a Ask it")
        assert "s Stop" not in shown(pilot.app)
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


def _finished(name: str, loss: float, tags: tuple[str, ...] = ()) -> RunFolder:
    happened = [*begin(name), step(9, loss), events.EvaluationCompleted(9, loss + 0.5, 1.0)]
    peak = events.PeakMeasured(9, "gpu", 8_240_000_000, 8_000_000_000, None, 8_000_000_000)
    folder = write_run(name, [*happened, peak, events.RunFinished(9, "adapter", 61.0)])
    write_tags(folder, tags)
    return folder


def rows(app: SftuiApp) -> list[str]:
    """The runs as they are listed, by the last four letters of their ids."""
    return re.findall(r"\brun-(\w{4})\b", shown(app))


async def test_each_run_tells_its_held_out_loss_and_its_peak_beside_the_plan() -> None:
    folder = _finished("run-aaaa", 1.0, ("good",))
    folder.spec_file.write_text("model_name_or_path: m\ndatasets: [{path: json, data_files: /d/support.jsonl}]\n")
    async with SftuiApp(warm=False).run_test(size=(240, 40)) as pilot:
        await until_shown(pilot, "Held-out", "1.500", "8.24 GB   +3 %", "support.jsonl", "good", "QLoRA")


async def test_runs_are_found_by_words_and_sorted() -> None:
    _finished("run-aaaa", 2.0, ("good",))
    _finished("run-bbbb", 1.0)
    _finished("run-cccc", 3.0, ("good", "night"))
    async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "3 runs, none live")
        await pilot.press("o", "o")
        await until_shown(pilot, "by loss")
        assert rows(pilot.app) == ["bbbb", "aaaa", "cccc"]  # type: ignore[arg-type]
        await pilot.press("slash", *"good")
        await until_shown(pilot, "2 with “good”")
        assert rows(pilot.app) == ["aaaa", "cccc"]  # type: ignore[arg-type]
        await pilot.press("space", *"night", "enter")
        await until_shown(pilot, "1 with “good night”")
        assert pilot.app.screen.query_one(DataTable).has_focus
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(pilot.app)) == 3)  # type: ignore[arg-type]
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_a_run_is_deleted_after_saying_what_that_frees() -> None:
    folder = _finished("run-aaaa", 1.0)
    checkpoint = place_of(folder, 9)
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes(1_500_000))
    live = write_run("run-bbbb", begin("run-bbbb"))
    async with SftuiApp(warm=False).run_test(size=NARROW, notifications=True) as pilot:
        with alive(live):
            await until_shown(pilot, "2 runs, 1 live")
            await pilot.press("D")
            await until_shown(pilot, "stop it first" if pilot.app.screen.chosen.id == live.id else "Delete this run?")  # type: ignore[attr-defined]
        await pilot.press("escape", "slash", *"aaaa", "enter", "D")
        await until_shown(pilot, "Delete this run?", "frees 1.50 MB", "1 checkpoint 1.50")
        await pilot.press("y")
        await until(pilot, lambda: not folder.path.exists())
        assert live.path.exists()


async def test_a_run_gets_tags_and_notes_and_tells_its_place() -> None:
    folder = _finished("run-aaaa", 1.0)
    async with SftuiApp(warm=False).run_test(size=WIDE, notifications=True) as pilot:
        await until_shown(pilot, "run-aaaa")
        await pilot.press("T")
        await until_shown(pilot, "Words to find it by")
        await pilot.press(*"best", "enter")
        await until(pilot, lambda: read_tags(folder) == ("best",))
        await pilot.press("N")
        await until_shown(pilot, "It is kept with the run")
        await pilot.press(*"ok", "enter")
        await until(pilot, lambda: folder.notes_file.exists() and "It is kept with the run" not in shown(pilot.app))
        await pilot.press("P")
        await until(pilot, lambda: "The run's folder" in shown(pilot.app))


async def test_a_run_is_cloned_into_a_new_draft() -> None:
    folder = _finished("run-aaaa", 1.0)
    folder.spec_file.write_text(
        "model_name_or_path: /models/small\ndatasets: [{path: /d/support.jsonl}]\nlearning_rate: 0.000123\n"
    )
    async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "run-aaaa")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, ReviewScreen))
        await until_shown(pilot, "/d/support.jsonl", "1.23e-4")


def test_columns_fit_the_terminal() -> None:
    for width in range(80, 240):
        chosen = fitting(width)
        side = 42 if width >= 160 else 0
        assert sum(chosen.values()) + 2 * len(chosen) <= width - side
        assert {"state", "run", "step", "loss"} <= set(chosen)
    assert len(fitting(240)) == 12
    assert {"held_out", "method"} <= set(fitting(120))


def _failure(at: int) -> events.RunFailed:
    return events.RunFailed("OutOfMemory", "Out of memory", "It needed more.", "Halve it.", "traceback.txt", at, 4.0)


async def test_keys_that_do_not_fit_whole_are_left_out_but_never_the_one_that_tells_them_all() -> None:
    write_run("done-aaaa", [*begin("done-aaaa"), events.RunFinished(0, "adapter", 1.0)])
    async with SftuiApp(warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "a Ask it", "? Help", "^p palette")
        assert " space" not in shown(pilot.app)
        await pilot.resize_terminal(*WIDE)
        await until_shown(pilot, "space Mark", "? Help", "q Quit", "^p palette")
