"""The machine's figures, and a container's limits where they are lower."""

import os
import time
from pathlib import Path

import psutil
import pytest

from core.devices import host
from core.devices.host import process_memory_bytes, read_host


def test_the_machine_tells_plausible_figures(tmp_path: Path) -> None:
    snapshot = read_host(tmp_path)
    assert 1 <= snapshot.cpu_count <= (os.cpu_count() or 1)
    assert 0 <= snapshot.cpu_percent <= 100
    assert 0 < snapshot.memory_available_bytes <= snapshot.memory_total_bytes
    assert snapshot.memory_used_bytes + snapshot.memory_available_bytes == snapshot.memory_total_bytes
    assert snapshot.disk_free_bytes is not None
    assert snapshot.cpu_name


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    snapshot = read_host(tmp_path / "runs" / "new")
    assert snapshot.disk_free_bytes == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)


def test_a_reading_is_cheap_enough_for_twice_a_second(tmp_path: Path) -> None:
    read_host(tmp_path)
    start = time.perf_counter()
    for _ in range(20):
        read_host(tmp_path)
    assert (time.perf_counter() - start) / 20 < 0.05


def write_cgroup(folder: Path, limit: str, current: int, inactive_file: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\nactive_file 7\n")


def test_a_container_counts_its_own_limit_without_its_file_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cgroup(tmp_path, "100000000", current=60_000_000, inactive_file=20_000_000)
    monkeypatch.setattr(host, "_CGROUPS", tmp_path)
    snapshot = read_host(tmp_path)
    assert snapshot.memory_total_bytes == 100_000_000
    assert snapshot.memory_used_bytes == 40_000_000
    assert snapshot.memory_available_bytes == 60_000_000


def test_the_lowest_limit_above_us_counts(tmp_path: Path) -> None:
    write_cgroup(tmp_path / "user", "500", current=100, inactive_file=0)
    write_cgroup(tmp_path / "user" / "job", "max", current=50, inactive_file=0)
    assert host._cgroup_memory(tmp_path, "4:memory:/old\n0::/user/job\n") == (500, 100)
    write_cgroup(tmp_path / "user" / "job", "300", current=50, inactive_file=10)
    assert host._cgroup_memory(tmp_path, "0::/user/job\n") == (300, 40)


def test_without_a_limit_the_machine_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host._cgroup_memory(tmp_path / "none", "") == (None, 0)
    write_cgroup(tmp_path, str(2**60), current=1, inactive_file=0)
    monkeypatch.setattr(host, "_CGROUPS", tmp_path)
    assert read_host(tmp_path).memory_total_bytes == psutil.virtual_memory().total


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD  EPYC 9654\n\nmodel name\t: other\n")
    assert host._cpu_name(cpuinfo) == "AMD EPYC 9654"
    assert host._cpu_name(tmp_path / "missing")


def test_memory_of_a_process_is_known_while_it_lives() -> None:
    own = process_memory_bytes(os.getpid())
    assert own is not None
    assert own > 1_000_000
    assert process_memory_bytes(2**22 + 1) is None
    assert process_memory_bytes(-1) is None
