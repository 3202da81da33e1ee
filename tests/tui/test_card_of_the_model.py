"""Step 1: what the card says of the chosen model, and the choices that it offers."""

from pathlib import Path

import pytest

from core.paths import config_home
from tests.tui.setup_helpers import make_model, one_gpu, opened, seen, sees, told, types, wait_for
from tui_app.messages import ModelChanged
from tui_app.screens.model import ModelScreen

pytest_plugins = ["tests.tui.setup_helpers"]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_model_that_can_be_both_is_loaded_with_vision_or_text_only_at_a_key(
    home: Path, size: tuple[int, int]
) -> None:
    named = ["Qwen3_5ForConditionalGeneration"]
    folder = make_model(home / "both", model_type="qwen3_5", architectures=named, vision_config={})
    async with opened("model", {"model_name_or_path": str(folder)}, size=size) as (app, pilot):
        await wait_for(pilot, lambda: "with vision v, ctrl+t text only" in told(app, "ModelCard"))
        await sees(pilot, "^t Vision")
        await pilot.press("ctrl+t")
        await wait_for(pilot, lambda: "text only v, ctrl+t with vision" in told(app, "ModelCard"))
        assert app.known.spec is None or app.known.spec.sftui.load_as == "text"
        assert app.known.values["sftui"] == {"load_as": "text"}
        assert app.known.model is not None
        assert app.known.model.architecture.auto_class == "AutoModelForCausalLM"
        await pilot.press("v")
        await wait_for(pilot, lambda: app.known.values["sftui"] == {"load_as": "vision"})


async def test_a_model_with_one_way_offers_no_other(home: Path) -> None:
    async with opened("model", {"model_name_or_path": str(make_model(home / "tiny"))}) as (app, pilot):
        await sees(pilot, "AutoModelForCausalLM")
        assert "^t" not in seen(app)
        await pilot.press("ctrl+t")
        assert "sftui" not in app.known.values


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_models_own_code_is_named_and_only_the_typed_word_allows_it(home: Path, size: tuple[int, int]) -> None:
    folder = make_model(home / "mine", model_type="mystery", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (folder / "modeling_mine.py").write_text("raise SystemExit('this must never run')\n")
    async with opened("model", {"model_name_or_path": str(folder)}, size=size) as (app, pilot):
        await wait_for(pilot, lambda: "modeling_mine.py" in told(app, "ModelCard"))
        await pilot.press("ctrl+o")
        await sees(pilot, "This model runs its own code")
        assert "modeling_mine.py" in seen(app)
        assert "sha256-" in seen(app)
        await pilot.press("enter")
        await types(pilot, "yes")
        await pilot.press("enter")
        await sees(pilot, "Type allow and press Enter")
        await pilot.press("escape")
        await sees(pilot, "[1 Model]")
        assert not (config_home() / "allowed_code.json").exists()
        await pilot.press("ctrl+o")
        await sees(pilot, "Type allow and press Enter")
        await types(pilot, "allow")
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        assert str(folder) in (config_home() / "allowed_code.json").read_text()
        assert "allowed at sha256-" in told(app, "ModelCard")
        (folder / "modeling_mine.py").write_text("raise SystemExit('changed')\n")
        app.post_message(ModelChanged(str(folder)))
        await wait_for(pilot, lambda: app.known.model_problem is not None)


async def test_code_of_another_repository_is_never_offered(home: Path) -> None:
    folder = make_model(
        home / "mine", model_type="mystery", auto_map={"AutoModelForCausalLM": "other/repo--modeling.Mine"}
    )
    async with opened("model", {"model_name_or_path": str(folder)}) as (app, pilot):
        await wait_for(pilot, lambda: "cannot be allowed here" in told(app, "ModelCard"))
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert isinstance(app.screen, ModelScreen)


async def test_the_card_says_what_the_weights_leave_of_the_free_memory(home: Path) -> None:
    folder = make_model(home / "tiny")
    async with opened("model", {"model_name_or_path": str(folder)}, gpus=one_gpu(free=200_000)) as (app, pilot):
        await wait_for(pilot, lambda: "more than is free" in told(app, "ModelCard"))
        assert "✓ leaves" in told(app, "ModelCard")
        assert "200 kB free" in told(app, "ModelCard")
