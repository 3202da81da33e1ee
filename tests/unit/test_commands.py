"""Viewers ask, the runner obeys: each request once, whoever else writes."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.runs.commands import COMMANDS, CommandReader, Request, parse_length, send
from core.runs.folder import RunFolder
from core.training.control import RunControl, StopRequestedError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def alive(folder: RunFolder) -> Iterator[RunFolder]:
    with folder.locked():
        yield folder


def test_a_request_reaches_the_runner_once(alive: RunFolder) -> None:
    reader = CommandReader(alive.commands_file)
    assert reader.read_new() == []
    sent = [Request(send(alive, command), command) for command in COMMANDS]
    assert reader.read_new() == sent
    assert reader.read_new() == []
    assert len({request.id for request in sent}) == len(sent)
    assert oct(alive.commands_file.stat().st_mode & 0o777) == "0o600"


def test_how_long_the_run_is_to_be_goes_with_the_request(alive: RunFolder) -> None:
    reader = CommandReader(alive.commands_file)
    sent = send(alive, "set_max_steps", 600), send(alive, "set_num_train_epochs", 1.5)
    assert reader.read_new() == [Request(sent[0], "set_max_steps", 600), Request(sent[1], "set_num_train_epochs", 1.5)]
    for value in ('"x"', "[]"):
        with alive.commands_file.open("a") as file:
            file.write(f'{{"id": "a", "command": "stop", "value": {value}}}\n')
    assert reader.read_new() == []


def test_without_a_runner_there_is_nobody_to_ask(folder: RunFolder) -> None:
    with pytest.raises(SftuiError, match="not running") as caught:
        send(folder, "stop")
    assert "sftui runs" in caught.value.hint
    assert not folder.commands_file.exists()


def test_what_an_earlier_runner_was_asked_is_not_obeyed(alive: RunFolder) -> None:
    send(alive, "stop")
    reader = CommandReader(alive.commands_file)
    assert reader.read_new() == []
    again = send(alive, "checkpoint")
    assert reader.read_new() == [Request(again, "checkpoint")]


def test_two_viewers_that_write_at_once_lose_nothing(alive: RunFolder) -> None:
    reader = CommandReader(alive.commands_file)
    ready = threading.Barrier(2)
    sent: list[str] = []

    def view() -> None:
        ready.wait()
        sent.extend(send(alive, "checkpoint") for _ in range(40))

    viewers = [threading.Thread(target=view) for _ in range(2)]
    for viewer in viewers:
        viewer.start()
    read: list[Request] = []
    while any(viewer.is_alive() for viewer in viewers):
        read += reader.read_new()
    read += reader.read_new()
    assert sorted(request.id for request in read) == sorted(sent)
    assert len(sent) == 80


def test_what_is_no_command_is_passed_over_and_a_half_line_waits(folder: RunFolder) -> None:
    reader = CommandReader(folder.commands_file)
    good = json.dumps({"id": "a", "command": "stop"})
    lines = [
        "{",
        "5",
        "null",
        '{"id": "x"}',
        '{"id": "x", "command": "dance"}',
        '{"id": "x", "command": ["stop"]}',
        good,
    ]
    folder.commands_file.write_text("\n".join(lines) + "\n" + good[:9])
    assert reader.read_new() == [Request("a", "stop")]
    assert reader.read_new() == []
    with folder.commands_file.open("a") as file:
        file.write(good[9:] + "\n")
    assert reader.read_new() == [Request("a", "stop")]


def test_the_worker_sees_a_stop_with_its_first_reason() -> None:
    control = RunControl()
    control.check()
    assert not control.stop_requested
    control.request_stop("stopped by SIGTERM")
    control.request_stop("stopped by a command")
    assert (control.stop_requested, control.stop_reason) == (True, "stopped by SIGTERM")
    with pytest.raises(StopRequestedError):
        control.check()


def test_a_checkpoint_is_made_once_for_each_time_it_was_asked_for() -> None:
    control = RunControl()
    assert not control.take_checkpoint_request()
    control.request_checkpoint()
    assert control.take_checkpoint_request()
    assert not control.take_checkpoint_request()


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("600 steps", ("set_max_steps", 600)),
        ("max_steps=1,200", ("set_max_steps", 1200)),
        ("1 step", ("set_max_steps", 1)),
        ("Epochs 2", ("set_num_train_epochs", 2)),
        ("0.5 epochs", ("set_num_train_epochs", 0.5)),
        ("num_train_epochs=3", ("set_num_train_epochs", 3)),
        *(
            (text, None)
            for text in ("", "600", "steps", "1.5 steps", "0 steps", "-2 epochs", "inf epochs", "two steps")
        ),
        *((text, None) for text in ("600 miles", "600 steps please", "nan epochs")),
    ],
)
def test_a_length_is_read_as_people_write_it(text: str, length: tuple[str, float] | None) -> None:
    assert parse_length(text) == length
