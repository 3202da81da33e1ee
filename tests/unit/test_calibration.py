"""What runs have really held corrects the next plan, and no bad record can spoil that."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import paths
from core.devices.gpu import GpuSnapshot
from core.memory import calibration
from core.memory.calibration import Calibration, Record, calibration_for, record, versions_here
from core.runs import events
from core.runs.folder import RunFolder
from core.training.learned import keep_for_calibration
from core.training.whereabouts import Whereabouts

GIB = 1 << 30
MIB = 1 << 20
H100 = Record("NVIDIA H100 80GB HBM3", "570.1", "torch 2.13", 10 * GIB, 0, 10 * GIB)


def keep(*records: Record) -> None:
    for one in records:
        record(one)


def known(one: Record = H100) -> Calibration | None:
    return calibration_for(one.device, one.driver, one.versions)


def about(runs: int, mean_error: float, extra_bytes: int) -> Calibration:
    close: Any = pytest.approx(mean_error)
    return Calibration(runs, close, extra_bytes)


def test_nothing_is_known_before_the_first_run() -> None:
    assert known() is None


def test_one_run_that_held_more_corrects_the_next_plan_and_one_that_held_less_does_not_yet() -> None:
    keep(replace(H100, measured_bytes=10 * GIB + 300 * MIB))
    assert known() == about(1, 300 / (10 * 1024 + 300), 300 * MIB)
    less = replace(H100, device="NVIDIA L4", measured_bytes=9 * GIB)
    keep(less)
    assert known(less) == about(1, 1 / 9, 0)
    keep(less, less)
    assert known(less) == about(3, 1 / 9, -GIB)


def test_a_correction_that_was_made_is_not_made_twice() -> None:
    truth = 10 * GIB + 400 * MIB
    keep(*[replace(H100, measured_bytes=truth)] * 3)
    for _ in range(5):
        now = known()
        assert now is not None
        assert now.extra_bytes == 400 * MIB
        told = 10 * GIB + now.extra_bytes
        keep(replace(H100, predicted_bytes=told, correction_bytes=now.extra_bytes, measured_bytes=truth))
    # The plans after the third run were right.
    assert known() == about(8, 3 / 8 * 400 * MIB / truth, 400 * MIB)


@pytest.mark.parametrize("wild", [0.01, 5.0])
def test_wild_runs_do_not_move_the_correction(wild: float) -> None:
    random.seed(7)
    usual = [replace(H100, measured_bytes=10 * GIB + random.randint(480, 520) * MIB) for _ in range(20)]
    strange = [replace(H100, measured_bytes=round(wild * 10 * GIB)) for _ in range(9)]
    both = usual + strange
    random.shuffle(both)
    keep(*both)
    now = known()
    assert now is not None
    assert now.runs == 29
    assert 450 * MIB < now.extra_bytes < 530 * MIB


def test_runs_with_another_driver_or_other_libraries_count_only_until_there_are_some_with_these() -> None:
    old = replace(H100, driver="535.9", measured_bytes=11 * GIB)
    keep(old, old, old)
    assert known() == known(old)
    keep(replace(H100, measured_bytes=10 * GIB + 100 * MIB))
    now = known()
    assert now is not None and (now.runs, now.extra_bytes) == (1, 100 * MIB)
    assert known(replace(H100, device="NVIDIA A100")) is None


def test_torn_lines_and_nonsense_are_passed_over_and_swallow_nothing() -> None:
    keep(H100)
    file = paths.state_home() / "calibration.jsonl"
    with file.open("ab") as written:
        written.write(b'[]\n7\n{}\n\xff\xfe\n{"device": 1}\n' + b"[" * 100_000 + b"\n")
        for bad in ("0", "-5", "true", '"9"', "1e400", "9999999999999999999", "null"):
            line = f'"driver": "570.1", "versions": "torch 2.13", "predicted_bytes": 1, "measured_bytes": {bad}'
            written.write(f'{{"device": "{H100.device}", "correction_bytes": 0, {line}}}\n'.encode())
        written.write(b'{"device": "NVIDIA H100 80GB HBM3", "dri')
    keep(H100)
    now = known()
    assert now is not None and now.runs == 2


def test_many_runs_end_at_once_and_the_file_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_LARGEST_FILE_BYTES", 20_000)
    monkeypatch.setattr(calibration, "_KEPT", 60)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: record(replace(H100, measured_bytes=(10 + number) * MIB)), range(300)))
    file = paths.state_home() / "calibration.jsonl"
    assert file.stat().st_size <= 20_400
    assert oct(file.stat().st_mode)[-3:] == "600"
    now = known()
    assert now is not None and now.runs == 50


def test_the_libraries_are_told_with_their_versions() -> None:
    assert "torch 2" in versions_here() and "sftui " in versions_here()


def ended(folder: RunFolder, **known: Any) -> bool:
    """A run on a GPU that has come to its end; `known` is what is otherwise about it."""
    gpu = GpuSnapshot(0, "GPU-1", H100.device, 80 * GIB, GIB, 79 * GIB, 0, 30, 1.0, 2.0, (9, 0), ())
    peak = events.PeakMeasured(9, "gpu", 10 * GIB + 50 * MIB, 9 * GIB, 10 * GIB, 10 * GIB)
    outcome = known.pop("outcome", events.RunFinished(9, "adapter", 1.0))
    at = Whereabouts(**{"gpu": gpu, "driver": "570.1", "peak": peak, "steps_done": 2, **known})
    return keep_for_calibration(folder, at, outcome)


def test_a_run_on_a_gpu_teaches_the_next_plan_however_it_ended_and_knows_what_was_corrected(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    failed = events.RunFailed("E", "title", "message", "", None, 9, 1.0)
    assert ended(folder)
    assert ended(folder, outcome=events.RunStopped(9, None, "by request", 1.0))
    folder.plan_file.write_text('{"memory": {"correction_bytes": 1048576}}')
    assert ended(folder, outcome=failed)
    now = calibration_for(H100.device, "570.1", versions_here())
    assert now is not None
    assert (now.runs, now.extra_bytes) == (3, 50 * MIB)


def test_runs_that_say_nothing_about_the_plan_are_not_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    small = events.PeakMeasured(9, "gpu", 9 * GIB, 9 * GIB, 9 * GIB, 10 * GIB)
    on_cpu = events.PeakMeasured(9, "host", 9 * GIB, None, None, 10 * GIB)
    ran_out = events.RunFailed("E", "title", "message", "", None, 9, 1.0, events.OutOfMemory("gpu", "training"))
    assert not ended(folder, gpu=None, peak=on_cpu)
    assert not ended(folder, steps_done=1)
    assert not ended(folder, peak=None)
    assert not ended(folder, peak=replace(small, predicted_bytes=None))
    assert not ended(folder, peak=small, outcome=ran_out)
    assert calibration_for(H100.device, "570.1", versions_here()) is None
    # That it ran out beyond what was predicted does say something.
    assert ended(folder, outcome=ran_out)
