"""Step 5: the whole run on one page; it starts only when nothing stands in the way."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.spec.presets import PRESETS
from core.spec.yaml_file import read_spec
from tests.tui.setup_helpers import make_model, make_rows, one_gpu, opened, seen, sees, told, wait_for
from tui_app.messages import StartRequested

pytest_plugins = ["tests.tui.setup_helpers"]


def _values(home: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(make_model(home / "tiny")),
        "datasets": [{"path": str(make_rows(home / "rows.jsonl"))}],
        **more,
    }


async def test_a_prefilled_draft_is_read_summed_up_and_started(home: Path) -> None:
    values = _values(home, **PRESETS["qlora"].values)
    async with opened("review", values) as (app, pilot):
        facts = told(app, "#facts")
        assert "llama" in facts
        assert "QLoRA: adapters on a quantized base model" in facts
        assert "12, messages `messages` holds turns with" in facts
        # Which of the two depends on the processor.
        reasons = ("bfloat16 the checkpoint's own type", "float32 this CPU has no matrix unit")
        assert any(reason in facts for reason in reasons), "what sftui chose says why"
        await pilot.press("ctrl+s")
        await wait_for(pilot, lambda: bool(app.asked))
        started = app.asked[0]
        assert isinstance(started, StartRequested)
        assert started.spec == app.known.spec
        assert started.plan == app.known.plan


async def test_the_button_starts_too(home: Path) -> None:
    async with opened("review", _values(home)) as (app, pilot):
        await pilot.press("tab", "enter")
        await wait_for(pilot, lambda: bool(app.asked))


async def test_enter_on_the_summary_starts_nothing(home: Path) -> None:
    async with opened("review", _values(home)) as (app, pilot):
        await pilot.press("enter", "enter")
        await pilot.pause()
        assert not app.asked


async def test_nothing_starts_while_something_is_wrong(home: Path) -> None:
    async with opened("review", _values(home, learning_rate="fast")) as (app, pilot):
        assert "✗ 4 Training Learning rate: must be a number" in told(app, "#problems")
        assert app.screen.query_one("#start").disabled
        assert "Cannot start: 1 problem stands in the way" in told(app, "#why")
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert not app.asked
        await pilot.press("4")
        await sees(pilot, "[4 Training")


async def test_an_empty_draft_says_which_steps_are_missing(home: Path) -> None:
    async with opened("review", size=(80, 24)) as (app, _):
        assert "✗ 1 Model" in told(app, "#problems")
        assert "✗ 2 Data" in told(app, "#problems")


async def test_a_model_that_is_not_there_is_a_problem_of_step_one(home: Path) -> None:
    values = _values(home) | {"model_name_or_path": str(home / "gone")}
    async with opened("review", values) as (app, _):
        assert "✗ 1 Model" in told(app, "#problems")


async def test_y_shows_the_file_that_will_be_written_and_back(home: Path) -> None:
    async with opened("review", _values(home, seed=77)) as (app, pilot):
        await pilot.press("y")
        await sees(pilot, "# A run of sftui")
        text = str(app.screen.query_one("#yaml").content)  # type: ignore[attr-defined]
        assert yaml.safe_load(text)["seed"] == 77
        (home / "run.yaml").write_text(text)
        assert read_spec(home / "run.yaml") == app.known.spec
        await pilot.press("y")
        await sees(pilot, "Loaded by")


async def test_a_run_that_does_not_fit_is_said_to_before_it_starts(home: Path) -> None:
    async with opened("review", _values(home), gpus=one_gpu(free=1000)) as (app, pilot):
        await sees(pilot, "✗ does not fit")
        assert "does not fit" in told(app, "#facts").lower()


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_starter_preset_is_ready_to_start(home: Path, size: tuple[int, int]) -> None:
    async with opened("review", dict(PRESETS["starter"].values), size=size) as (app, pilot):
        assert app.known.errors == ()
        await sees(pilot, "Start ctrl+s")
        assert "[5 Review" in seen(app)


async def test_digits_go_from_step_to_step_and_are_not_typed_into_what_is_filled_in(home: Path) -> None:
    async with opened("review", _values(home)) as (app, pilot):
        before = dict(app.known.values)
        for key, name in (("1", "ModelScreen"), ("2", "DataScreen"), ("4", "TrainingScreen"), ("5", "ReviewScreen")):
            await pilot.press(key)
            await wait_for(pilot, lambda name=name: type(app.screen).__name__ == name)  # type: ignore[misc]
            await pilot.pause()
        assert dict(app.known.values) == before
