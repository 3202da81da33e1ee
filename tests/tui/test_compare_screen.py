"""Asking base and result side by side: loading, streaming, stopping, measuring, leaving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from textual.widgets import Input, OptionList

from core.errors import SftuiError
from core.results.asking import HeldOutPrompt, Opened, Sampling
from core.runs import events
from core.runs.folder import RunFolder
from core.runs.launch import WarmRunner
from tests.tui.helpers import begin, shown, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.dialogs.choose_run import ChooseRun
from tui_app.dialogs.sampling import SamplingDialog
from tui_app.screens.compare import CompareScreen
from tui_app.screens.monitor import MonitorScreen
from tui_app.widgets.answer_pane import AnswerPane

PROMPTS = (
    HeldOutPrompt([{"role": "user", "content": "My parcel is late."}], "My parcel is late.", "parcel / late"),
    HeldOutPrompt([{"role": "user", "content": "My \x1b[31mbill"}], "My \x1b[31mbill", "bill / wrong"),
)
OPENED = Opened(("base", "result", "checkpoint-4"), "cpu", "nf4", "float32", True, PROMPTS, 8)
FIGURES = {"rows": 8, "trained_tokens": 100, "loss": 1.0, "prompts": 2, "whole": True}


@dataclass
class FakeRunner:
    """Answers as a process with a model does: in parts, and until it is told to stop."""

    opened: Opened | SftuiError = OPENED
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    closed: bool = False
    is_idle: bool = True

    def ask(
        self,
        question: Mapping[str, Any],
        timeout: float | None = None,
        hear: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """Answer."""
        assert hear is not None
        self.asked.append(question)
        match question["ask"]:
            case "open_result":
                hear({"name": "the base model", "done": 3, "total": 4})
                self.go_on.wait(20)
                if isinstance(self.opened, SftuiError):
                    raise self.opened
                return self.opened.to_json()
            case "add_result":
                name = question["of"].rpartition("/")[2]
                if "wide" in name:
                    raise SftuiError("No room for a second model", "It takes 9 GB of memory, and 1 GB are free.")
                notice = ("Not the same rows", "Its figures flatter it.")
                assert isinstance(self.opened, Opened)
                return replace(self.opened, sides=(*self.opened.sides, name), notices=(notice,)).to_json()
            case "chat":
                side, long = question["side"], "long" in str(question["turns"])
                hear({"text": f"{side} says "})
                if long:
                    self.cancelled.wait(20)
                    return {"text": f"{side} says ", "tokens": 2, "seconds": 0.5, "end": "stopped"}
                hear({"text": "parcel"})
                text = "parcel / late" if side == "result" else f"{side} says parcel"
                return {"text": text, "tokens": 4, "seconds": 0.5, "end": "ended"}
            case _:
                hear({"side": "base", "what": "perplexity", "done": 3, "total": 8})
                self.cancelled.wait(20)
                figures = {"base": (90.5, 0.25, 0), "result": (1.003, 0.999, 2)}
                return {
                    side: {**FIGURES, "perplexity": p, "token_accuracy": a, "exact": e}
                    for side, (p, a, e) in figures.items()
                }

    def cancel(self) -> None:
        """Stop."""
        self.cancelled.set()

    def close(self) -> None:
        """End."""
        self.closed = True
        self.go_on.set()
        self.cancelled.set()


def finished(name: str = "20260101-tickets-abcd", model: str = "/models/small-model") -> RunFolder:
    started, *rest = begin(name)
    assert isinstance(started, events.RunStarted)
    return write_run(name, [replace(started, model=model), *rest, *steps(1, 3), events.RunFinished(3, "adapter", 9.0)])


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    fake = FakeRunner()
    monkeypatch.setattr(WarmRunner, "start", lambda *_: fake)
    return fake


def pane(app: SftuiApp, place: str) -> AnswerPane:
    return app.screen.query_one(f"#{place}", AnswerPane)


async def test_from_the_monitor_to_two_answers_and_back(runner: FakeRunner) -> None:
    app = SftuiApp(open_screen="monitor", run=finished(), warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "Finished", "Ask it")
        await pilot.press("a")
        await until_shown(pilot, "the base model 75%")
        runner.go_on.set()
        await until_shown(pilot, "nf4, float32 on cpu", "Held-out prompts", "My parcel is late.")
        assert "␛[31mbill" in shown(app), "what rows hold is shown as harmless text"
        await pilot.press("enter")
        await until_shown(pilot, "base says parcel", "✗ differs", "✓ as expected", "expected  parcel / late")
        assert "4 tokens in 0.5 s, 8 tokens/s" in shown(app)
        chats = [asked for asked in runner.asked if asked["ask"] == "chat"]
        assert [asked["side"] for asked in chats] == ["base", "result"]
        assert chats[0]["turns"] == chats[1]["turns"] == PROMPTS[0].turns
        assert chats[0]["sampling"] == chats[1]["sampling"]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        assert runner.closed, "its memory is free"


async def test_a_conversation_goes_on_with_each_sides_own_answers(runner: FakeRunner) -> None:
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "Held-out prompts")
        await pilot.press("enter")
        await until_shown(pilot, "✓ as expected")
        await pilot.press("i", *"and then", "enter")
        await until(pilot, lambda: len(runner.asked) == 5 and app.screen.doing == "")  # type: ignore[attr-defined]
        turns = runner.asked[-1]["turns"]
        assert [turn["content"] for turn in turns] == ["My parcel is late.", "parcel / late", "and then"]
        assert [turn["content"] for turn in runner.asked[-2]["turns"]][1] == "base says parcel"
        # Escape leaves the line first, so that letters are keys again.
        await pilot.press("escape")
        assert not app.screen.query_one("#ask", Input).has_focus
        await pilot.press("n")
        assert pane(app, "right").answer == ""
        await pilot.press("i", *"anew", "enter")
        await until(pilot, lambda: len(runner.asked) == 7)
        assert [turn["content"] for turn in runner.asked[-1]["turns"]] == ["anew"]


async def test_an_answer_is_stopped_and_the_other_side_is_not_asked(runner: FakeRunner) -> None:
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "Held-out prompts")
        await pilot.press("i", *"a long one", "enter", "escape")
        await until_shown(pilot, "base says", "Stop")
        await pilot.press("x")
        await until_shown(pilot, "stopped")
        await until(pilot, lambda: app.screen.doing == "")  # type: ignore[attr-defined]
        assert [asked.get("side") for asked in runner.asked] == [None, "base"]


async def test_both_sides_are_measured_on_rows_held_out(runner: FakeRunner) -> None:
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "Measure")
        await pilot.press("m")
        await until_shown(pilot, "measuring base: reading rows, 3 of 8")
        runner.cancelled.set()
        await until_shown(pilot, "perplexity", "90.5", "25.0%", "0 of 2", "1.003", "99.9%", "2 of 2")
        assert runner.asked[-1] == {"ask": "measure", "sides": ["base", "result"], "rows": 8}


async def test_sampling_and_sides_are_chosen_by_keys(runner: FakeRunner) -> None:
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "likeliest tokens, at most 256")
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, SamplingDialog))
        await pilot.press("end", "backspace", *"hot", "enter")
        await until_shown(pilot, "'hot' is no number")
        await pilot.press("backspace", "backspace", "backspace", *"0.7", "enter")
        await until_shown(pilot, "temperature 0.7, seed 42")
        await pilot.press("b")
        await until(pilot, lambda: pane(app, "right").side == "checkpoint-4")
        await pilot.press("enter")
        await until(pilot, lambda: len(runner.asked) == 3)
        assert runner.asked[-1]["side"] == "checkpoint-4"
        sampling = runner.asked[-1]["sampling"]
        assert Sampling(**sampling) == Sampling(temperature=0.7, max_new_tokens=256)


async def test_another_run_is_chosen_by_keys_and_asked_the_same(runner: FakeRunner) -> None:
    runner.go_on.set()
    mine, wide, other = finished(), finished("20260105-wide-abcd", "another-model"), finished("20260103-other-abcd")
    finished("20260104-empty-abcd")
    for run in (mine, wide, other):
        run.adapter.mkdir()
        (run.adapter / "adapter_config.json").write_text("{}")
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await app.push_screen(CompareScreen(mine))
        await until_shown(pilot, "Held-out prompts")
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, ChooseRun))
        await until_shown(pilot, "= 20260103-other-abcd", "  20260105-wide-abcd", "another-model")
        assert mine.id not in shown(app)
        assert "empty" not in shown(app), "it has nothing to ask"

        await pilot.press("j", "enter")
        await until_shown(pilot, "It takes 9 GB of memory")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        assert pane(app, "right").side == "result", "what was open stays"

        await pilot.press("o")
        await until_shown(pilot, "= 20260103-other-abcd")
        await until(pilot, lambda: isinstance(app.screen.focused, OptionList))
        await pilot.press("enter")
        await until_shown(pilot, f"result of {mine.id}"[:30], "20260103-other-abcd", "Its figures flatter it.")
        await pilot.press("enter")
        await until_shown(pilot, "✓ as expected", "20260103-other-abcd says parcel")
        chats = [asked for asked in runner.asked if asked["ask"] == "chat"]
        assert [asked["side"] for asked in chats] == ["result", other.id]
        assert chats[0]["turns"] == chats[1]["turns"]


async def test_on_a_small_terminal_one_view_is_shown_at_a_time(runner: FakeRunner) -> None:
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "[Prompts]", "My parcel is late.")
        await pilot.press("enter")
        await until_shown(pilot, "[result]", "✓ as expected")
        assert "✗ differs" not in shown(app)
        await pilot.press("left")
        await until_shown(pilot, "[base]", "✗ differs")


async def test_what_cannot_be_loaded_is_told_and_left(runner: FakeRunner) -> None:
    runner.opened = SftuiError("There is no result", "It was not trained to its end.", "--checkpoint 4")
    runner.go_on.set()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "It was not trained to its end.")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: runner.closed)


async def test_leaving_while_it_loads_ends_the_process(runner: FakeRunner) -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(CompareScreen(finished()))
        await until_shown(pilot, "the base model")
        await pilot.press("escape")
        await until(pilot, lambda: runner.closed)
        assert not isinstance(app.screen, CompareScreen)


async def test_the_warm_runner_is_taken_and_only_ended_runs_are_asked(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = "20260101-going-abcd"
    write_run(going, [*begin(going), *steps(1, 3)])
    run = finished("20260102-done-abcd")
    taken: list[FakeRunner] = []

    def start(*_: object) -> FakeRunner:
        taken.append(FakeRunner() if taken else runner)
        return taken[-1]

    monkeypatch.setattr(WarmRunner, "start", start)
    app = SftuiApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.warm is not None)
        await until_shown(pilot, run.id, going)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: bool(runner.asked))
        assert app.warm is None
        assert taken == [runner]
        await pilot.press("escape")
        await until(pilot, lambda: runner.closed)
