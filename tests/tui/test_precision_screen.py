"""Step 3: quantization, adapters and their price."""

from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Label

from core.spec.run_spec import options
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
    types,
    wait_for,
)
from tui_app.messages import DraftChanged
from tui_app.widgets.memory_bar import bar_cells
from tui_app.widgets.spec_form import FormRow

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
    async with opened("precision", _values(home, use_peft=True, load_in_4bit=True)) as (app, pilot):
        costs = told(app, "PlanPanel")
        for name in ("Base weights", "Quantization constants", "Adapter weights", "Gradients", "Optimizer state",
                     "Activations", "Loss head", "Allocator and context", "Together"):  # fmt: skip
            assert name in costs
        # How long the rows are is not known without a limit, before they are counted.
        app.post_message(DraftChanged({"max_length": None}))
        await wait_for(pilot, lambda: "Activations – not estimated" in told(app, "PlanPanel"))
        assert "At least" in told(app, "PlanPanel")


async def test_double_quantization_says_what_it_saves(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True, load_in_4bit=True)) as (app, pilot):
        await sees(pilot, "on: −")
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


_MORE = (
    "sftui.start_from_adapter",
    "use_rslora",
    "use_dora",
    "sftui.init_lora_weights",
    "lora_modules_to_save",
    "lora_target_parameters",
    "sftui.train_vision",
    "sftui.skip_modules",
    "bnb_4bit_quant_storage",
    "sftui.allow_hub_kernels",
)


def _shown_options(app: Watcher) -> list[str]:
    rows = app.screen.query(FormRow)
    return [(row.id or "").removeprefix("option-") for row in rows if row.display]


async def test_every_option_of_precision_and_adapters_has_its_row(home: Path) -> None:
    both = ["Qwen3_5ForConditionalGeneration"]
    folder = make_model(home / "seeing", model_type="qwen3_5", architectures=both, vision_config={})
    values = _values(home, use_peft=True, load_in_4bit=True) | {"model_name_or_path": str(folder)}
    async with opened("precision", values) as (app, pilot):
        there = _shown_options(app)
        made_into_one = {"load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type"}
        for name, option in options().items():
            if option.group in ("precision", "adapter") and name not in made_into_one:
                assert name.replace(".", "-") in there, name
        # The usual ones come first, on the page that one sees first.
        assert there[-len(_MORE) :] == [name.replace(".", "-") for name in _MORE]
        await go_to(pilot, "sftui.train_vision")
        await pilot.press("space")
        await wait_for(pilot, lambda: app.known.spec is not None and app.known.spec.sftui.train_vision)


async def test_options_that_need_a_vision_tower_or_quantized_weights_come_with_them(home: Path) -> None:
    async with opened("precision", _values(home)) as (app, pilot):
        assert not {"sftui-train_vision", "sftui-skip_modules"} & set(_shown_options(app))
        headings = [str(label.content) for label in app.screen.query(".heading").results(Label) if label.display]
        assert headings == ["Base model", "Adapters", "More of precision"], "none stands over nothing"
        await pilot.press("f2")
        await wait_for(pilot, lambda: "sftui-skip_modules" in _shown_options(app))
        await go_to(pilot, "sftui.skip_modules")
        await types(pilot, "down_proj, o_proj")
        await wait_for(
            pilot,
            lambda: app.known.spec is not None and app.known.spec.sftui.skip_modules == ["down_proj", "o_proj"],
        )
        await sees(pilot, "without: −")


async def test_trained_and_total_parameters_are_counted_to_the_last_one(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True), size=(80, 24)) as (app, pilot):
        memory = app.known.plan.memory  # type: ignore[union-attr]
        assert memory is not None
        counted = f"Trains {memory.trainable_parameters:,} of {memory.total_parameters:,} parameters"
        await sees(pilot, counted)
        await pilot.press("f4")
        await sees(pilot, f"Trains {memory.total_parameters:,} of {memory.total_parameters:,} parameters")


async def test_the_price_of_an_option_is_told_while_one_is_on_it(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True)) as (app, pilot):
        assert "rank" not in told(app, "#option-lora_r .note")
        await go_to(pilot, "lora_r")
        await wait_for(pilot, lambda: "rank 8: −" in told(app, "#option-lora_r .note"))
        assert "rank 32: +" in told(app, "#option-lora_r .note")
        await go_to(pilot, "lora_modules_to_save")
        await wait_for(pilot, lambda: "lm_head: +" in told(app, "#option-lora_modules_to_save .note"))
        assert "rank" not in told(app, "#option-lora_r .note"), "and goes when one leaves"
        await go_to(pilot, "use_dora")
        await wait_for(pilot, lambda: "on: +" in told(app, "#option-use_dora .note"))


async def test_an_adapter_to_start_from_decides_rank_and_targets_and_the_rows_say_so(home: Path) -> None:
    async with opened("precision", _values(home, use_peft=True)) as (app, pilot):
        await go_to(pilot, "sftui.start_from_adapter")
        await types(pilot, "nowhere")
        await wait_for(pilot, lambda: "✗" in told(app, "#option-sftui-start_from_adapter .note"))
        for name in ("lora_r", "lora_alpha", "lora_target_modules", "use_dora", "lora_modules_to_save"):
            assert "The adapter to start from decides this." in told(app, f"#option-{name} .note")
        await pilot.press(*["backspace"] * len("nowhere"))
        await wait_for(pilot, lambda: "adapter to start from" not in told(app, "#option-lora_r .note"))


async def test_attention_offers_what_works_and_lists_the_rest_with_why(home: Path) -> None:
    async with opened("precision", _values(home)) as (app, pilot):
        editor = await go_to(pilot, "attn_implementation")
        await sees(pilot, "(•) auto ( ) eager ( ) sdpa")
        others = told(app, "AttentionRow .others")
        assert "flex_attention, kernels-community/flash-attn2" in others
        assert "it needs an NVIDIA GPU" in others
        assert app.screen.query_one("AttentionRow .others").display
        assert "a kernel of the hub" not in seen(app), "it could not run here"
        await pilot.press("right", "right")
        await wait_for(pilot, lambda: app.known.values.get("attn_implementation") == "sdpa")
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.values.get("attn_implementation") is None)
        await go_to(pilot, "use_peft")
        await wait_for(pilot, lambda: not app.screen.query_one("AttentionRow .others").display)
        assert editor.value == "<auto>"


async def test_an_attention_that_does_not_work_here_is_shown_as_such(home: Path) -> None:
    async with opened("precision", _values(home, attn_implementation="flash_attention_2")) as (app, pilot):
        await sees(pilot, "(•) ✗ flash_attention_2")
        assert "cannot be used: it needs an NVIDIA GPU" in told(app, "#option-attn_implementation .note")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_kernel_of_the_hub_is_typed_and_runs_only_when_it_is_allowed_by_name(
    home: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.attention._installed", lambda package: package == "kernels")
    kernel = "kernels-community/flash-attn2"
    async with opened("precision", _values(home, dtype="bfloat16"), gpus=one_gpu(), size=size) as (app, pilot):
        await go_to(pilot, "attn_implementation")
        others = told(app, "AttentionRow .others")
        assert "Install it: pip install flash-attn --no-build-isolation." in others
        await pilot.press("left")
        await sees(pilot, "(•) a kernel of the hub")
        await pilot.press("down")
        await types(pilot, kernel)
        await wait_for(pilot, lambda: app.known.values.get("attn_implementation") == kernel)
        note = "#option-attn_implementation .note"
        await wait_for(pilot, lambda: "compiled code from the hub, which nobody has allowed" in told(app, note))
        assert "compiled code from the hub" in told(app, note)
        assert not app.known.done("precision")
        await go_to(pilot, "sftui.allow_hub_kernels")
        await types(pilot, kernel)
        await wait_for(pilot, lambda: app.known.done("precision"))
        assert "! Compiled code from the hub: it may do anything" in told(app, note)
        await go_to(pilot, "attn_implementation")
        await pilot.press("right")
        await wait_for(pilot, lambda: app.known.values.get("attn_implementation") is None)
        assert not app.screen.query_one("#kernel").display


def test_the_bar_has_a_cell_for_every_part_and_never_too_many() -> None:
    parts = [("W", 50 * GB), ("Q", 1), ("a", 1)]
    assert bar_cells(parts, 10 * GB, 100 * GB, 20) == "WWWWWWWWWWQa······▒▒"
    assert bar_cells([], 0, 100, 10) == "·" * 10
    for width in range(1, 60):
        assert len(bar_cells(parts, 60 * GB, 100 * GB, width)) == width, "also when it does not fit"
    assert bar_cells(parts, 0, 25 * GB, 21).index("┃") == 10
    assert bar_cells(parts, 0, 0, 10) == ""
