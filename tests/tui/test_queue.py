"""The queue in the app: who waits where, other places, leaving it, and starting a run that waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from core.runs import events, queue
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.runs.queue import Ticket
from core.spec.presets import PRESETS
from tests.tui.helpers import add, alive, begin, home_in, shown, until, until_shown, write_run
from tests.tui.setup_helpers import opened, told, wait_for
from tui_app.app import SftuiApp
from tui_app.messages import StartRequested

pytest_plugins = ["tests.tui.setup_helpers"]
SIZE = (100, 30)


def queued(name: str, place: int, waits_for: str) -> Event:
    return events.RunQueued(name, "/models/small-model", "qlora", 4242, place, waits_for)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[RunFolder]]:
    """One run that trains on the CPU and two that wait for it."""
    home_in(monkeypatch, tmp_path)
    folders = [
        write_run("one-aaaa", begin("one-aaaa")),
        write_run("two-bbbb", [queued("two-bbbb", 1, "the CPU, behind one-aaaa")]),
        write_run("three-cccc", [queued("three-cccc", 2, "the CPU, behind two-bbbb")]),
    ]
    with ExitStack() as living:
        for folder in folders:
            living.enter_context(alive(folder))
            queue.enter(Ticket(folder.path, ("cpu",), has="cpu" if folder.id == "one-aaaa" else None))
        yield folders


def waiting() -> list[str]:
    return [ticket.run.name for ticket in queue.tickets() if ticket.has is None]


def asked(folder: RunFolder) -> list[str]:
    if not folder.commands_file.exists():
        return []
    return [json.loads(line)["command"] for line in folder.commands_file.read_text().splitlines()]


def go_to(app: Any, name: str) -> None:
    table = app.screen.table
    table.move_cursor(row=table.get_row_index(name))


async def test_those_who_wait_are_listed_with_their_places_which_keys_change(line: list[RunFolder]) -> None:
    async with SftuiApp(warm=False).run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "3 runs, 1 live, 2 queued", "○ queued 1", "○ queued 2", "● training")
        go_to(pilot.app, "one-aaaa")
        await pilot.pause()
        assert "K Sooner" not in shown(pilot.app), "it runs already"
        go_to(pilot.app, "three-cccc")
        await until_shown(pilot, "K Sooner")
        await pilot.press("K")
        await until(pilot, lambda: waiting() == ["three-cccc", "two-bbbb"])
        await until_shown(pilot, "three-cccc has place 1 in the queue.")
        add(line[2], [queued("three-cccc", 1, "the CPU, behind one-aaaa")])
        add(line[1], [queued("two-bbbb", 2, "the CPU, behind three-cccc")])
        await pilot.press("J")
        await until(pilot, lambda: waiting() == ["two-bbbb", "three-cccc"])


async def test_s_takes_a_run_out_of_the_queue(line: list[RunFolder]) -> None:
    async with SftuiApp(warm=False).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "○ queued 1")
        go_to(pilot.app, "two-bbbb")
        await pilot.press("s")
        await until_shown(pilot, "Take this run out of the queue?", "before it has begun")
        await pilot.press("y")
        await until(pilot, lambda: asked(line[1]) == ["stop"])


async def test_a_waiting_run_says_for_whom_it_waits_and_can_be_told_to_start(line: list[RunFolder]) -> None:
    async with SftuiApp(open_screen="monitor", run=line[1], warm=False).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "○ queued: place 1", "waits for the CPU, behind one-aaaa", "p Start now")
        assert "c Checkpoint" not in shown(pilot.app)
        assert "Pause" not in shown(pilot.app)
        await pilot.press("p")
        await until_shown(pilot, "Start this run now?")
        await pilot.press("y")
        await until(pilot, lambda: asked(line[1]) == ["continue"])
        add(line[1], [events.CommandAccepted("x", "continue"), *begin("two-bbbb")])
        await until_shown(pilot, "[training")


async def test_one_that_died_while_it_waited_is_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)
    write_run("two-bbbb", [queued("two-bbbb", 1, "the CPU")])
    async with SftuiApp(warm=False).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "1 run, none live", "! interrupted")


async def test_the_review_says_who_has_the_device_and_w_waits_for_it(home: Path, line: list[RunFolder]) -> None:
    async with opened("review", dict(PRESETS["starter"].values), size=SIZE) as (app, pilot):
        await wait_for(pilot, lambda: "three-cccc is on its device: w waits for it." in told(app, "#why"))
        await pilot.press("w")
        await wait_for(pilot, lambda: bool(app.asked))
        started = app.asked[0]
        assert isinstance(started, StartRequested)
        assert started.queue
        assert started.spec == app.known.spec


async def test_a_run_that_is_to_wait_is_started_in_the_queue(
    line: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.runs import launch

    started: list[tuple[str, bool]] = []
    monkeypatch.setattr(launch, "start_run", lambda folder, *, queue: started.append((folder.id, queue)))
    values = dict(PRESETS["starter"].values)
    async with SftuiApp(open_screen="review", draft_values=values, warm=False).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "w Queue")
        await pilot.press("w")
        await until_shown(pilot, "Monitor")
        assert [wait for _, wait in started] == [True]
