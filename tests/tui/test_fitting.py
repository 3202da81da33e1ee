"""What fits, what every option costs, and one key that makes a run fit or fast."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.devices.gpu import GpuProcess, GpuReading
from core.memory.estimate import MemoryEstimate, MemoryPart, verdict
from core.memory.plan import Plan
from core.memory.plan import make_plan as real_plan
from core.spec.presets import PRESETS
from core.spec.run_spec import RunSpec
from tests.tui.setup_helpers import (
    HOST,
    Watcher,
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
from tui_app.dialogs.make_fit import MakeFitDialog
from tui_app.messages import MachineRead, StartRequested
from tui_app.widgets.memory_bar import MemoryBar

pytest_plugins = ["tests.tui.setup_helpers"]

MB = 10**6


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every part has a size: what a token holds, and a constant for the context."""

    def plan_of(spec: RunSpec, *given: Any, **more: Any) -> Plan:
        plan = real_plan(spec, *given, **more)
        if plan.memory is None:
            return plan
        tokens = spec.per_device_train_batch_size * (spec.max_length or 1024)
        kept = tokens * (1000 if spec.activation_checkpointing else 8000)
        sizes = {"activations": (kept, "estimated"), "logits": (tokens * 100, "simulated"),
                 "allocator_and_context": (50 * MB, "measured")}  # fmt: skip
        parts = tuple(
            MemoryPart(part.name, sizes[part.name][0], "by the test", sizes[part.name][1])  # type: ignore[arg-type]
            if part.name in sizes
            else part
            for part in plan.memory.parts
        )
        memory = replace(plan.memory, parts=parts)
        word, reason = verdict(memory, plan.device.free_bytes)
        return replace(plan, memory=memory, verdict=word, verdict_reason=reason)

    monkeypatch.setattr("tui_app.draft.make_plan", plan_of)
    yield


def values(home: Path, preset: str = "lora", **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(make_model(home / "tiny", hidden=256)),
        "datasets": [{"path": str(make_rows(home / "rows.jsonl"))}],
        **PRESETS[preset].values,
        **more,
    }


def gpu(free: float, total: float = 1000) -> GpuReading:
    """A GPU with so many MB free."""
    return one_gpu(int(total * MB), int(free * MB))


def memory(app: Watcher) -> MemoryEstimate:
    plan = app.known.plan
    assert plan is not None
    assert plan.memory is not None
    return plan.memory


def effective(app: Watcher) -> int:
    spec = app.known.spec
    assert spec is not None
    return spec.per_device_train_batch_size * spec.gradient_accumulation_steps


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_one_bar_tells_parts_others_what_is_free_and_what_would_still_fit(
    home: Path, size: tuple[int, int]
) -> None:
    reading = gpu(free=400)
    other = GpuProcess(4121, 500 * MB, "ml\x1b", "vllm serve")
    reading = replace(reading, gpus=(replace(reading.gpus[0], processes=(other,)),))
    async with opened("precision", values(home, "qlora"), size=size, gpus=reading) as (app, pilot):
        await sees(pilot, "✓ fits")
        shown = " ".join(seen(app).split())
        for entry in ("W weights", "E embedding", "A activations", "h head", "c context", "· free"):
            assert entry in shown
        assert "▒ vllm serve (user ml␛, pid 4121)" in shown
        assert "room for batch 1" in shown
        assert "at 2,048 tokens, or its whole 2,048 tokens at batch 1" in shown
        assert "f makes it fast" in shown
        bar = app.screen.query_one(MemoryBar)
        first = seen(app).splitlines()[bar.region.y]
        assert {"W", "A", "c", "·", "▒"} <= set(first)
        costs = told(app, "PlanPanel")
        assert re.search(r"A Activations [\d.]+ MB estimated", costs)
        assert re.search(r"h Loss head [\d.]+ kB simulated", costs) or re.search(r"h Loss head [\d.]+ MB simul", costs)
        assert "c Allocator and context 50.0 MB measured" in costs


async def test_where_not_one_row_fits_that_is_said(home: Path) -> None:
    async with opened("precision", values(home), gpus=gpu(free=40)) as (_, pilot):
        await sees(pilot, "✗ does not fit")
        await sees(pilot, "f makes it fit")
        await sees(pilot, "no room for even one row at this length")


async def test_every_option_tells_its_price_and_what_becomes_of_the_verdict(home: Path) -> None:
    async with opened("training", values(home), gpus=gpu(free=115)) as (app, pilot):
        note = "#option-activation_checkpointing .note"
        await wait_for(pilot, lambda: "off: +57.3 MB, about 20 % faster, does not fit." in told(app, note))
        for name, words in (
            ("per_device_train_batch_size", "batch 2: −4.51 MB"),
            ("per_device_train_batch_size", "batch 8: +9.01 MB"),
            ("optim", "adamw_8bit: −"),
            ("optim", "sgd: −"),
        ):
            await go_to(pilot, name)
            await wait_for(pilot, lambda n=name, w=words: w in told(app, f"#option-{n} .note"))  # type: ignore[misc]
        assert "batch" not in told(app, "#option-per_device_train_batch_size .note"), "it goes when one leaves"
        app.set_focus(None)
        await pilot.press("3")
        await sees(pilot, "[3 Precision")
        for name, words in (
            ("quantization", "4-bit NF4: −"),
            ("dtype", "float32: +"),
            ("attn_implementation", "takes about 30 % longer"),
        ):
            await go_to(pilot, name)
            await wait_for(pilot, lambda n=name, w=words: w in told(app, f"#option-{n} .note"))  # type: ignore[misc]
        app.set_focus(None)
        await pilot.press("2")
        await sees(pilot, "[2 Data")
        await go_to(pilot, "max_length")
        await wait_for(pilot, lambda: "4,096: +9.01 MB" in told(app, "#option-max_length .note"))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_f_makes_it_fit_and_each_change_can_be_left(home: Path, size: tuple[int, int]) -> None:
    given = values(home, per_device_train_batch_size=16, gradient_accumulation_steps=1, activation_checkpointing=False)
    async with opened("training", given, size=size, gpus=gpu(free=120)) as (app, pilot):
        await sees(pilot, "f makes it fit")
        app.set_focus(None)
        await pilot.press("f")
        await wait_for(pilot, lambda: isinstance(app.screen, MakeFitDialog))
        await sees(pilot, "Now: 3")
        await sees(pilot, "[x] Batch ")
        await sees(pilot, "the effective batch stays 16: fewer rows are in memory at a time")
        assert "✓ fits" in told(app, "#after")
        await pilot.press("space")
        await wait_for(pilot, lambda: "✗ does not fit" in told(app, "#after"))
        assert "MB are still missing." in told(app, "#after")
        await pilot.press("space")
        await wait_for(pilot, lambda: "✓ fits" in told(app, "#after"))
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.verdict == "fits")
        assert effective(app) == 16
        await sees(pilot, "f makes it fast")


async def test_escape_changes_nothing(home: Path) -> None:
    async with opened("precision", values(home), gpus=gpu(free=62)) as (app, pilot):
        before = dict(app.known.values)
        await pilot.press("f")
        await wait_for(pilot, lambda: isinstance(app.screen, MakeFitDialog))
        await pilot.press("down", "up", "space", "escape")
        await wait_for(pilot, lambda: not isinstance(app.screen, MakeFitDialog))
        assert dict(app.known.values) == before


async def test_f5_works_in_a_field_where_f_is_a_letter(home: Path) -> None:
    async with opened("training", values(home, "qlora"), gpus=gpu(free=900)) as (app, pilot):
        await go_to(pilot, "learning_rate")
        await pilot.press("f5")
        await wait_for(pilot, lambda: isinstance(app.screen, MakeFitDialog))
        await sees(pilot, "Make it fast")
        assert "about" in told(app, "#after")
        assert "(from published figures, not measured)" in told(app, "#after")
        await sees(pilot, "[x] Checkpointing off")
        await sees(pilot, "[x] Base model in 16 bit")
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.spec is not None and app.known.spec.method == "lora")
        assert app.known.spec is not None
        assert not app.known.spec.activation_checkpointing
        assert effective(app) == 16


async def test_what_can_be_no_faster_and_what_is_not_known_are_said(home: Path) -> None:
    fast = values(home, activation_checkpointing=False, per_device_train_batch_size=16, gradient_accumulation_steps=1)
    async with opened("precision", fast, gpus=gpu(free=900)) as (app, pilot):
        await pilot.press("f")
        await sees(pilot, "It fits, and no change")
        blind = replace(gpu(1).gpus[0], free_bytes=None, used_bytes=None)
        app.post_message(MachineRead(GpuReading((blind,), None, None), HOST))
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.verdict == "unknown")
        await pilot.press("f")
        await sees(pilot, "Whether it fits")


async def test_a_start_that_would_run_out_of_memory_is_asked_about_first(home: Path) -> None:
    async with opened("review", values(home), size=(80, 24), gpus=gpu(free=55)) as (app, pilot):
        await pilot.press("ctrl+s")
        await sees(pilot, "It does not fit")
        await sees(pilot, "MB too much")
        await sees(pilot, "run out of memory.")
        await sees(pilot, "Make it fit (f)")
        await pilot.press("escape")
        await wait_for(pilot, lambda: type(app.screen).__name__ == "ReviewScreen")
        assert not app.asked
        await pilot.press("ctrl+s", "f")
        await wait_for(pilot, lambda: isinstance(app.screen, MakeFitDialog))
        await pilot.press("escape", "ctrl+s", "s")
        await wait_for(pilot, lambda: bool(app.asked))
        assert isinstance(app.asked[0], StartRequested)


async def test_a_run_that_waits_is_asked_about_only_if_it_is_larger_than_the_whole_device(home: Path) -> None:
    async with opened("review", values(home), gpus=gpu(free=55)) as (app, pilot):
        await pilot.press("w")
        await wait_for(pilot, lambda: bool(app.asked))
        app.post_message(MachineRead(gpu(free=55, total=56), HOST))
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.device.total_bytes == 56 * MB)
        await pilot.press("w")
        await sees(pilot, "It does not fit")
        assert len(app.asked) == 1


async def test_letters_mean_the_same_without_colours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened("precision", values(home, "qlora"), gpus=gpu(free=400)) as (app, pilot):
        await sees(pilot, "W weights")
        line = seen(app).splitlines()[app.screen.query_one(MemoryBar).region.y]
        letters = [letter for letter in dict.fromkeys(line) if letter in "WQEagoAhc"]
        legend = " ".join(seen(app).split())
        assert all(f"{letter} " in legend for letter in letters)
        assert len(memory(app).parts) == 8
        assert len(letters) == 9, "every part and the embedding have a letter of their own"
