"""The app keeps a warm runner at hand, and plans with what it tells of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any

import pytest

from core.devices.gpu import GpuMonitor
from core.errors import SftuiError
from core.memory.layer_traces import LayerTraces
from core.models.architecture import detect
from core.models.inventory_file import Inventory, InventoryParameter, library_versions
from core.runs import launch, queue
from core.runs.folder import RunFolder
from core.runs.launch import NoAnswerError, WarmRunner, trains_on_cpu
from core.spec.build import build_spec
from core.spec.presets import PRESETS
from core.starter import MODEL
from tests.tui.helpers import alive, begin, steps, until, until_shown, write_run
from tests.unit.test_choose_device import gpu, reading
from tui_app import messages
from tui_app.app import SftuiApp
from tui_app.screens.monitor import MonitorScreen

STARTER = {"model_name_or_path": str(MODEL)}
PARAMETER = InventoryParameter(
    "model.layers.0.mlp.up_proj.weight", (1000, 64), None, (), "Linear", None, True, (64, 1000), "linear", "text"
)


@dataclass
class FakeWarm:
    """A warm runner that answers, or raises what it is told to."""

    says: Inventory | SftuiError
    is_idle: bool = True
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def ask(self, question: Mapping[str, Any], timeout: float = 0.0) -> dict[str, Any]:
        """Answer."""
        self.asked.append(question)
        if isinstance(self.says, SftuiError):
            raise self.says
        if question["ask"] == "layers":
            return LayerTraces.none(on_gpu=question["on_gpu"]).to_json()
        return self.says.to_json()

    def run(self, folder: RunFolder) -> bool:
        """Take the run."""
        self.is_idle = False
        return True

    def close(self) -> None:
        """End."""


def starts(monkeypatch: pytest.MonkeyPatch, *runners: FakeWarm) -> list[FakeWarm]:
    """The runners that are still to come; each start takes one."""
    coming = list(runners)
    monkeypatch.setattr(WarmRunner, "start", lambda: coming.pop(0))
    return coming


def inventory() -> Inventory:
    return Inventory("llama", "AutoModelForCausalLM", library_versions(), (PARAMETER,))


async def test_the_plan_becomes_exact_when_the_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = FakeWarm(inventory())
    starts(monkeypatch, warm)
    app = SftuiApp(draft_values=STARTER, open_screen="precision")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.draft and app.draft.model and app.draft.model.inventory))
        await until(pilot, lambda: bool(app.draft and app.draft.plan))
        assert app.draft and app.draft.plan and app.draft.plan.memory
        assert app.draft.plan.memory.exact
        assert app.draft.plan.memory.total_parameters == 64_000
        question = {"ask": "inventory", "folder": str(MODEL), "auto_class": detect(MODEL).auto_class}
        assert [one for one in warm.asked if one["ask"] == "inventory"] == [question]


async def test_a_model_that_cannot_be_built_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = FakeWarm(SftuiError("The model cannot be built", "no such layer", "Check it."))
    starts(monkeypatch, warm)
    app = SftuiApp(draft_values=STARTER, open_screen="model")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.draft and app.draft.model and app.draft.model.unbuilt))
        await until(pilot, lambda: bool(app.draft and app.draft.plan))
        assert app.draft is not None
        told = [problem for problem in app.draft.problems if "no such layer" in problem.message]
        assert [(problem.field, problem.level) for problem in told] == [("model_name_or_path", "warning")]
        assert app.draft.plan and app.draft.plan.memory and not app.draft.plan.memory.exact
        assert len(warm.asked) == 1


async def test_after_a_run_has_taken_it_the_next_set_up_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    silent, second = FakeWarm(NoAnswerError("Nobody can answer now", "It has a run.")), FakeWarm(inventory())
    coming = starts(monkeypatch, silent, second)
    app = SftuiApp(draft_values=STARTER, open_screen="model")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(silent.asked))
        assert app.draft and app.draft.model and app.draft.model.wants_inventory
        app.post_message(messages.StartRequested(build_spec(PRESETS["starter"].values)))
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until_shown(pilot, "waiting for the runner")
        assert coming == [second]
        app.action_step("precision")
        await until(pilot, lambda: bool(app.draft and app.draft.model and app.draft.model.inventory))
        assert coming == []


async def test_none_is_started_while_a_run_trains_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run("2026-01-01-training-aaaa", [*begin("training"), *steps(1, 3)])
    warm = FakeWarm(inventory())
    coming = starts(monkeypatch, warm)
    assert not trains_on_cpu()
    app = SftuiApp(draft_values=STARTER, open_screen="model")
    with alive(folder):
        assert trains_on_cpu()
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: bool(app.draft and app.draft.model))
            await until(pilot, lambda: not app._warming)
            assert coming == [warm]
            assert app.warm is None


def test_a_run_on_the_gpu_leaves_the_cpu_free(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run("2026-01-01-training-aaaa", [*begin("training"), *steps(1, 3)])
    chosen = launch._device("auto")
    assert chosen is not None
    with alive(folder):
        monkeypatch.setattr(launch, "_device", lambda wish: type(chosen)(object(), chosen.choice))  # type: ignore[arg-type]
        assert not trains_on_cpu()
        folder.spec_file.write_text("sftui: {device: cpu}\n")
        assert trains_on_cpu()


def test_it_does_not_take_a_run_onto_a_gpu_that_another_has_got_since(monkeypatch: pytest.MonkeyPatch) -> None:
    two = reading(gpu(0, 24), gpu(1, 24))
    monkeypatch.setattr(GpuMonitor, "read", lambda _: two)
    silent = ["sh", "-c", "exec cat >/dev/null"]
    monkeypatch.setattr(launch, "_spawn", lambda *_, stdin, output, **__: Popen(silent, stdin=stdin, stdout=output))
    other, folder = write_run("other-aaaa", begin("other-aaaa")), write_run("new-bbbb", [])
    warm = WarmRunner.start()
    with alive(other):
        queue.take(other.path, lambda _: "GPU-0000-aaaa")
        assert not warm.run(folder)
        folder.spec_file.write_text("sftui: {device: 0}\n")
        assert warm.run(folder), "it is asked for"
    assert warm.wait(60) == 0
