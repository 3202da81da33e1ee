"""Pausing, freeing the device, going on and resuming by keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.devices.gpu import GpuMonitor, GpuReading
from core.runs import events, launch, queue
from core.runs.checkpoints import DamagedCheckpointError
from core.runs.folder import RunFolder
from core.runs.notes import add_note, read_notes
from tests.tui.helpers import add, alive, begin, home_in, shown, steps, until, until_shown, write_run
from tui_app import run_keys
from tui_app.app import SftuiApp

SIZE = (120, 40)


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The steps that runs were resumed from."""
    found: list[int | None] = []
    monkeypatch.setattr(run_keys, "resume", lambda _folder, step: found.append(step))
    return found


def watching(folder: RunFolder) -> SftuiApp:
    return SftuiApp(open_screen="monitor", run=folder, warm=False)


def asked(folder: RunFolder) -> list[str]:
    if not folder.commands_file.exists():
        return []
    return [json.loads(line)["command"] for line in folder.commands_file.read_text().splitlines()]


async def test_p_pauses_and_p_goes_on(resumed: list[int | None]) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    with alive(folder):
        async with watching(folder).run_test(size=SIZE) as pilot:
            await until_shown(pilot, "step 9 of 100", "p Pause")
            await pilot.press("p")
            await until(pilot, lambda: asked(folder) == ["pause"])
            await until_shown(pilot, "Asked the runner: pause")
            add(folder, [events.RunPaused(9, "by request")])
            await until_shown(pilot, "‖ paused: by request", "p Go on")
            assert "p Pause" not in shown(pilot.app)
            await pilot.press("p")
            await until(pilot, lambda: asked(folder) == ["pause", "continue"])
            add(folder, [events.RunContinued(9, 3.0)])
            await until_shown(pilot, "[training", "p Pause")
    assert resumed == []


async def test_a_run_that_waits_for_the_disk_says_what_it_waits_for() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    with alive(folder):
        async with watching(folder).run_test(size=SIZE) as pilot:
            await until_shown(pilot, "step 9 of 100")
            add(folder, [events.RunPaused(9, "The disk is full", "checkpoint-9 is not saved yet.")])
            await until_shown(pilot, "‖ paused: The disk is full", "checkpoint-9 is not saved yet.")


async def test_capital_p_frees_the_device_and_p_resumes(resumed: list[int | None]) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    async with watching(folder).run_test(size=SIZE) as pilot:
        with alive(folder):
            await until_shown(pilot, "step 9 of 100", "p Pause")
            await pilot.press("P")
            await until(pilot, lambda: asked(folder) == ["release"])
            add(folder, [events.RunStopped(9, "checkpoints/checkpoint-9", "paused", 5.0, released=True)])
        await until_shown(pilot, "‖ Paused, its device is free", "p Go on")
        await pilot.press("p")
        await until(pilot, lambda: resumed == [None])


@pytest.mark.parametrize("happened", [[], [events.RunStopped(9, None, "by request", 5.0)]])
async def test_r_resumes_what_was_stopped_or_killed(resumed: list[int | None], happened: list[events.Event]) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), *happened])
    async with watching(folder).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "r Resume")
        await pilot.press("p")
        await pilot.press("r")
        await until(pilot, lambda: resumed == [None])


async def test_a_finished_run_is_not_resumed(resumed: list[int | None]) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), events.RunFinished(9, "adapter", 5.0)])
    async with watching(folder).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "✓ Finished")
        assert "r Resume" not in shown(pilot.app)
        await pilot.press("r", "p")
        await pilot.pause()
    assert resumed == []


async def test_in_place_of_a_damaged_checkpoint_an_older_one_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    tried: list[int | None] = []

    def resume(_folder: RunFolder, step: int | None) -> None:
        tried.append(step)
        if step is None:
            raise DamagedCheckpointError("The checkpoint is damaged", "optimizer.pt is missing.", "", 6)

    monkeypatch.setattr(run_keys, "resume", resume)
    async with watching(folder).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "r Resume")
        await pilot.press("r")
        await until_shown(pilot, "go on from step 6?", "optimizer.pt is missing.")
        await pilot.press("y")
        await until(pilot, lambda: tried == [None, 6])


async def test_a_note_is_written_kept_and_shown_also_by_another_viewer() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), events.RunFinished(9, "adapter", 5.0)])
    async with watching(folder).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "n Note")
        await pilot.press("n")
        await until_shown(pilot, "It is kept with the run")
        await pilot.press("enter")
        await until_shown(pilot, "Write something.")
        await pilot.press(*"good", "enter")
        await until_shown(pilot, "✎ ", "good")
        assert [note.text for note in read_notes(folder)] == ["good"]
        add_note(folder, "from elsewhere")
        await until_shown(pilot, "from elsewhere")
        await pilot.press("n", *"not this", "escape")
        await pilot.pause()
    assert len(read_notes(folder)) == 2


async def test_m_asks_how_long_it_is_to_train() -> None:
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    with alive(folder):
        async with watching(folder).run_test(size=SIZE) as pilot:
            await until_shown(pilot, "step 9 of 100")
            await pilot.press("m")
            await until_shown(pilot, "How long is it to train?", "100 steps")
            await pilot.press("ctrl+u", *"soon", "enter")
            await until_shown(pilot, "Write “600 steps” or “2 epochs”.")
            await pilot.press("ctrl+u", *"250 steps", "enter")
            await until(pilot, lambda: asked(folder) == ["set_max_steps"])
            assert json.loads(folder.commands_file.read_text())["value"] == 250
            await until_shown(pilot, "Asked the runner: train to another step")


async def test_r_waits_in_the_queue_while_another_run_has_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_run("r-other", [*begin("r-other"), *steps(1, 3)])
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9)])
    started: list[bool] = []
    monkeypatch.setattr(launch, "start_run", lambda _folder, _step, queue: started.append(queue))
    monkeypatch.setattr(GpuMonitor, "read", lambda _: GpuReading((), None, "no driver"))
    async with watching(folder).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "r Resume")
        with alive(other):
            queue.enter(queue.Ticket(other.path, (queue.CPU,), has=queue.CPU))
            await pilot.press("r")
            await until(pilot, lambda: started == [True])
        await pilot.press("r")
        await until(pilot, lambda: started == [True, False])


async def test_what_a_probe_has_found_and_the_peak_since_stand_among_the_choices() -> None:
    found = events.MemoryProbed("gpu", 7_900_000_000, 79_100_000_000, 4, 8_192, 3.0)
    peak = events.PeakMeasured(9, "gpu", 7_600_000_000, 7_000_000_000, 7_200_000_000, 8_100_000_000)
    folder = write_run("r-aaaa", [*begin("r-aaaa"), found, *steps(1, 9), peak])
    async with watching(folder).run_test(size=(200, 50)) as pilot:
        await until_shown(pilot, "probed: peak 7.90 GB of 79.1 GB, with 4 rows, 8,192 tokens")
        await until_shown(pilot, "peak 7.60 GB on the GPU (7.00 GB in tensors), 8.10 GB")
