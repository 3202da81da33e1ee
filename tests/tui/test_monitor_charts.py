"""The chart of a run: every figure, on the whole screen, with a cursor, zoom, logarithm and smoothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.runs import events
from tests.tui.helpers import add, alive, begin, home_in, shown, step, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.charts import curve
from tui_app.widgets.chart_pane import ChartPane

NARROW, WIDE = (80, 24), (120, 40)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_g_gives_the_chart_the_screen_and_the_cursor_reads_it(size: tuple[int, int]) -> None:
    happened = [*begin("r-aaaa"), *steps(1, 90), events.EvaluationCompleted(50, 2.6, 1.0)]
    folder = write_run("r-aaaa", happened)
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=size) as pilot:
        await until_shown(pilot, "╭─ Loss", "●")
        assert "put a cursor" not in shown(pilot.app)
        await pilot.press("g")
        await until_shown(pilot, "put a cursor on the curve", "←→ Cursor")
        assert "╭─ Machine" not in shown(pilot.app)
        await pilot.press("end")
        await until_shown(pilot, "step 90", "loss 2.100", "held-out 2.600 at 50")
        await pilot.press("home")
        await until_shown(pilot, "step 1 ", "loss 2.990")
        await pilot.press("right", "right")
        await until(pilot, lambda: "step 1 " not in shown(pilot.app))
        await pilot.press("g")
        await until_shown(pilot, "[Loss]" if size == NARROW else "╭─ Machine")
        assert "put a cursor" not in shown(pilot.app)


async def test_every_figure_has_its_chart_with_its_unit() -> None:
    happened = [
        *begin("r-aaaa"),
        *(
            step(number, 2.0, token_accuracy=number / 100, entropy=1.5, data_seconds=0.01, optimizer_seconds=0.1)
            for number in range(1, 60)
        ),
        events.MemorySampled(2_000_000_000, 4_000_000_000, 8_000_000_000, 90.0),
    ]
    folder = write_run("r-aaaa", happened)
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Loss")
        await pilot.press("x")
        await until_shown(pilot, "╭─ Learning rate")
        await pilot.press("X", "g", "down", "down", "down")
        await until_shown(pilot, "╭─ Token accuracy", "▸ Token accuracy    59.00 %", "40 % ┤")
        await until_shown(pilot, "Entropy", "1.500", "Data wait", "10 ms", "2.000 GB")
        await pilot.press("up", "up", "up", "up")
        await until_shown(pilot, "╭─ Memory", "GB ┤")


async def test_zoom_pan_and_whole_run() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa", 500), *steps(1, 200)])
    with alive(folder):
        async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "╭─ Loss", "200")
            await pilot.press("g")
            await until_shown(pilot, "w shows the whole run", "200")
            await pilot.press("plus")
            await until_shown(pilot, "steps 100 to 200")
            # What is looked at at its newest end goes on with the run.
            add(folder, steps(201, 250))
            await until_shown(pilot, "steps 150 to 250")
            await pilot.press("left_square_bracket")
            await until_shown(pilot, "steps 101 to 200")
            await pilot.press("minus")
            await until_shown(pilot, "steps 1 to 200")
            await pilot.press("w")
            await until(pilot, lambda: "steps " not in shown(pilot.app))


async def test_the_axis_may_be_logarithmic_and_the_line_a_longer_mean() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *(step(number, 10 ** (-number / 10)) for number in range(1, 41))])
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Loss")
        await pilot.press("y")
        await until_shown(pilot, "╭─ Loss   log", "1e-4" if "1e-4" in shown(pilot.app) else "0.001")
        await pilot.press("e", "e")
        await until_shown(pilot, "mean of about 10   log")
        pane = pilot.app.screen.query_one(ChartPane)
        assert len(pane._curves.of(pane.metric).smooth) == 40


async def test_pauses_and_resumes_are_marked_on_the_axis() -> None:
    happened = [
        *begin("r-aaaa"),
        *steps(1, 30),
        events.RunPaused(30, "by request"),
        events.RunContinued(30, 9.0),
        *steps(31, 60),
        events.CheckpointCommitted(60, "checkpoints/checkpoint-60", 100, 0.1),
        events.RunStopped(60, "checkpoints/checkpoint-60", "by request", 9.0),
        events.RunStarted("r-aaaa", "m", "lora", 1, "0.1.0", warm=False),
        events.TrainingStarted(100, 4.0, first_step=60),
        *steps(61, 90),
        events.RunPaused(90, "by request"),
    ]
    folder = write_run("r-aaaa", happened)
    with alive(folder):
        async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "▸", "‖", "step 90 of 100")
            axis = next(line for line in shown(pilot.app).splitlines() if "└" in line)
            assert axis.index("▸") < axis.rindex("▸") < axis.index("‖")


async def test_a_long_history_is_drawn_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "SLICE", 40)
    monkeypatch.setattr("tui_app.charts.run_curves.SLICE", 40)
    folder = write_run("r-aaaa", [*begin("r-aaaa", 500), *steps(1, 200)])
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Loss")
        pane = pilot.app.screen.query_one(ChartPane)
        await until(pilot, lambda: len(pane._curves.of(pane.metric).raw) == 200)
