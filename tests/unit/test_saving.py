"""Saving a checkpoint on a disk that is full, faulty or forbidden: the run waits, and loses nothing."""

import errno
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from core.runs import events
from core.runs.checkpoints import committed_checkpoints, find_damage, place_of
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.training import saving
from core.training.control import RunControl
from core.training.saving import CheckpointSaver


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Desk:
    """A saver with all that belongs to it."""

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.folder = RunFolder(path)
        path.mkdir()
        self.told: list[Event] = []
        self.control = RunControl()
        self.saver = CheckpointSaver(self.folder, keep, self.told.append, self.control)

    def write(self, step: int, size: int = 1000) -> Callable[[], None]:
        def write() -> None:
            place = self.saver.beside / f"checkpoint-{step}"
            place.mkdir()
            (place / "adapter_model.safetensors").write_bytes(bytes(size))

        return write

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.told]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECONDS", 0.01)
    return Desk(tmp_path / "run")


def test_a_checkpoint_is_saved_and_told_and_the_oldest_goes_but_not_the_best(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "run", keep=2)
    losses = {1: 2.0, 2: 1.5, 3: 1.8}
    for step in (1, 2, 3):
        assert desk.saver.save(step, losses, desk.write(step))
    assert desk.kinds() == [*["CheckpointCommitted"] * 3, "CheckpointDeleted"]
    assert desk.saver.save(4, losses, desk.write(4))
    assert desk.kinds()[-1] == "CheckpointCommitted"
    assert [path.name for path in committed_checkpoints(desk.folder)] == [f"checkpoint-{n}" for n in (2, 3, 4)]
    assert desk.saver.save(5, {**losses, 5: 1.2}, desk.write(5))
    assert {event.path for event in desk.told[-2:] if isinstance(event, events.CheckpointDeleted)} == {
        "checkpoints/checkpoint-2",
        "checkpoints/checkpoint-3",
    }
    assert not desk.saver.beside.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EIO, "Input/output error"), "The disk is faulty"),
        (PermissionError(errno.EACCES, "Permission denied"), "The run's folder may not be written"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "The disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed"), "The disk is full"),
    ],
)
def test_what_a_disk_refuses_is_tried_again_until_it_is_taken(desk: Desk, error: Exception, reason: str) -> None:
    assert desk.saver.save(1, {}, desk.write(1))
    tries = 0

    def write() -> None:
        nonlocal tries
        tries += 1
        desk.write(2)()
        if tries < 3:
            raise error

    assert desk.saver.save(2, {}, write)
    assert tries == 3
    assert desk.kinds() == ["CheckpointCommitted", "RunPaused", "RunContinued", "CheckpointCommitted"]
    paused = desk.told[1]
    assert isinstance(paused, events.RunPaused)
    assert paused.reason == reason
    assert str(place_of(desk.folder, 2)) in paused.message
    assert "1.00 kB" in paused.message
    assert find_damage(place_of(desk.folder, 1)) is None


def test_room_is_looked_for_before_anything_is_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.saver.save(1, {}, desk.write(1, size=5_000_000))
    room = [6_000_000]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 0, room[0]))
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECONDS", 60.0)
    tries: list[int] = []

    def write() -> None:
        tries.append(room[0])
        desk.write(2)()

    thread = threading.Thread(target=lambda: desk.saver.save(2, {}, write))
    thread.start()
    while "RunPaused" not in desk.kinds():
        thread.join(0.01)
    assert tries == []
    paused = desk.told[-1]
    assert isinstance(paused, events.RunPaused)
    assert "9.19 MB are needed and 6.00 MB are free" in paused.reason
    room[0] = 10**9
    thread.join(30)
    assert tries == [10**9]
    assert desk.kinds()[-2:] == ["RunContinued", "CheckpointCommitted"]


def test_a_stop_ends_the_wait_and_keeps_what_is_saved(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECONDS", 60.0)
    assert desk.saver.save(1, {}, desk.write(1))

    def write() -> None:
        desk.control.request_stop("by request")
        raise OSError(errno.ENOSPC, "No space left on device")

    assert not desk.saver.save(2, {}, write)
    assert [path.name for path in committed_checkpoints(desk.folder)] == ["checkpoint-1"]


def test_a_key_tries_again_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "_FIRST_WAIT_SECONDS", 60.0)
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        if len(tries) == 1:
            threading.Timer(0.1, desk.control.request_continue).start()
            raise OSError(errno.EIO, "Input/output error")
        desk.write(1)()

    assert desk.saver.save(1, {}, write)
    assert len(tries) == 2


def test_what_is_no_word_of_a_disk_is_raised(desk: Desk) -> None:
    def write() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        desk.saver.save(1, {}, write)
