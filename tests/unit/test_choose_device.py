"""The GPU that is asked for, the one with most room, or the CPU with the reason."""

from typing import Any

import pytest

from core.devices.choose import ChosenDevice, acceptable_gpus, choose_device, cuda_environment
from core.devices.gpu import GpuReading, GpuSnapshot
from core.errors import SftuiError

NONE = GpuReading((), None, "the NVIDIA driver is not loaded")


def gpu(index: int, free: int | None = 10, **changes: Any) -> GpuSnapshot:
    fields: dict[str, Any] = {
        "uuid": f"GPU-{index}000-aaaa",
        "name": f"L{index}",
        "total_bytes": 24,
        "used_bytes": 1,
        "free_bytes": free,
        "utilization_percent": 0,
        "temperature_celsius": 40,
        "power_watts": 50.0,
        "power_limit_watts": 70.0,
        "compute_capability": (8, 9),
        "processes": (),
    }
    return GpuSnapshot(index, **{**fields, **changes})


def reading(*gpus: GpuSnapshot) -> GpuReading:
    return GpuReading(gpus, "999", None)


THREE = reading(gpu(0, 10), gpu(1, 30), gpu(2, 20))


def chosen(wish: str, read: GpuReading = THREE, visible: str | None = None) -> tuple[int | None, str, str]:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    device = choose_device(wish, read, environ)
    return device.gpu.index if device.gpu else None, device.choice.value, device.choice.reason


def test_auto_takes_the_most_free_memory() -> None:
    assert chosen("auto") == (1, "GPU 1 L1", "most free memory of 3 GPUs")
    assert chosen("auto", reading(gpu(0))) == (0, "GPU 0 L0", "the only GPU")
    assert chosen("auto", reading(gpu(0, None), gpu(1, 0), gpu(2, 5)))[0] == 2


def test_auto_leaves_a_gpu_alone_that_a_run_has_while_another_has_room() -> None:
    def auto(needs_bytes: int | None, *taken: int, read: GpuReading = THREE) -> int:
        names = [f"GPU-{index}000-aaaa" for index in taken]
        device = choose_device("auto", read, {}, needs_bytes=needs_bytes, taken=names)
        assert device.gpu is not None
        return device.gpu.index

    assert auto(5, 1) == 2
    assert auto(5, 1, 2) == 0
    assert auto(15, 1, 2) == 1, "the other has no room"
    assert auto(5, 0, 1, 2) == 1, "there is no other"
    assert auto(None, 1) == 1, "the others hold what is nobody's"
    assert auto(None, 1, read=reading(gpu(0, 22), gpu(1, 24))) == 0
    assert choose_device("1", THREE, {}, taken=["GPU-1000-aaaa"]).gpu == gpu(1, 30), "as asked for"


def test_auto_keeps_to_the_gpu_that_is_ready_unless_it_is_taken_or_full() -> None:
    def auto(needs_bytes: int | None, taken: tuple[str, ...] = ()) -> int:
        device = choose_device("auto", THREE, {}, needs_bytes=needs_bytes, taken=taken, preferred="GPU-2000-aaaa")
        assert device.gpu is not None
        return device.gpu.index

    assert auto(5) == 2
    assert auto(5, ("GPU-2000-aaaa",)) == 1
    assert auto(25) == 1, "there is no room on it"


def test_auto_means_no_gpu_that_can_never_hold_the_run_unless_all_are_such() -> None:
    two = reading(gpu(0, 8, total_bytes=8), gpu(1, 3))
    assert [one.index for one in acceptable_gpus("auto", two, {}, 10)] == [1]
    assert choose_device("auto", two, {}, needs_bytes=10).gpu == gpu(1, 3)
    for needs_bytes in (None, 8, 30):
        assert len(acceptable_gpus("auto", two, {}, needs_bytes)) == 2
    assert [one.index for one in acceptable_gpus("0", two, {}, 10)] == [0], "as asked for"


def test_without_a_gpu_it_is_the_cpu_and_why() -> None:
    assert chosen("auto", NONE) == (None, "cpu", "the NVIDIA driver is not loaded")
    assert chosen("auto", GpuReading((), None, None)) == (None, "cpu", "no GPU was found")
    assert chosen("cpu") == (None, "cpu", "as asked for")


@pytest.mark.parametrize(("wish", "index"), [("0", 0), ("2", 2), ("GPU-1000-aaaa", 1)])
def test_a_gpu_is_asked_for_by_index_or_uuid(wish: str, index: int) -> None:
    assert chosen(wish) == (index, f"GPU {index} L{index}", "as asked for")


@pytest.mark.parametrize(
    ("visible", "index"),
    [("0", 0), ("2,0", 2), (" 0 , 2 ", 2), ("GPU-2", 2), ("GPU-2000-aaaa,GPU-0000", 2), ("0,GPU-1", 1)],
)
def test_only_what_cuda_shows_is_considered(visible: str, index: int) -> None:
    assert chosen("auto", visible=visible)[0] == index


@pytest.mark.parametrize("visible", ["", "-1", "7", "NoDevFiles", "GPU-9", "1000"])
def test_a_cuda_that_shows_nothing_means_the_cpu(visible: str) -> None:
    assert chosen("auto", visible=visible) == (None, "cpu", "CUDA_VISIBLE_DEVICES hides every GPU that works")


@pytest.mark.parametrize("visible", ["MIG-5c1f", "MIG-GPU-0000-aaaa/1/0"])
def test_a_part_of_a_gpu_is_said_to_be_one(visible: str) -> None:
    assert chosen("auto", visible=visible)[:2] == (None, "cpu")
    assert "a part of a GPU (MIG)" in chosen("auto", visible=visible)[2]


def test_one_of_several_that_is_left_is_not_called_the_only_one() -> None:
    assert chosen("auto", visible="0")[2] == "the only GPU that is visible and working"


@pytest.mark.parametrize(("wish", "visible"), [("1", "0,2"), ("GPU-1000-aaaa", "0"), ("3", None), ("cuda", None)])
def test_a_wish_that_cannot_be_met_names_what_is_there(wish: str, visible: str | None) -> None:
    with pytest.raises(SftuiError, match="No such device") as caught:
        chosen(wish, visible=visible)
    assert repr(wish) in caught.value.message
    assert "0 (L0)" in caught.value.message
    assert "1 (L1)" not in caught.value.message or visible is None
    with pytest.raises(SftuiError, match="the NVIDIA driver is not loaded"):
        chosen("0", NONE)


def test_a_lost_gpu_is_never_chosen() -> None:
    lost = reading(gpu(0, 10), gpu(1, None, lost=True))
    assert chosen("auto", lost) == (0, "GPU 0 L0", "the only GPU that is visible and working")
    with pytest.raises(SftuiError, match=r"0 \(L0\)"):
        chosen("1", lost)
    every = reading(gpu(0, lost=True))
    assert chosen("auto", every) == (None, "cpu", "every GPU is lost to the driver until it is reset")


def test_a_process_sees_the_chosen_gpu_alone() -> None:
    environ: dict[str, str] = {}
    device = choose_device("1", THREE, environ)
    assert cuda_environment(device) == {"CUDA_VISIBLE_DEVICES": "GPU-1000-aaaa"}
    # The process that was started so chooses the same one again, by whatever name.
    for wish in ("1", "auto", "GPU-1000-aaaa"):
        assert choose_device(wish, THREE, cuda_environment(device)).gpu == device.gpu
    no_uuid = choose_device("0", reading(gpu(0, uuid=None)), environ)
    assert cuda_environment(no_uuid) == {"CUDA_VISIBLE_DEVICES": "0"}
    assert cuda_environment(choose_device("cpu", THREE, environ)) == {"CUDA_VISIBLE_DEVICES": ""}
    assert isinstance(device, ChosenDevice)
