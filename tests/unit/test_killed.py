"""A runner that is gone without a word: why, as far as the log, the kernel's counts and the last samples tell."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from core import cli, starter
from core.devices import host
from core.runs import events, launch
from core.runs.folder import RunFolder
from core.runs.killed import why_gone
from core.spec.yaml_file import read_spec
from core.training.environment import put_down
from tests.tui.helpers import begin, home_in, shown, steps, until, until_shown, write_run
from tui_app import run_keys
from tui_app.app import SftuiApp

GIB = 1 << 30
SPEC = f"""model_name_or_path: {starter.MODEL}
datasets: [{{path: json, data_files: {starter.TRAIN_DATA}}}]
use_peft: true
per_device_train_batch_size: 4
gradient_accumulation_steps: 1
"""


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def dead(*more: events.Event) -> RunFolder:
    """A run on the CPU that was killed after step 9; its log has old lines of an earlier start."""
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 9), *more])
    folder.spec_file.write_text(SPEC)
    folder.log_file.write_text("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
    put_down(folder)
    return folder


def change_start(folder: RunFolder, **changes: Any) -> None:
    environment = json.loads(folder.environment_file.read_text())
    environment["start"].update(changes)
    folder.environment_file.write_text(json.dumps(environment))


def found(folder: RunFolder) -> events.RunFailed | None:
    return why_gone(folder, folder.read_state())


def sample(used: int, total: int) -> events.MemorySampled:
    return events.MemorySampled(5 * GIB, used, total, 50.0)


def test_nothing_is_made_up_where_nothing_tells() -> None:
    folder = dead(sample(10 * GIB, 32 * GIB))
    assert found(folder) is None
    folder.environment_file.unlink()
    assert found(folder) is None
    folder.environment_file.write_text("[]")
    assert found(folder) is None


def test_what_bitsandbytes_wrote_before_it_ended_the_process_is_read_in_the_log() -> None:
    folder = dead()
    with folder.log_file.open("a") as log:
        log.write("step 9\nError out of memory at line 380 in file /src/csrc/ops.cu\n")
    gone = found(folder)
    assert gone is not None and gone.memory is not None
    assert (gone.title, gone.memory.device, gone.step) == ("The GPU's memory ran out", "gpu", 9)
    assert "Error out of memory at line 380" in gone.message
    assert gone.memory.mends[0].sets == ("per_device_train_batch_size=2", "gradient_accumulation_steps=2")


def test_a_kill_that_the_kernel_has_counted_is_told_with_where_and_what_was_held(tmp_path: Path) -> None:
    folder = dead(sample(10 * GIB, 32 * GIB))
    counted = tmp_path / "memory.events"
    counted.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n")
    change_start(folder, kills_file=str(counted), kills=3)
    assert found(folder) is None
    counted.write_text("oom 2\noom_kill 4\n")
    gone = found(folder)
    assert gone is not None and gone.memory is not None
    assert (gone.title, gone.memory.device, gone.memory.phase) == ("The host's memory ran out", "host", "training")
    assert (gone.memory.held_bytes, gone.memory.total_bytes) == (5 * GIB, 32 * GIB)
    assert gone.memory.mends
    counted.unlink()
    assert found(folder) is None


def test_a_machine_that_was_full_to_the_brim_most_likely_killed_it() -> None:
    gone = found(dead(sample(20 * GIB, 32 * GIB), sample(int(31.5 * GIB), 32 * GIB)))
    assert gone is not None
    assert "98% of it was in use" in gone.message and "most likely" in gone.message


def test_a_machine_that_was_restarted_since_ended_it() -> None:
    folder = dead()
    change_start(folder, boot="another")
    gone = found(folder)
    assert gone is not None
    assert (gone.title, gone.memory) == ("The machine was restarted", None)
    environment = json.loads(folder.environment_file.read_text())
    environment["host"] = f"not-{platform.node()}"
    folder.environment_file.write_text(json.dumps(environment))
    # Another machine knows nothing of that one.
    assert found(folder) is None


def test_the_counts_of_this_machine_can_be_read() -> None:
    assert host.boot_id()
    kills = host.out_of_memory_kills()
    assert kills is None or host.kills_counted(kills[0]) == kills[1]


async def test_it_is_shown_on_the_monitor_with_a_key_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dead(sample(int(31.9 * GIB), 32 * GIB))
    mended: list[events.Mend] = []
    monkeypatch.setattr(run_keys, "mend", lambda _folder, mend: mended.append(mend))
    async with SftuiApp(open_screen="monitor", run=folder, warm=False).run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "! Interrupted", "The host's memory ran out", "Batch 2, accumulation 2")
        await until_shown(pilot, "f Mend and go on")
        assert "training, after step 9" in shown(pilot.app)
        await pilot.press("f")
        await until(pilot, lambda: len(mended) == 1)


def test_attach_says_it_and_resume_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dead(sample(int(31.9 * GIB), 32 * GIB))
    assert cli.main(["attach", folder.id]) == 1
    assert "failed: The host's memory ran out" in capsys.readouterr().err
    started: list[int | None] = []
    monkeypatch.setattr(launch, "start_run", lambda folder, step=None, queue=False: started.append(step))
    assert cli.main(["resume", folder.id, "--mend", "--detach"]) == 0
    assert read_spec(folder.spec_file).per_device_train_batch_size == 2
    assert started == [None]
