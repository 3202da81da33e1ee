"""Whether a second model has room where the first one is."""

import pytest

from core.devices.gpu import GpuMonitor, GpuReading
from core.results.room import lack_of_room
from tests.unit.test_choose_device import gpu


def test_only_the_gpu_that_the_process_was_given_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GpuMonitor, "read", lambda _: GpuReading((gpu(0, 10**9), gpu(1, 10**10)), "999", None))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0000-aaaa")
    assert lack_of_room(5 * 10**9, "cuda:0") == "takes 5.00 GB of memory, and 1.00 GB are free"
    assert lack_of_room(10**9 // 2, "cuda:0") == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1000-aaaa")
    assert lack_of_room(5 * 10**9, "cuda:0") == ""
