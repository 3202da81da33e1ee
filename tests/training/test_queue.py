"""Runs that wait for their device: real runner processes, most of them with a worker that trains nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.runs import events, launch, queue
from core.runs.commands import send
from core.runs.folder import RunFolder, summarize
from core.runs.journal import JournalReader
from core.runs.launch import start_run
from core.runs.state import RunState
from tests.nvml import build_stub
from tests.training.runs import events_of, make_run, terminal_events, wait_for

ROOT = Path(__file__).parents[2]
GIB = 1024
FIRST_GPU, SECOND_GPU = (f"GPU-00000000-0000-0000-0000-{index:012d}" for index in (0, 1))
STARTED: list["subprocess.Popen[bytes]"] = []


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runners are light; those that a test leaves behind are ended."""
    real = launch._spawn

    def spawn(module: str, *arguments: Any, **more: Any) -> "subprocess.Popen[bytes]":
        process = real(module.replace("core.training.runner", "tests.training.light_runner"), *arguments, **more)
        STARTED.append(process)
        return process

    monkeypatch.setattr(launch, "_spawn", spawn)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()


@pytest.fixture
def new(tmp_path: Path, light: None) -> Callable[..., RunFolder]:
    """Makes a run, and starts its runner."""

    def make(name: str, *, wait: bool = True, device: str = "cpu", needs_gib: float | None = None) -> RunFolder:
        folder = make_run(tmp_path, tmp_path / "rows.jsonl", sftui={"device": device, "name": name})
        memory = {"total_bytes": int((needs_gib or 0) * 2**30), "total_is_complete": needs_gib is not None}
        folder.plan_file.write_text(json.dumps({"memory": memory}))
        start_run(folder, queue=wait)
        return folder

    return make


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says how much memory is used on GPUs, of 24 GiB each unless told otherwise."""
    told = tmp_path / "nvml"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stub(tmp_path)))
    monkeypatch.setenv("STUB_NVML_FILE", str(told))

    def use(*gib: float, total: Sequence[float] = (24,)) -> None:
        used, all_there_is = (",".join(str(int(one * GIB)) for one in those) for those in (gib, total))
        beside = told.with_suffix(".new")
        beside.write_text(f"STUB_NVML_COUNT={len(gib)}\nSTUB_NVML_USED_MB={used}\nSTUB_NVML_TOTAL_MB={all_there_is}\n")
        beside.replace(told)

    return use


def end(folder: RunFolder, how: str = "finish") -> None:
    (folder.path / "end").write_text(how)


def runs(folder: RunFolder) -> None:
    wait_for(folder, lambda state: bool(state.choices))


def waits(folder: RunFolder, place: int, words: str = "") -> None:
    def stands(state: RunState) -> bool:
        return state.queued is not None and state.queued.place == place and words in state.queued.waits_for

    wait_for(folder, stands)


def moment(folder: RunFolder, kind: type[events.Event]) -> float:
    return next(entry.time for entry in JournalReader(folder.journal_file).read_new() if isinstance(entry.event, kind))


def device_of(folder: RunFolder) -> str:
    runs(folder)
    return folder.read_state().choices[0].value


def order() -> list[str]:
    return [ticket.run.name.split("-")[1] for ticket in queue.tickets()]


def test_two_trainings_come_one_after_the_other(tiny_model: Path, rows: Path) -> None:
    first, second = make_run(tiny_model, rows), make_run(tiny_model, rows)
    processes = [start_run(folder, queue=True) for folder in (first, second)]
    waits(second, 1, f"the CPU, behind {first.id}")
    assert summarize(second).state == "queued"
    resident = Path(f"/proc/{processes[1].pid}/statm").read_text().split()[1]
    assert int(resident) * os.sysconf("SC_PAGE_SIZE") < 150 << 20, "whoever waits has no torch loaded"

    assert [process.wait(timeout=180) for process in processes] == [0, 0]

    assert all(isinstance(terminal_events(folder)[0], events.RunFinished) for folder in (first, second))
    assert moment(second, events.RunStarted) >= moment(first, events.RunFinished)
    assert queue.tickets() == ()


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_neither_a_failure_nor_a_sudden_death_holds_up_those_behind(how: str, new: Callable[..., RunFolder]) -> None:
    first = new("one", wait=False)
    runs(first)
    second, third = new("two"), new("three")
    waits(second, 1, first.id)
    waits(third, 2, second.id)
    if how == "kill":
        # One that waits may die too.
        os.kill(STARTED[1].pid, signal.SIGKILL)
        STARTED[1].wait()
        assert summarize(second).state == "interrupted"
        waits(third, 1, first.id)
        os.kill(STARTED[0].pid, signal.SIGKILL)
    else:
        end(first, "fail")
        runs(second)
        assert summarize(third).state == "queued"
        assert moment(second, events.RunStarted) >= moment(first, events.RunFailed)
        end(second)
    runs(third)
    assert not any(isinstance(event, events.RunQueued) for event in events_of(first)), "it was not asked to wait"


def test_those_who_wait_change_places_and_leave(
    new: Callable[..., RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    first = new("one", wait=False)
    runs(first)
    second, third, fourth = new("two"), new("three"), new("four")
    assert order() == ["one", "two", "three", "four"]

    def say(*arguments: str) -> str:
        assert cli.main(["queue", *arguments]) == 0
        return capsys.readouterr().out

    assert say(third.id, "--down").endswith("place 3\n")
    assert order() == ["one", "two", "four", "three"]
    say(third.id, "--first")
    say(fourth.id, "--last")
    assert order() == ["one", "three", "two", "four"]
    say(second.id, "--up")
    say(second.id, "--up")
    assert order() == ["one", "two", "three", "four"]
    say(second.id, "--last")
    assert order() == ["one", "three", "four", "two"]
    waits(third, 1)
    waits(second, 3, fourth.id)
    lines = say().splitlines()
    assert [line.split()[0] for line in lines] == ["runs", "1", "2", "3"]
    listed = json.loads(say("--json"))
    assert [(entry["id"], entry["place"]) for entry in listed][1] == (third.id, 1)
    assert cli.main(["queue", first.id, "--last"]) == 2
    assert "has begun already" in capsys.readouterr().err

    send(third, "stop")
    send(fourth, "release")
    assert [process.wait(timeout=60) for process in STARTED[2:4]] == [0, 0]
    assert [summarize(folder).state for folder in (third, fourth)] == ["stopped", "released"]
    os.kill(STARTED[1].pid, signal.SIGTERM)
    assert STARTED[1].wait(timeout=60) == 128 + signal.SIGTERM
    assert not any(isinstance(event, events.RunStarted) for event in events_of(second))
    assert order() == ["one"]


def test_one_that_waits_outlives_who_started_it_and_can_be_told_not_to_wait(
    new: Callable[..., RunFolder], tmp_path: Path
) -> None:
    first = new("one", wait=False)
    runs(first)
    second = make_run(tmp_path, tmp_path / "rows.jsonl", sftui={"device": "cpu", "name": "two"})
    script = (
        "import sys, os, signal; from pathlib import Path; from core.runs import launch\n"
        "from core.runs.folder import RunFolder\n"
        "spawn = launch._spawn\n"
        "launch._spawn = lambda module, *rest, **more: spawn('tests.training.light_runner', *rest, **more)\n"
        "print(launch.start_run(RunFolder(Path(sys.argv[1])), queue=True).pid, flush=True)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "os.killpg(0, signal.SIGHUP)\n"
    )
    arguments = [sys.executable, "-c", script, str(second.path)]
    parent = subprocess.run(arguments, capture_output=True, text=True, start_new_session=True, check=False, timeout=60)
    assert parent.returncode == -signal.SIGHUP
    waits(second, 1, first.id)

    assert cli.main(["queue", second.id, "--now"]) == 0
    runs(second)
    assert summarize(first).state == "starting", "it goes on beside"
    end(second)
    wait_for(second, lambda state: state.outcome is not None)


def test_a_gpu_is_taken_when_its_memory_is_free(new: Callable[..., RunFolder], gpus: Callable[..., None]) -> None:
    gpus(0.5, 20)
    first = new("one", device="0")
    assert device_of(first) == FIRST_GPU
    # Any will do: one is taken by a run, the other by somebody who is none of ours.
    second = new("two", device="auto", needs_gib=10)
    waits(second, 1, "10.7 GB free on GPU 1 Stub GPU, where 4.29 GB are free now")
    third = new("three", device="1", needs_gib=2)
    waits(third, 2, second.id)
    # There is room for the third, but it is not its turn.
    time.sleep(1.2)
    assert summarize(third).state == "queued"

    end(first)
    assert device_of(second) == FIRST_GPU
    assert device_of(third) == SECOND_GPU


def test_a_need_that_is_not_known_waits_for_a_gpu_that_is_all_but_empty(
    new: Callable[..., RunFolder], gpus: Callable[..., None]
) -> None:
    gpus(6)
    folder = new("one", device="auto")
    waits(folder, 1, "free on GPU 0")
    gpus(1)
    assert device_of(folder) == FIRST_GPU


def test_a_device_that_is_not_there_is_not_waited_for(new: Callable[..., RunFolder]) -> None:
    folder = new("one", device="7")
    runs(folder)
    assert not any(isinstance(event, events.RunQueued) for event in events_of(folder))


def test_of_two_gpus_each_is_waited_for_by_itself_and_any_is_the_first_that_is_free(
    new: Callable[..., RunFolder], gpus: Callable[..., None]
) -> None:
    gpus(0.5, 0.5)
    # These do not wait, and neither holds memory when the other begins.
    first, second = new("one", wait=False, device="auto"), new("two", wait=False, device="auto")
    assert {device_of(first), device_of(second)} == {FIRST_GPU, SECOND_GPU}
    if device_of(first) == SECOND_GPU:
        first, second = second, first
    third = new("three", device="0")
    waits(third, 1, f"GPU 0 Stub GPU, behind {first.id}")
    fourth = new("four", device="auto")
    waits(fourth, 2, "GPU 0 Stub GPU or GPU 1 Stub GPU")
    end(second, "fail")
    assert device_of(fourth) == SECOND_GPU
    # A GPU that is free again is nothing to one that waits for the other.
    end(fourth)
    fifth = new("five", device="1")
    assert device_of(fifth) == SECOND_GPU
    assert summarize(third).state == "queued"
    end(first)
    assert device_of(third) == FIRST_GPU
    end(third)
    # GPU 0 is free, and too small.
    gpus(0.5, 0.5, total=(8, 24))
    sixth = new("six", device="auto", needs_gib=10)
    waits(sixth, 1, f"GPU 1 Stub GPU, behind {fifth.id}")
    end(fifth)
    assert device_of(sixth) == SECOND_GPU
