"""The GPU's memory: who is seen to hold it, that it comes back, and what happens when it runs out."""

import contextlib
import json
import os
import signal
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.devices.gpu import GpuReading, GpuSnapshot
from core.memory.batch_shape import BatchShape
from core.memory.plan import Plan, plan_here
from core.memory.simulated import Simulation, SimulationTask
from core.runs import events
from core.runs.folder import RunFolder
from core.runs.launch import WarmRunner, start_run
from core.spec.yaml_file import read_spec
from tests.gpu.on_gpu import MIB, finish, gpu_run, gpus_now, now, only, until, used_bytes
from tests.gpu.planning import Planner
from tests.training.runs import terminal_events, wait_for, wait_for_end

pytestmark = pytest.mark.gpu
GIB = 1 << 30
# More than a CUDA context and its libraries take anywhere.
_MOST_CONTEXT = 2 * GIB
_ROW_TOKENS = 512


def test_the_driver_and_pytorch_speak_of_the_same_gpu(gpu: GpuSnapshot) -> None:
    import torch

    properties = torch.cuda.get_device_properties(0)
    assert gpu.name == properties.name
    assert gpu.compute_capability == (properties.major, properties.minor)
    assert gpu.total_bytes is not None and gpu.used_bytes is not None and gpu.free_bytes is not None
    # The driver keeps a little of it for itself.
    assert 0 <= gpu.total_bytes - properties.total_memory < 0.05 * gpu.total_bytes
    assert gpu.used_bytes + gpu.free_bytes <= gpu.total_bytes
    assert gpus_now().driver_version


def test_what_this_process_takes_is_counted_whether_the_driver_knows_it_by_name_or_not(gpu: GpuSnapshot) -> None:
    import torch

    from core.training.peak import PeakMeter, own_bytes

    torch.zeros(1, device="cuda")
    before = used_bytes(gpu)
    held = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    assert used_bytes(gpu) - before == pytest.approx(GIB, abs=8 * MIB)
    own = own_bytes(now(gpu))
    # Containers hide who we are: then it is what has come since the run began, which is to be the same.
    print("the driver tells what this process holds" if own is not None else "the driver does not know this process")
    if own is not None:
        assert GIB < own < GIB + _MOST_CONTEXT + torch.cuda.memory_reserved() - held.numel()
    peak = PeakMeter(gpu, None).look(1)
    assert peak.reserved_bytes is not None
    assert GIB <= peak.reserved_bytes <= peak.bytes < peak.reserved_bytes + _MOST_CONTEXT
    del held
    torch.cuda.empty_cache()


def test_a_run_that_is_killed_gives_its_memory_back(tiny_model: Path, rows: Path, gpu: GpuSnapshot) -> None:
    before = used_bytes(gpu)
    folder = gpu_run(tiny_model, rows, max_steps=100_000)
    process = start_run(folder)
    wait_for(folder, lambda state: state.step >= 2)
    assert used_bytes(gpu) - before > 100 * MIB, "CUDA's context alone is larger"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert until(lambda: used_bytes(gpu) - before < 16 * MIB), f"{used_bytes(gpu) - before:,} bytes are still held"
    assert not terminal_events(folder) and not folder.is_alive()


def test_the_warm_runner_leaves_the_gpu_alone_until_it_has_a_run(
    tiny_model: Path, rows: Path, gpu: GpuSnapshot
) -> None:
    before = used_bytes(gpu)
    warm = WarmRunner.start()
    try:
        asked = {"ask": "inventory", "folder": str(tiny_model), "auto_class": "AutoModelForCausalLM"}
        assert warm.ask(asked)["model_type"] == "llama"
        folder = gpu_run(tiny_model, rows, dtype="bfloat16")
        spec = read_spec(folder.spec_file)
        shape = BatchShape(2, 96, 191, packed=False)
        task = SimulationTask(spec, tiny_model, "AutoModelForCausalLM", "bfloat16", True, shape)
        # Refused by a runner in whose process CUDA has been started.
        assert Simulation.from_json(warm.ask(task.question())).peak > 0
        assert warm._process.pid not in {one.pid for one in now(gpu).processes or ()}
        assert used_bytes(gpu) - before < 16 * MIB
        assert warm.run(folder)
        state = wait_for_end(folder)
    finally:
        warm.close()
    assert isinstance(state.outcome, events.RunFinished)
    assert state.warm
    assert only(events.PeakMeasured, folder)[-1].device == "gpu"


@contextlib.contextmanager
def free_for_others(room: int) -> Iterator[None]:
    """Hold so much of the GPU that others find `room` bytes."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    assert free > room, "somebody else holds the GPU"
    held = torch.empty(free - room, dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


def long_rows(path: Path) -> Path:
    """Texts, each of as many tokens as a row may have."""
    texts = [(string.ascii_letters * 20)[number % 52 :][: _ROW_TOKENS - 1] for number in range(64)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def needs(folder: RunFolder, **changes: Any) -> Plan:
    """The plan of a run, with some options otherwise."""
    plan = plan_here(read_spec(folder.spec_file).model_copy(update=changes))
    assert plan.memory is not None and plan.memory.total_is_complete
    return plan


def test_a_run_that_finds_too_little_memory_says_what_it_held_and_goes_on_once_mended(
    wide_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu: GpuSnapshot
) -> None:
    with contextlib.closing(Planner(GpuReading((gpu,), None, None))) as planner:
        planner.learn(wide_model)
    folder = gpu_run(
        wide_model, long_rows(tmp_path / "rows.jsonl"), dtype="bfloat16", learning_rate=1e-4, max_length=_ROW_TOKENS,
        per_device_train_batch_size=16, gradient_accumulation_steps=1,
    )  # fmt: skip
    whole, half = needs(folder), needs(folder, per_device_train_batch_size=8)
    assert whole.memory is not None and half.memory is not None
    most, least = whole.memory.known_bytes, half.memory.known_bytes
    folder.plan_file.write_text(json.dumps(whole.to_json()))
    with free_for_others((most + least) // 2):
        failed = finish(folder)
        assert isinstance(failed, events.RunFailed)
        assert failed.title == "The GPU's memory ran out"
        known = failed.memory
        assert known is not None
        assert (known.device, known.phase, known.batch_rows) == ("gpu", "training", 16)
        assert known.batch_tokens == 16 * _ROW_TOKENS
        assert known.wanted_bytes and known.held_bytes and known.others_bytes
        assert known.total_bytes == gpu.total_bytes
        # Nobody but this process holds the rest, and it did so before.
        assert known.others_bytes == known.others_bytes_at_start and not known.newcomers
        assert known.mends[0].sets == ("per_device_train_batch_size=8", "gradient_accumulation_steps=2")
        assert len(known.mends) > 1

        assert cli.main(["resume", folder.id, "--mend"]) == 0, capsys.readouterr()
    state = folder.read_state()
    assert isinstance(state.outcome, events.RunFinished)
    assert [step.step for step in state.steps] == [1, 2, 3]
    assert read_spec(folder.spec_file).per_device_train_batch_size == 8
