"""What the runner's main thread sees while its worker trains or hangs, and the command that it runs at the end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import paths, permissions
from core.runs import events
from core.runs.checkpoints import commit, place_of, staging
from core.runs.folder import RunFolder
from core.runs.journal import JournalWriter
from core.runs.state import RunState
from core.spec.yaml_file import read_spec
from tests.nvml import build_stub
from tests.training.runs import PATIENCE_SECONDS, events_of, make_run, wait_for

ROOT = Path(__file__).parents[2]
TELL = (
    "import json, os, sys; told = {k: v for k, v in os.environ.items() if k.startswith(('SFTUI_', 'HF_'))}; "
    "open(sys.argv[1] + '.new', 'w').write(json.dumps(told)); os.rename(sys.argv[1] + '.new', sys.argv[1]); print('ok')"
)


def run_for(tmp_path: Path, **sftui: Any) -> RunFolder:
    """A run that tells its facts to a file when it ends; its worker is no real one, and neither are model and rows."""
    on_finish = [sys.executable, "-c", TELL, str(tmp_path / "told.json")]
    wanted = {"device": "auto", "name": "troubled", "on_finish": on_finish, **sftui}
    folder = make_run(tmp_path / "model", tmp_path / "rows.jsonl", sftui=wanted)
    permissions.allow(permissions.wanted(read_spec(folder.spec_file)))
    return folder


def start(folder: RunFolder, how: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    with folder.log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.training.troubled_runner", how, str(folder.path)],
            cwd=ROOT,
            env={**os.environ, "HF_TOKEN": "hf_canary", **(environment or {})},
            stdout=log,
            stderr=log,
        )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def save(folder: RunFolder, step: int) -> None:
    written = staging(folder) / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "adapter_model.safetensors").write_bytes(b"weights")
    commit(written, place_of(folder, step))


def newest_is(kind: str) -> Callable[[RunState], bool]:
    return lambda state: bool(state.troubles) and state.troubles[-1].kind == kind


def test_a_worker_that_hangs_is_noticed_and_ended_at_the_last_checkpoint(tmp_path: Path) -> None:
    folder = run_for(tmp_path, on_trouble="stop")
    save(folder, 2)

    assert start(folder, "hang").wait(timeout=PATIENCE_SECONDS) == 0

    told = events_of(folder)
    (noticed,) = [event for event in told if isinstance(event, events.TroubleNoticed)]
    assert (noticed.kind, noticed.step, noticed.action) == ("no_progress", 3, "stop")
    assert isinstance(told[-1], events.RunStopped)
    assert (told[-1].step, told[-1].checkpoint) == (3, "checkpoints/checkpoint-2")
    assert told[-1].reason == noticed.title
    until((tmp_path / "told.json").exists)
    facts = json.loads((tmp_path / "told.json").read_text())
    assert (facts["SFTUI_STATE"], facts["SFTUI_RESULT"]) == ("stopped", str(place_of(folder, 2)))


def test_a_run_goes_on_from_the_checkpoint_that_its_end_names_and_not_from_a_newer_one_in_doubt(
    tmp_path: Path,
) -> None:
    folder = run_for(tmp_path)
    (folder.path / "end").touch()
    save(folder, 2)
    save(folder, 3)
    for outcome, checkpoint in (
        (events.RunStopped(4, "checkpoints/checkpoint-2", "not a number", 1.0), "2"),
        (events.RunStopped(4, "checkpoints/checkpoint-9", "gone since", 1.0), "None"),
        (events.RunFailed("E", "title", "message", "", None, 4, 1.0), "None"),
    ):
        journal = JournalWriter(folder.journal_file)
        journal.write(outcome)
        journal.close()
        assert start(folder, "wait").wait(timeout=PATIENCE_SECONDS) == 0
        (choice,) = folder.read_state().choices
        assert choice.value == checkpoint


def test_a_gpu_in_trouble_is_told_once_while_the_run_goes_on_and_the_end_is_told_to_the_command(
    tmp_path: Path,
) -> None:
    folder = run_for(tmp_path)
    driver = tmp_path / "driver"
    driver.mkdir()
    settings = tmp_path / "stub"
    settings.write_text("")
    process = start(
        folder,
        "wait",
        {
            "LD_LIBRARY_PATH": str(build_stub(driver)),
            "STUB_NVML_FILE": str(settings),
            "STUB_NVML_COUNT": "2",
            "CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000000",
        },
    )
    wait_for(folder, lambda state: bool(state.memory) and state.step == 3)
    # The second GPU is somebody else's.
    settings.write_text("STUB_NVML_SLOWED=0,32\nSTUB_NVML_ECC=0,5\n")
    time.sleep(0.5)
    assert not folder.read_state().troubles
    for lines, kind in (
        ("STUB_NVML_SLOWED=32\nSTUB_NVML_TEMP=91\n", "gpu_slowed"),
        ("STUB_NVML_SLOWED=32\nSTUB_NVML_ECC=1\n", "gpu_memory_error"),
        ("STUB_NVML_XID=1:13,0:79\n", "gpu_error"),
        ("STUB_NVML_LOST=0\n", "gpu_lost"),
    ):
        settings.write_text(lines)
        wait_for(folder, newest_is(kind))
    state = folder.read_state()
    assert [one.kind for one in state.troubles] == ["gpu_slowed", "gpu_memory_error", "gpu_error", "gpu_lost"]
    assert "heat on GPU 0 at 91 °C" in state.troubles[0].message
    assert state.troubles[2].title == "GPU 0: Xid 79: the GPU has fallen off the bus"
    assert state.troubles[3].title == "GPU 0 is lost"

    (folder.path / "end").touch()
    assert process.wait(timeout=PATIENCE_SECONDS) == 0
    assert json.loads((tmp_path / "told.json").read_text()) == {
        **{name: value for name, value in os.environ.items() if name.startswith("HF_")},
        "SFTUI_RUN": folder.id,
        "SFTUI_STATE": "finished",
        "SFTUI_RUN_FOLDER": str(folder.path),
        "SFTUI_STEP": "3",
        "SFTUI_LOSS": "2",
        "SFTUI_RESULT": str(folder.adapter),
        "SFTUI_MESSAGE": "",
    }
    assert "ok" in folder.log_file.read_text()
    assert "hf_canary" not in folder.log_file.read_text()


def test_a_command_that_nobody_has_allowed_is_not_run_and_that_is_said(tmp_path: Path) -> None:
    folder = run_for(tmp_path)
    (paths.config_home() / "allowed.json").unlink()
    (folder.path / "end").touch()
    assert start(folder, "wait").wait(timeout=PATIENCE_SECONDS) == 0
    (noticed,) = (event for event in events_of(folder) if isinstance(event, events.ProblemNoticed))
    assert "you have not allowed it on this machine" in noticed.message
    assert not (tmp_path / "told.json").exists()
