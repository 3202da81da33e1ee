"""Runs beside each other: marked in the list, drawn in one chart, with what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.runs import events
from core.runs.folder import RunFolder
from tests.tui.helpers import add, alive, begin, home_in, shown, step, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.screens.compare_runs import CompareRunsScreen
from tui_app.screens.runs import RunsScreen

NARROW, WIDE = (80, 24), (120, 40)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def run(name: str, loss: float, rank: int) -> RunFolder:
    happened = [*begin(name), *(step(number, loss) for number in range(1, 50))]
    folder = write_run(name, [*happened, events.EvaluationCompleted(49, loss, 1.0)])
    folder.spec_file.write_text(f"model_name_or_path: m\ndatasets: [{{path: d.jsonl}}]\nlora_r: {rank}\n")
    return folder


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_marked_runs_share_a_chart_and_a_table(size: tuple[int, int]) -> None:
    folder = run("run-aaaa", 2.0, 16)
    run("run-bbbb", 1.0, 64)
    async with SftuiApp(warm=False).run_test(size=size) as pilot:
        await until_shown(pilot, "2 runs, none live")
        await pilot.press("space")
        await until_shown(pilot, "1 marked", "◆ run-")
        assert "v Compare" not in shown(pilot.app)
        await pilot.press("space")
        await until_shown(pilot, "2 marked")
        await pilot.press("v")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareRunsScreen))
        await until_shown(pilot, "╭─ Loss   over steps", "o run-", "x run-", "1.000 ★")
        await pilot.press("a")
        await until_shown(pilot, "over tokens", "40 k")
        await pilot.press("a", "x")
        await until_shown(pilot, "╭─ Held-out loss   over time of training", "time")
        await pilot.press("end", *["j"] * 12)
        await until_shown(pilot, "Other settings", "lora r")
        with alive(folder):
            await pilot.press("X", "a")
            add(folder, [step(number, 2.0) for number in range(50, 91)])
            await until_shown(pilot, "over steps", "80")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_no_more_than_six_are_marked() -> None:
    for letter in "abcdefg":
        run(f"run-{letter * 4}", 2.0, 16)
    async with SftuiApp(warm=False).run_test(size=WIDE, notifications=True) as pilot:
        await until_shown(pilot, "7 runs, none live")
        await pilot.press(*["space"] * 7)
        await until_shown(pilot, "6 marked", "At most 6 runs")
