"""What a run holds at most, beside what its plan says."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from core.devices.gpu import GpuMonitor, GpuProcess, GpuReading, GpuSnapshot
from core.diagnosis import diagnose
from core.runs import events
from core.runs.folder import summarize
from core.runs.journal import JournalWriter
from core.runs.memory_words import out_of_memory_lines
from core.spec.yaml_file import read_spec
from core.training.peak import PeakMeter
from core.training.ran_out import missing_bytes, wanted_bytes, what_is_known
from core.training.whereabouts import Whereabouts
from core.training.worker import TrainingWorker
from tests.training.runs import make_run

MIB = 1 << 20
GIB = 1 << 30


def test_a_run_tells_the_growth_of_its_process_beside_the_plan_and_again_only_when_it_grows(
    tiny_model: Path, rows: Path
) -> None:
    folder = make_run(tiny_model, rows, max_steps=6)
    folder.plan_file.write_text(json.dumps({"memory": {"total_bytes": 123 * MIB, "total_is_complete": True}}))
    told: list[events.Event] = []
    worker = TrainingWorker(read_spec(folder.spec_file), folder, told.append)
    worker.start()
    worker.join(300)
    assert isinstance(worker.outcome, events.RunFinished), worker.outcome
    peaks = [event for event in told if isinstance(event, events.PeakMeasured)]
    assert peaks[0].step == 1
    assert all(later.bytes >= sooner.bytes > 0 for sooner, later in pairwise(peaks))
    assert peaks[-1].step == 6 and len(peaks) < 7
    assert {(one.device, one.allocated_bytes, one.predicted_bytes) for one in peaks} == {("host", None, 123 * MIB)}

    journal = JournalWriter(folder.journal_file)
    journal.write(peaks[-1])
    journal.close()
    assert summarize(folder).peak == peaks[-1]


def test_what_the_process_held_before_is_not_the_runs_and_what_it_gave_back_since_is() -> None:
    earlier = b"x" * (64 * MIB)
    del earlier
    meter = PeakMeter(None, None)
    assert meter.look(0).bytes < 16 * MIB
    briefly = b"x" * (48 * MIB)
    del briefly
    held = meter.look(1).bytes
    assert 40 * MIB < held < 64 * MIB
    meter.restart()
    assert meter.look(1).bytes < 16 * MIB


class Gpu:
    """A GPU whose memory moves as told: what PyTorch holds, and what the driver sees of us and of others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reserved = self.allocated = 0
        self.own: int | None = 0
        self.others = 500 * MIB
        self.reads = 0
        for name in ("max_memory_reserved", "memory_reserved"):
            monkeypatch.setattr(torch.cuda, name, lambda: self.reserved)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: self.allocated)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * GIB - self.used, 80 * GIB))
        monkeypatch.setattr(GpuMonitor, "read", lambda _: self.read())

    @property
    def used(self) -> int:
        return (self.real_own or 0) + self.others

    real_own = 0

    def snapshot(self, *more: GpuProcess) -> GpuSnapshot:
        own = (GpuProcess(os.getpid(), self.own, "me", "python"),) if self.own is not None else ()
        used = self.used
        return GpuSnapshot(
            0, "GPU-1", "NVIDIA H100", 80 * GIB, used, 80 * GIB - used, 1, 40, 1.0, 2.0, (9, 0), (*own, *more)
        )

    def read(self) -> GpuReading:
        self.reads += 1
        return GpuReading((self.snapshot(),), "570", None)

    def hold(self, reserved: int, context: int, *, told: bool = True) -> None:
        self.reserved, self.allocated, self.real_own = reserved, reserved - 100 * MIB, reserved + context
        self.own = self.real_own if told else None


@pytest.mark.parametrize("told", [True, False], ids=["by the driver", "in a container"])
def test_on_a_gpu_the_peak_has_what_lies_outside_of_pytorch_and_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    gpu = Gpu(monkeypatch)
    meter = PeakMeter(gpu.snapshot(), 9 * GIB)
    gpu.hold(8 * GIB, 450 * MIB, told=told)
    first = meter.look(1)
    assert (first.device, first.bytes) == ("gpu", 8 * GIB + 450 * MIB)
    assert (first.allocated_bytes, first.reserved_bytes) == (8 * GIB - 100 * MIB, 8 * GIB)
    assert first.predicted_bytes == 9 * GIB
    # The driver is asked only when PyTorch has taken more.
    assert (meter.look(2), gpu.reads) == (replace(first, step=2), 1)
    gpu.hold(8 * GIB + 64 * MIB, 460 * MIB, told=told)
    assert meter.look(3).bytes == 8 * GIB + 524 * MIB
    assert gpu.reads == 2


def test_when_memory_runs_out_those_who_came_since_are_named_with_what_they_hold(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, rows: Path
) -> None:
    gpu = Gpu(monkeypatch)
    there = GpuProcess(7, 500 * MIB, "ml", "python serve.py")
    before = gpu.snapshot(there)
    gpu.hold(8 * GIB, 450 * MIB)
    gpu.others = 3 * GIB
    came = GpuProcess(4121, None, "ml", "vllm")
    monkeypatch.setattr(GpuMonitor, "read", lambda _: GpuReading((gpu.snapshot(there, came),), "570", None))
    folder = make_run(tiny_model, rows)
    folder.plan_file.write_text(json.dumps({"memory": {"total_bytes": 9 * GIB, "total_is_complete": True}}))
    at = Whereabouts("training", 3, batch_rows=2, batch_tokens=190, gpu=before, meter=PeakMeter(before, None))
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 80 GiB of which 1.50 GiB is free."
    known = what_is_known(diagnose(RuntimeError(text)), read_spec(folder.spec_file), folder, at)
    assert known is not None
    assert (known.phase, known.batch_rows, known.wanted_bytes) == ("training", 2, 2 * GIB)
    assert (known.held_bytes, known.predicted_bytes, known.total_bytes) == (8 * GIB + 450 * MIB, 9 * GIB, 80 * GIB)
    assert (known.others_bytes, known.others_bytes_at_start) == (3 * GIB, 500 * MIB)
    assert known.newcomers == (events.GpuUser(4121, "ml", "vllm", None),)
    assert known.mends[0].sets[0] == "per_device_train_batch_size=1"
    words = dict(out_of_memory_lines(known, 3))
    assert words["others"] == "came onto the GPU since the start: vllm (user ml, pid 4121)"
    # By what it fell short, and what was still to come of what was predicted.
    assert missing_bytes(text, known) == missing_bytes(text, replace(known, predicted_bytes=None)) == GIB // 2
    more = replace(known, predicted_bytes=12 * GIB)
    assert missing_bytes(text, more) == 12 * GIB - (8 * GIB + 450 * MIB) - 3 * GIB // 2
    assert missing_bytes("CUBLAS_STATUS_ALLOC_FAILED", known) is None

    # A container's driver tells of nobody, not even of us.
    gpu.own = None
    known = what_is_known(diagnose(RuntimeError(text)), read_spec(folder.spec_file), folder, at)
    assert known is not None and known.newcomers == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Tried to allocate 512.00 MiB", 512 * MIB),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.", 4096),
        ("Unable to allocate 1.5 TiB for an array with shape (1,)", 1536 * GIB),
        ("CUDA error: out of memory", None),
    ],
)
def test_what_could_not_be_had_is_read_in_what_libraries_say(text: str, wanted: int | None) -> None:
    assert wanted_bytes(text) == wanted
