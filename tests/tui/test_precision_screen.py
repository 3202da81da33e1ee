"""Step 3: quantization, adapters and their price."""

from pathlib import Path
from typing import Any

import pytest

from tests.tui.setup_helpers import (
    GB,
    Watcher,
    field,
    go_to,
    make_model,
    make_rows,
    one_gpu,
    opened,
    seen,
    sees,
    told,
    wait_for,
)
from tui_app.widgets.memory_bar import bar_cells

pytest_plugins = ["tests.tui.setup_helpers"]


def _values(home: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(make_model(home / "tiny", hidden=256)),
        "datasets": [{"path": str(make_rows(home / "rows.jsonl"))}],
        **more,
    }


def _part(app: Watcher, name: str) -> int | None:
    plan = app.known.plan
    assert plan is not None and plan.memory is not None
    return next(part.bytes for part in plan.memory.parts if part.name == name)


async def test_arrows_choose_the_quantization_and_the_bar_follows(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True)) as (app, pilot):
        whole = _part(app, "base_weights")
        await go_to(pilot, "quantization")
        await pilot.press("right", "right")
        await wait_for(pilot, lambda: app.known.spec is not None and app.known.spec.quantization == "nf4")
        assert (_part(app, "base_weights") or 0) < (whole or 0)
        await sees(pilot, "(•) 4-bit NF4")
        assert "Q constants" in seen(app)
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.spec is not None and app.known.spec.quantization == "fp4")
        await pilot.press("left", "left")
        await wait_for(pilot, lambda: app.known.spec is not None and app.known.spec.quantization == "int8")


async def test_presets_by_key_keep_model_and_data(home: Path) -> None:
    values = _values(home)
    async with opened("precision", values) as (app, pilot):
        for key, method, title in (
            ("f2", "qlora", "QLoRA"),
            ("f3", "lora", "LoRA"),
            ("f4", "full", "Full fine-tuning"),
        ):
            await pilot.press(key)
            await wait_for(pilot, lambda method=method: app.known.spec is not None and app.known.spec.method == method)  # type: ignore[misc]
            await wait_for(pilot, lambda title=title: told(app, "#method") == f"Method: {title}")  # type: ignore[misc]
            assert app.known.values["datasets"] == values["datasets"]
            assert app.known.model is not None


async def test_every_part_is_listed_and_unknown_ones_say_so(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True, load_in_4bit=True)) as (app, _):
        costs = told(app, "PlanPanel")
        for name in ("Base weights", "Quantization constants", "Adapter weights", "Gradients", "Optimizer state"):
            assert name in costs
        assert "Activations – not estimated yet" in costs
        assert "At least" in costs


async def test_double_quantization_says_what_it_saves(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True, load_in_4bit=True)) as (app, pilot):
        await sees(pilot, "on: saves")
        await go_to(pilot, "use_bnb_nested_quant")
        before = _part(app, "quantization_constants")
        await pilot.press("space")
        await wait_for(pilot, lambda: app.known.values.get("use_bnb_nested_quant") is True)
        assert (_part(app, "quantization_constants") or 0) < (before or 0)


async def test_options_that_do_nothing_are_not_shown(home: Path) -> None:
    async with opened("precision", _values(home)) as (app, pilot):
        assert "Rank" not in seen(app)
        assert "Double quant" not in seen(app)
        await go_to(pilot, "use_peft")
        await pilot.press("space")
        await sees(pilot, "Rank")


async def test_quantized_weights_without_adapters_are_refused_where_it_is_mended(home: Path) -> None:
    async with opened("precision", _values(home, load_in_4bit=True)) as (app, pilot):
        assert "✗ is off, but quantized weights cannot be trained." in told(app, "#option-use_peft .note")
        await go_to(pilot, "use_peft")
        await pilot.press("space")
        await wait_for(pilot, lambda: app.known.done("precision"))


async def test_typing_over_a_rank_goes_through_wrong_values_without_losing_a_key(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True)) as (app, pilot):
        rank = await go_to(pilot, "lora_r")
        await pilot.press("end", "backspace", "backspace", "x")
        await wait_for(pilot, lambda: app.known.values.get("lora_r") == "x")
        await sees(pilot, "at its default here: Rank")
        await pilot.press("backspace", "6", "4")
        await wait_for(pilot, lambda: app.known.values.get("lora_r") == 64)
        assert rank.value == "64"
        await pilot.press("backspace", "backspace")
        await wait_for(pilot, lambda: "lora_r" not in app.known.values)
        assert rank.value == "", "an empty field stands for the default, which it shows in grey"


async def test_a_preset_reaches_fields_that_were_typed_in(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True)) as (app, pilot):
        rank = await go_to(pilot, "lora_r")
        await pilot.press("end", "0")
        await wait_for(pilot, lambda: app.known.values.get("lora_r") == 160)
        await pilot.press("f2")
        await wait_for(pilot, lambda: rank.value == "16")


async def test_the_gpu_is_offered_and_others_memory_is_shown(home: Path) -> None:
    async with opened("precision", _values(home), gpus=one_gpu(total=80 * GB, free=40 * GB)) as (app, pilot):
        await sees(pilot, "( ) GPU 0 NVIDIA H100 80GB")
        assert seen(app).count("▒") > 20
        await go_to(pilot, "sftui.device")
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.device.kind == "cpu")
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.device.kind == "gpu")
        assert app.known.values["sftui"]["device"] == "0"


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_option_is_reached_with_the_down_key(home: Path, size: tuple[int, int]) -> None:
    async with opened("precision", _values(home, use_peft=True), size=size) as (app, pilot):
        await go_to(pilot, "quantization")
        for _ in range(8):
            await pilot.press("down")
        assert app.focused is field(app, "lora_target_modules")
        await sees(pilot, "lora_target_modules: Modules that get an adapter")
        assert "Targets" in seen(app)


def test_the_bar_has_a_cell_for_every_part_and_never_too_many() -> None:
    parts = [("W", 50 * GB), ("Q", 1), ("a", 1)]
    assert bar_cells(parts, 10 * GB, 100 * GB, 20) == "WWWWWWWWWWQa······▒▒"
    assert bar_cells([], 0, 100, 10) == "·" * 10
    for width in range(1, 60):
        assert len(bar_cells(parts, 60 * GB, 100 * GB, width)) == width, "also when it does not fit"
    assert bar_cells(parts, 0, 25 * GB, 21).index("┃") == 10
    assert bar_cells(parts, 0, 0, 10) == ""
