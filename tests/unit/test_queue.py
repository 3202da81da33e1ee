"""The list of who waits for which device: places, turns, changes, and what becomes of those who are gone."""

import fcntl
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

import pytest

from core import paths
from core.cli import main
from core.devices.choose import lack_of_room
from core.errors import SftuiError
from core.runs import queue
from core.runs.queue import Place, Ticket
from tests.unit.test_choose_device import gpu


class Runners:
    """Runs that live, as their locks tell."""

    def __init__(self) -> None:
        self._locks: dict[Path, IO[bytes]] = {}

    def __call__(self, name: str, *devices: str, has: str | None = None) -> Path:
        """Let a run of this name live and stand in line."""
        run = paths.runs_home() / name
        run.mkdir(parents=True)
        (run / "run.yaml").touch()
        self._locks[run] = (run / "runner.lock").open("ab")
        fcntl.flock(self._locks[run], fcntl.LOCK_EX)
        queue.enter(Ticket(run, devices, has))
        return run

    def end(self, *runs: Path) -> None:
        """Let these die."""
        for run in runs:
            self._locks.pop(run).close()

    def end_all(self) -> None:
        """Let all die."""
        self.end(*self._locks)


@pytest.fixture
def join() -> Iterator[Runners]:
    """The runs of a test."""
    runners = Runners()
    yield runners
    runners.end_all()


def where(run: Path) -> Place:
    place = queue.place_of(run, queue.tickets())
    assert place is not None
    return place


def waiting() -> list[str]:
    return [ticket.run.name for ticket in queue.tickets() if ticket.has is None]


def test_one_waits_for_those_alone_who_want_the_same_device(join: Runners) -> None:
    running = join("running", "0", has="0")
    zero, one, both, cpu = join("zero", "0"), join("one", "1"), join("both", "0", "1"), join("cpu", "cpu")
    assert where(zero) == Place(1, (), running)
    assert where(one) == Place(1, ("1",), None)
    assert where(both) == Place(3, (), one)
    assert where(cpu) == Place(1, ("cpu",), None)

    assert queue.claim(one, "1")
    assert queue.place_of(one, queue.tickets()) is None, "it waits no more"
    assert where(both) == Place(2, (), zero)
    assert not queue.claim(both, "0"), "zero is before it"
    join.end(running)
    assert queue.claim(zero, "0")
    join.end(zero)
    assert where(both) == Place(1, ("0",), one)


def test_who_takes_any_device_leaves_the_other_to_those_behind(join: Runners) -> None:
    first, second, third = (join(name, "0", "1") for name in ("first", "second", "third"))
    assert where(first).open == ("0", "1")
    assert where(second).open == ()
    assert queue.claim(first, "1")
    assert where(second).open == ("0",)
    assert queue.claim(second, "0")
    assert where(third) == Place(1, (), second)


def test_who_does_not_wait_is_told_what_others_have_and_takes_what_it_likes(join: Runners) -> None:
    join("running", "0", has="0")
    waiting, new = join("waiting", "1"), join("new", "2", has="2")
    told: list[str] = []

    def choose(taken: Collection[str]) -> str:
        told.extend(taken)
        return "1"

    assert queue.take(new, choose) == "1"
    assert told == ["0"], "and not what it has had itself"
    assert queue.tickets()[-1] == Ticket(new, ("1",), has="1")
    assert where(waiting) == Place(1, (), new)


def test_one_that_comes_again_is_the_last(join: Runners) -> None:
    first, second = join("first", "0"), join("second", "0")
    queue.enter(Ticket(first, ("0",)))
    assert waiting() == ["second", "first"]
    assert where(second).number == 1


def test_moves_go_around_those_alone_who_want_the_same(join: Runners) -> None:
    join("running", "0", has="0")
    a, _, c = join("a", "0"), join("other", "1"), join("c", "0")
    assert queue.move(c, "up").number == 1
    assert waiting() == ["c", "a", "other"]
    assert queue.move(c, "up").number == 1, "there is nobody before it"
    assert queue.move(c, "down").number == 2
    assert queue.move(a, "last").number == 2
    assert queue.move(a, "first").number == 1
    with pytest.raises(SftuiError, match="has begun already"):
        queue.move(paths.runs_home() / "running", "up")
    with pytest.raises(SftuiError, match="does not wait"):
        queue.move(paths.runs_home() / "nobody", "up")


def test_a_damaged_list_is_an_empty_one(join: Runners) -> None:
    run = join("run", "0")
    (file,) = (paths.data_home() / "queue").glob("*.json")
    for damage in ("", "{", "7", '[7, {"run": 1}, {"run": "x", "devices": [1]}]'):
        file.write_text(damage)
        assert queue.tickets() == ()
    queue.enter(Ticket(run, ("0",)))
    assert waiting() == ["run"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_somebody_who_holds_the_list_holds_nobody_up_for_long(
    join: Runners, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = join("run", "0")
    monkeypatch.setattr(queue, "_PATIENCE_SECONDS", 0.05)
    (lock,) = (paths.data_home() / "queue").glob("*.lock")
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="unavailable"):
            queue.claim(run, "0")
        assert main(["queue", "run", "--last"]) == 2
        assert "cannot be changed now" in capsys.readouterr().err
    assert queue.claim(run, "0")


def test_which_run_and_where_to_are_asked_for(join: Runners, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue"]) == 0
    assert "no run has or waits for a device" in capsys.readouterr().out
    join("run", "0")
    assert main(["queue", "run"]) == 2
    assert main(["queue", "--first"]) == 2
    assert "sftui queue RUN --first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("free", "needs", "waits_for"),
    [
        (30, 20, ""),
        (10, 20, "20.0 GB free on GPU 0"),
        (70, 79, "76.0 GB free"),
        (76, 79, ""),
        (60, None, "68.0 GB free"),
        (69, None, ""),
        (None, 20, ""),
    ],
)
def test_a_gpu_has_room_when_what_the_plan_needs_is_free(free: int | None, needs: int | None, waits_for: str) -> None:
    found = gpu(0, None if free is None else free * 10**9, total_bytes=80 * 10**9)
    told = lack_of_room(found, None if needs is None else needs * 10**9)
    assert told.startswith(waits_for) if waits_for else told == ""
