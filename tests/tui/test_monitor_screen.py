"""Watching a run: its figures, its panes, its commands and its ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.runs import events
from core.runs.folder import RunFolder
from tests.tui.helpers import add, alive, begin, home_in, shown, step, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.screens.monitor import MonitorScreen
from tui_app.screens.runs import RunsScreen

NARROW, WIDE = (80, 24), (120, 40)
_HUNDREDS = re.compile(r"\d00(\.0)? ┤")
_WRAPPED = re.compile(r"\s*│\n│\s*")


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def watching(folder: RunFolder) -> SftuiApp:
    """The app, opened on a run."""
    return SftuiApp(open_screen="monitor", run=folder, warm=False)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_training_run_tells_step_loss_time_and_rate(size: tuple[int, int]) -> None:
    happened = [*begin("run-aaaa"), *steps(1, 40), events.EvaluationCompleted(20, 2.85, 1.0), step(41, 2.5)]
    folder = write_run("run-aaaa", happened)
    with alive(folder):
        async with watching(folder).run_test(size=size) as pilot:
            await until_shown(pilot, "step 41 of 100", "41 %", "loss 2.500", "held-out 2.850  best 2.850 at step 20")
            await until_shown(pilot, "learning rate 2e-4", "gradient norm 0.8", "tokens/s 1,234", "tokens 41.0 k")
            await until_shown(pilot, "epoch 1.64", "per step 0.5 s", "[training ", "loading ✓", "saving")
            assert "left, done at" in shown(pilot.app)
            assert "/100 steps" in shown(pilot.app)


async def test_no_time_is_promised_from_the_first_steps() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 2)])
    with alive(folder):
        async with watching(folder).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "time left known after 3 steps")
            add(folder, steps(3, 3))
            await until_shown(pilot, "left, done at")


async def test_new_steps_appear_and_the_curve_grows() -> None:
    folder = write_run("run-aaaa", begin("run-aaaa"))
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "The curve begins with the first step.", "step 0 of 100")
            add(folder, steps(1, 60))
            await until_shown(pilot, "step 60 of 100", "2.8 ┤", "2.4 ┤")
            add(folder, [events.CheckpointCommitted(60, "checkpoints/checkpoint-60", 12_100_000, 0.3)])
            await until_shown(pilot, "checkpoint at step 60, 12.1 MB in 0.3 s", "─C")


async def test_a_resumed_run_draws_the_steps_done_anew_in_place_of_the_old() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 20), step(21, 900.0), step(22, 900.0)])
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "! Interrupted", "loss 900")
        await until(pilot, lambda: _HUNDREDS.search(shown(pilot.app)) is not None)
        with alive(folder):
            add(folder, [*begin("run-aaaa")[:-1], events.TrainingStarted(100, 4.0, first_step=20), step(21, 2.7)])
            await until_shown(pilot, "step 21 of 100", "2.8 ┤")
            assert _HUNDREDS.search(shown(pilot.app)) is None


async def test_small_terminals_show_one_view_at_a_time() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5), _memory()])
    async with watching(folder).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "[Loss]", "╭─ Loss")
        await pilot.press("v")
        await until_shown(pilot, "[Machine]", "No NVIDIA GPU: runs on the CPU", "This run 2.10 GB")
        await pilot.press("v")
        await until_shown(pilot, "[Answers]", "No sample prompts")
        await pilot.press("v")
        await until_shown(pilot, "[Choices]", "dtype  bfloat16  the checkpoint's own type")
        await pilot.press("left", "left", "left")
        await until_shown(pilot, "[Loss]", "╭─ Loss")


async def test_large_terminals_show_all_of_it() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5), _memory(gpu=True)])
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Loss", "╭─ Machine", "╭─ Answers", "╭─ Choices")
        await until_shown(pilot, "GPU 0  Test GPU", "9.40 GB of 79.1 GB", "97 %  54 °C  612 W")
        assert "[Loss]" not in shown(pilot.app)


async def test_a_trouble_stands_in_the_notice_line_until_it_is_over_and_among_the_choices_for_good() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5)])
    hot = events.TroubleNoticed("gpu_slowed", "GPU 0 is [b]slow\x1b", "Heat.", 5, "go_on")
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "step 5 of 100")
            add(folder, [hot])
            await until_shown(pilot, "! GPU 0 is [b]slow␛", "Choices and 1 problem", "step 5: Heat. The run")
            await until(pilot, lambda: shown(pilot.app).count("! GPU 0 is") == 2)
            add(folder, [events.TroubleEnded("gpu_slowed", 6)])
            await until(pilot, lambda: shown(pilot.app).count("! GPU 0 is") == 1)
            add(folder, [events.TroubleNoticed("not_finite", "The loss is not a number", "Lower it.", 7, "stop")])
            await until_shown(pilot, "✗ The loss is not a number", "Choices and 2 problems", "The run stops.")


async def test_somebody_is_called_when_the_run_rests_for_trouble_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    monkeypatch.setattr("tui_app.alerts.ring", lambda app, words: called.append(words))
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5)])
    with alive(folder):
        async with watching(folder).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "step 5 of 100")
            add(folder, [events.RunPaused(5, "by request")])
            await until_shown(pilot, "paused: by request")
            add(folder, [events.RunContinued(5, 1.0)])
            await until_shown(pilot, "[training ")
            add(folder, [events.RunPaused(5, "The disk is full", "1 GB is needed.")])
            await until(pilot, lambda: called == ["run-aaaa rests: The disk is full"])
            add(folder, [events.RunContinued(5, 1.0)])
            await until_shown(pilot, "[training ")
            add(folder, [events.RunStopped(5, None, "stopped by SIGTERM", 9.0)])
            await until(pilot, lambda: len(called) > 1)
            await pilot.press("d")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
    assert called[-1] == "run-aaaa stopped: stopped by SIGTERM"
    assert "by request" not in " ".join(called)


async def test_the_list_of_runs_calls_somebody_too_and_not_for_what_ended_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    monkeypatch.setattr("tui_app.alerts.ring", lambda app, words: called.append(words))
    write_run("run-aaaa", [*begin("run-aaaa"), events.RunFinished(9, "adapter", 9.0)])
    folder = write_run("run-bbbb", [*begin("run-bbbb"), *steps(1, 5)])
    with alive(folder):
        async with SftuiApp(warm=False).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "run-aaaa", "run-bbbb", "training")
            add(folder, [events.RunFailed("E", "Out of memory", "", "", None, 5, 9.0)])
            await until(pilot, lambda: bool(called))
    assert called == ["run-bbbb failed: Out of memory"]


async def test_answers_stand_side_by_side_and_are_marked_in_words() -> None:
    asked, wanted = "My parcel is [bold]late", "Ticket: DELIVERY."
    base = events.SamplesAnswered("base", 0, (events.Answer(asked, "I am sorry.\x1b[31m", wanted),))
    tuned = events.SamplesAnswered("tuned", 9, (events.Answer(asked, wanted + "\n", wanted),))
    folder = write_run("run-aaaa", [*begin("run-aaaa"), base, *steps(1, 9)])
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "My parcel is", "[bold]late", "I am sorry.␛[31m", "✗ differs", "after training")
            add(folder, [tuned])
            await until_shown(pilot, "✓ as expected", "Answers as expected: base 0 of 1, tuned 1 of 1")


async def test_the_log_is_shown_on_demand_and_followed() -> None:
    folder = write_run("run-aaaa", begin("run-aaaa"))
    folder.log_file.write_text("first line\nbar  1%\rbar 99%\n\x1b]0;title\x07 [red]plain\n")
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Answers")
        assert "first line" not in shown(pilot.app)
        await pilot.press("l")
        await until_shown(pilot, "first line", "bar 99%", "␛]0;title␇ [red]plain")
        assert "bar  1%" not in shown(pilot.app)
        with folder.log_file.open("a") as log:
            log.write("later line\nhalf a li")
        await until_shown(pilot, "later line")
        assert "half a li" not in shown(pilot.app)
        await pilot.press("l")
        await until_shown(pilot, "╭─ Answers")


async def test_a_checkpoint_is_asked_for_acknowledged_and_seen() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5)])
    with alive(folder):
        async with watching(folder).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "step 5 of 100")
            await pilot.press("c")
            await until_shown(pilot, "Asked the runner: write a checkpoint")
            await until(pilot, folder.commands_file.exists)
            add(folder, [events.CommandAccepted(_last_command(folder)["id"], "checkpoint")])
            await until_shown(pilot, "The runner has heard: it writes a checkpoint")
            add(folder, [events.CheckpointCommitted(6, "checkpoints/checkpoint-6", 1_500_000, 0.1)])
            await until_shown(pilot, "checkpoint at step 6, 1.50 MB in 0.1 s")


async def test_stop_asks_and_a_second_stop_offers_to_stop_at_once() -> None:
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5)])
    with alive(folder):
        async with watching(folder).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "step 5 of 100")
            await pilot.press("s")
            await until_shown(pilot, "Stop this run?")
            await pilot.press("n", "s")
            await until_shown(pilot, "Stop this run?")
            await pilot.press("enter")
            await until(pilot, folder.commands_file.exists)
            command = _last_command(folder)
            assert command["command"] == "stop"
            add(folder, [events.CommandAccepted(command["id"], "stop")])
            await until_shown(pilot, "saves and stops. s again stops at once.")
            await pilot.press("s")
            await until_shown(pilot, "Stop at once?", "is lost")
            await pilot.press("y")
            await until(pilot, lambda: _last_command(folder)["command"] == "stop_now")


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_finished_run_says_where_its_result_is(size: tuple[int, int]) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), events.RunFinished(9, "adapter", 63.0)])
    async with watching(folder).run_test(size=size) as pilot:
        await until_shown(pilot, "✓ Finished", "9 steps in 1 min 3 s.", "AutoPeftModelForCausalLM", "took 1 min 3 s")
        seen = "".join(line.strip("│ ") for line in shown(pilot.app).splitlines())
        assert str(folder.adapter) in seen
        assert "c Checkpoint" not in shown(pilot.app)


async def test_a_stopped_run_says_what_was_saved() -> None:
    stopped = events.RunStopped(9, "checkpoints/checkpoint-9", "stopped by a command", 5.0)
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), stopped])
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "■ Stopped", "Stopped by a command, after step 9 and 5.0 s.")
        # A long path goes on in the next line.
        await until(pilot, lambda: "checkpoints/checkpoint-9" in _WRAPPED.sub("", shown(pilot.app)))


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_a_failed_run_says_what_happened_and_what_to_do(size: tuple[int, int]) -> None:
    failed = events.RunFailed(
        "OutOfMemory", "Out of memory [/INST]", "It needed 2 GB more.", "Halve the batch.", "traceback.txt", 3, 4.0
    )
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 3), failed])
    async with watching(folder).run_test(size=size) as pilot:
        await until_shown(
            pilot, "✗ Failed: Out of memory [/INST]", "It needed 2 GB more.", "what to do  Halve the batch."
        )
        await until_shown(pilot, "traceback.txt", "after step 3")


async def test_a_run_whose_runner_vanished_is_interrupted() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 3)])
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "! Interrupted", "No checkpoint was written before.", "runner.log")


async def test_problems_are_told_beside_the_choices() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), events.ProblemNoticed("3 rows were cut", "They end early.")])
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "Choices and 1 problem", "! 3 rows were cut", "They end early.")


async def test_losses_that_are_not_numbers_do_not_break_the_chart() -> None:
    happened = [*begin("r-aaaa"), *steps(1, 20), step(21, float("nan")), step(22, float("inf"))]
    folder = write_run("r-aaaa", happened)
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "loss infinite", "2.90 ┤")
            add(folder, [step(23, float("nan"))])
            await until_shown(pilot, "loss not a number")


async def test_detaching_goes_home_and_leaves_the_run_alone() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 3)])
    with alive(folder):
        async with watching(folder).run_test(size=NARROW) as pilot:
            await until_shown(pilot, "step 3 of 100")
            screen = pilot.app.screen
            assert isinstance(screen, MonitorScreen)
            await pilot.press("d")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            await until(pilot, lambda: not screen._follower._thread.is_alive())
        assert not folder.commands_file.exists()


async def test_nothing_is_drawn_when_nothing_is_new() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), events.RunFinished(9, "adapter", 63.0)])
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "✓ Finished")
        screen = pilot.app.screen
        assert isinstance(screen, MonitorScreen)
        chart = screen.query_one("MetricChart")
        await until(pilot, lambda: not screen._dirty)
        await pilot.pause()
        drawn: list[bool] = []
        chart.refresh = lambda *_, **__: drawn.append(True) or chart  # type: ignore[method-assign, func-returns-value]
        for _ in range(4):
            screen._draw()
            screen._tick()
        assert drawn == []


def _memory(*, gpu: bool = False) -> events.MemorySampled:
    use = events.GpuUse(0, "Test GPU", 79_100_000_000, 9_400_000_000, 9_300_000_000, 97, 54, 612.0)
    return events.MemorySampled(2_100_000_000, 8_000_000_000, 25_000_000_000, 180.0, (use,) if gpu else ())


def _last_command(folder: RunFolder) -> dict[str, str]:
    last: dict[str, str] = json.loads(folder.commands_file.read_text().splitlines()[-1])
    return last


async def test_answers_over_time_are_gone_through_and_asked_for() -> None:
    def answered(step_number: int, text: str) -> events.SamplesAnswered:
        return events.SamplesAnswered("tuned", step_number, (events.Answer("My parcel is late", text, "Ticket."),), 1.0)

    base = events.SamplesAnswered("base", 0, (events.Answer("My parcel is late", "I am sorry.", "Ticket."),))
    folder = write_run(
        "run-aaaa", [*begin("run-aaaa"), *steps(1, 9), base, answered(3, "Tick"), answered(6, "Ticket.")]
    )
    with alive(folder):
        async with watching(folder).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "As expected of 1: base 0, step 3 0, ▸step 6 1", "2 of 2", "✓ as expected")
            await pilot.press("left_square_bracket")
            await until_shown(pilot, "▸step 3 0", "1 of 2")
            await until(pilot, lambda: "✓ as expected" not in shown(pilot.app))
            # What is looked at stays while the model answers again.
            add(folder, [answered(9, "Ticket.")])
            await until_shown(pilot, "1 of 3", "▸step 3 0")
            await pilot.press("right_square_bracket", "right_square_bracket")
            await until_shown(pilot, "3 of 3", "▸step 9 1")
            await pilot.press("A")
            await until_shown(pilot, "Asked the runner: answer the sample prompts")
            await until(pilot, folder.commands_file.exists)
            assert _last_command(folder)["command"] == "sample"


async def test_the_log_is_searched_and_the_events_are_a_list() -> None:
    happened = [*begin("run-aaaa"), *steps(1, 5), events.CheckpointCommitted(5, "checkpoints/checkpoint-5", 100, 0.1)]
    folder = write_run("run-aaaa", happened)
    folder.log_file.write_text("fine\nan Error here\nfine too\n")
    async with watching(folder).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "╭─ Answers")
        await pilot.press("l")
        await until_shown(pilot, "fine too")
        await pilot.press("slash")
        await until_shown(pilot, "Lines with these words")
        await pilot.press(*"error", "enter")
        await until_shown(pilot, "1 of 3 lines with “error”", "an Error here")
        assert "fine too" not in shown(pilot.app)
        await pilot.press("i")
        await until_shown(pilot, "╭─ Events", "dtype = bfloat16", "100 steps to train", "checkpoint")
        await pilot.press("i")
        await until_shown(pilot, "╭─ Answers")
