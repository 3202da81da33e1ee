"""The machine beside a run: memory over time, who else is there, what holds the clocks down."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.devices.gpu import GpuProcess, GpuReading, GpuSnapshot
from core.runs import events
from tests.tui.helpers import alive, begin, home_in, shown, steps, until_shown, write_run
from tui_app.app import SftuiApp

GB = 10**9
NARROW, WIDE = (80, 24), (120, 50)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def sample(
    own: int | None, used: int, index: int = 0, slowed: tuple[str, ...] = (), **more: events.GpuUse
) -> events.MemorySampled:
    use = events.GpuUse(
        index, "NVIDIA H100 80GB HBM3", 80 * GB, used * GB, None if own is None else own * GB,
        97, 54, 612.0, 700.0, 1755, 1980, slowed,
    )  # fmt: skip
    return events.MemorySampled(2 * GB, 8 * GB, 25 * GB, 180.0, (use, *more.values()))


async def test_memory_over_time_stands_beside_the_plan_and_the_others() -> None:
    peak = events.PeakMeasured(5, "gpu", 9 * GB, 8 * GB, None, 11 * GB)
    happened = [*begin("r-aaaa"), *steps(1, 5), sample(4, 14), sample(9, 19), peak, sample(9, 19, slowed=("heat",))]
    folder = write_run("r-aaaa", happened)
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
        await until_shown(
            pilot, "GPU 0  NVIDIA H100", "19.0 GB of 80.0 GB", "9.00 GB, peak 9.00 GB", "Others   10.0 GB", "GB ┤"
        )
        await until_shown(pilot, "11.0 GB at its peak", "o this run   x with the others", "97 %  54 °C  612 of 700 W")
        await until_shown(pilot, "1,755 of 1,980 MHz", "! held down by heat")
        # The run is over: who uses the GPU now says nothing about it.
        assert "python" not in shown(pilot.app)


async def test_who_else_is_on_the_gpu_is_told_while_the_run_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 5), sample(4, 14), sample(9, 19)])
    processes = (
        GpuProcess(7, 9 * GB, "ml", "python runner.py"),
        GpuProcess(8, 5 * GB, "eve\x1b", "vllm [b]"),
        GpuProcess(9, 4 * GB, None, None),
        GpuProcess(10, 1 * GB, None, None),
    )
    gpu = GpuSnapshot(
        0, "GPU-0", "NVIDIA H100 80GB HBM3", 80 * GB, 19 * GB, 61 * GB, 97, 54, 612.0, 700.0, (9, 0), processes
    )
    monkeypatch.setattr("core.devices.gpu.GpuMonitor.read", lambda _: GpuReading((gpu,), "1", None))
    with alive(folder):
        async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
            await until_shown(pilot, "9.00 GB  python runner.py, ml", "vllm [b], eve␛", "4.00 GB  pid 9", "and 1 more")


async def test_gpus_that_the_run_does_not_use_are_told_in_short_and_what_is_unknown_as_such() -> None:
    other = events.GpuUse(1, "NVIDIA A100", 40 * GB, 3 * GB, None, None, None, None)
    happened = [*begin("r-aaaa"), *steps(1, 5), sample(4, 14, other=other), sample(9, 19, other=other)]
    folder = write_run("r-aaaa", happened)
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=WIDE) as pilot:
        await until_shown(pilot, "GPU 1  NVIDIA A100", "3.00 GB of 40.0 GB", "n/a")
        assert shown(pilot.app).count("peak 9.00 GB") == 1


async def test_a_small_terminal_scrolls_the_machine() -> None:
    other = events.GpuUse(1, "NVIDIA A100", 40 * GB, 3 * GB, None, None, None, None)
    happened = [*begin("r-aaaa"), *steps(1, 5), sample(4, 14, other=other), sample(9, 19, other=other)]
    folder = write_run("r-aaaa", happened)
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=NARROW) as pilot:
        await until_shown(pilot, "[Loss]")
        await pilot.press("v")
        await until_shown(pilot, "[Machine]", "GPU 0  NVIDIA H100")
        await pilot.press(*["down"] * 20)
        await until_shown(pilot, "Host     8.00 GB of 25.0 GB")
