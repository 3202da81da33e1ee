"""A run that is being set up is simulated in the background once it stands still where its cost is shown."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.errors import SftuiError
from core.memory.simulated import Simulation
from core.runs.launch import NoAnswerError, WarmRunner
from core.starter import MODEL
from tests.tui.helpers import until, until_shown
from tui_app import simulating
from tui_app.app import SftuiApp
from tui_app.messages import DraftChanged

DRAFT = {"model_name_or_path": str(MODEL), "max_length": 512, "use_peft": True}
FOUND = Simulation(activations=3 * 10**9, logits=10**9, allocator=5, peak=6 * 10**9, kept=10**9, seconds=2.0)


@dataclass
class FakeWarm:
    """A warm runner that simulates when it may, and answers nothing else."""

    problem: SftuiError | None = None
    is_idle: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def ask(self, question: Mapping[str, Any], timeout: float = 0.0) -> dict[str, Any]:
        """Answer."""
        if question["ask"] != "simulate":
            raise NoAnswerError("Nobody can answer now", "It is a test.")
        self.asked.append(question["task"])
        self.gate.wait(30)
        if self.problem is not None:
            raise self.problem
        return FOUND.to_json()

    def close(self) -> None:
        """End."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a second here."""
    monkeypatch.setattr(simulating, "_STILL_SECONDS", 0.02)


def app_with(monkeypatch: pytest.MonkeyPatch, warm: FakeWarm, screen: str) -> SftuiApp:
    monkeypatch.setattr(WarmRunner, "start", lambda: warm)
    return SftuiApp(draft_values=DRAFT, open_screen=screen)


def levels(app: SftuiApp) -> dict[str, tuple[int | None, str]]:
    """Bytes and level of the parts that a simulation knows better."""
    memory = app.draft.plan.memory if app.draft and app.draft.plan else None
    parts = memory.parts if memory else ()
    return {part.name: (part.bytes, part.level) for part in parts if part.name in ("activations", "logits")}


async def test_what_it_found_is_shown_and_asked_for_again_when_it_costs_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warm = FakeWarm()
    app = app_with(monkeypatch, warm, "precision")
    async with app.run_test(size=(200, 60)) as pilot:
        await until_shown(pilot, "being simulated")
        assert warm.asked[0]["spec"]["max_length"] == 512
        warm.gate.set()
        await until(pilot, lambda: levels(app).get("activations") == (3 * 10**9, "simulated"))
        assert levels(app)["logits"] == (10**9, "simulated")
        await until_shown(pilot, "3.00 GB", "simulated")

        # The learning rate is of no weight; the rank is.
        app.post_message(DraftChanged({"learning_rate": 0.5}))
        await until(pilot, lambda: bool(app.draft and app.draft.values.get("learning_rate") == 0.5))
        assert levels(app)["activations"] == (3 * 10**9, "simulated")
        warm.gate.clear()
        app.post_message(DraftChanged({"lora_r": 64}))
        await until(pilot, lambda: len(warm.asked) == 2)
        assert warm.asked[1]["spec"]["lora_r"] == 64
        assert levels(app)["activations"][1] != "simulated"
        warm.gate.set()
        await until(pilot, lambda: levels(app)["activations"][1] == "simulated")
        assert len(warm.asked) == 2


async def test_why_there_is_none_stands_beside_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = FakeWarm(SftuiError("Not simulated", "8-bit layers are not simulated."))
    warm.gate.set()
    app = app_with(monkeypatch, warm, "precision")
    async with app.run_test(size=(200, 60)) as pilot:
        await until_shown(pilot, "not simulated: 8-bit layers")
        assert levels(app)["activations"][1] != "simulated"


async def test_nobody_simulates_while_a_model_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = FakeWarm()
    warm.gate.set()
    app = app_with(monkeypatch, warm, "model")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.draft and app.draft.simulation_task))
        await pilot.pause(0.3)
        assert warm.asked == []
        app.action_step("training")
        await until(pilot, lambda: levels(app).get("activations") == (3 * 10**9, "simulated"))


async def test_a_timer_that_comes_when_the_app_is_on_its_way_out_does_nothing() -> None:
    app = SftuiApp(open_screen="precision", draft_values=DRAFT, warm=False)
    async with app.run_test() as pilot:
        app.warm = warm = FakeWarm()  # type: ignore[assignment]
        warm.gate.set()
        await until(pilot, lambda: len(warm.asked) == 1)
    assert app.screen_stack == []
    app._simulating._begin()
    assert len(warm.asked) == 1
