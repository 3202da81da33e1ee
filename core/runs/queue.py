"""Who waits for which device: one list for this machine, kept by the runners themselves.

There is no process that hands out turns. Each waiting runner looks at the list and takes its turn when it may; lines of
runners that are gone do not count, so that none can block the others, however it ended.
"""

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from core import paths
from core.errors import SftuiError
from core.runs.folder import RunFolder

CPU = "cpu"
Move = Literal["first", "last", "up", "down"]
MOVES: tuple[Move, ...] = get_args(Move)

_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a run wants of the machine, or has of it."""

    run: Path
    devices: tuple[str, ...]
    """The devices of which it takes any: UUIDs of GPUs (the index of one without), or "cpu"."""
    has: str | None = None
    """The device that it runs on; None while it waits."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting run stands."""

    number: int
    """1 for the next one on its devices."""
    open: tuple[str, ...]
    """Those of its devices that no run has and nobody before it waits for."""
    behind: Path | None
    """The run before it: the last that waits there too, or one that has a device of its."""


def needed_bytes(folder: RunFolder) -> int | None:
    """The memory that the plan predicts for the run, if it does so for all of it."""
    try:
        memory = json.loads(folder.plan_file.read_bytes())["memory"]
        return int(memory["total_bytes"]) if memory["total_is_complete"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tickets() -> tuple[Ticket, ...]:
    """The tickets of all runs whose runners live, in the order of their turns."""
    return tuple(ticket for ticket in _read() if RunFolder(ticket.run).is_alive())


def taken(line: Sequence[Ticket]) -> dict[str, Path]:
    """The devices that runs have, and which one has each."""
    return {ticket.has: ticket.run for ticket in line if ticket.has is not None}


def place_of(run: Path, line: Sequence[Ticket]) -> Place | None:
    """Where a run stands in the line; None if it does not wait there."""
    all_waiting = [ticket for ticket in line if ticket.has is None]
    own = next((ticket for ticket in all_waiting if ticket.run == run), None)
    if own is None:
        return None
    ahead = _rivals(own, all_waiting[: all_waiting.index(own)])
    held = taken(line)
    wanted = {device for ticket in ahead for device in ticket.devices}
    holders = [held[device] for device in own.devices if device in held]
    before = ahead[-1].run if ahead else holders[0] if holders else None
    is_open = tuple(device for device in own.devices if device not in held and device not in wanted)
    return Place(len(ahead) + 1, is_open, before)


def enter(ticket: Ticket) -> None:
    """Stand in line as the last one. Raises OSError."""
    with _changing() as line:
        line[:] = [*(other for other in line if other.run != ticket.run), ticket]


def take(run: Path, choose: Callable[[Collection[str]], str]) -> str:
    """Take the device that `choose` names, without a wait; it is told which ones other runs have. Raises OSError."""
    with _changing() as line:
        others = [ticket for ticket in line if ticket.run != run]
        device = choose(taken(others))
        line[:] = [*others, Ticket(run, (device,), has=device)]
    return device


def claim(run: Path, device: str, *, push_in: bool = False) -> bool:
    """Take a device, if it is this run's turn by now; with `push_in`, whoever else waits for it. Raises OSError."""
    with _changing() as line:
        place = place_of(run, line)
        if place is None or not (push_in or device in place.open):
            return False
        line[:] = [replace(ticket, has=device) if ticket.run == run else ticket for ticket in line]
        return True


def move(run: Path, how: Move) -> Place:
    """Let a waiting run go before or behind others that wait for the same. Raises SftuiError or OSError."""
    with _changing() as line:
        own = waiting(run, line)
        at = line.index(own)
        ahead = _rivals(own, [ticket for ticket in line[:at] if ticket.has is None])
        behind = _rivals(own, [ticket for ticket in line[at + 1 :] if ticket.has is None])
        if how in ("first", "up") and ahead:
            line.remove(own)
            line.insert(line.index(ahead[0 if how == "first" else -1]), own)
        elif how in ("last", "down") and behind:
            line.remove(own)
            line.insert(line.index(behind[-1 if how == "last" else 0]) + 1, own)
        place = place_of(run, line)
    assert place is not None
    return place


def waiting(run: Path, line: Sequence[Ticket]) -> Ticket:
    """The ticket of a run that waits. Raises SftuiError for one that does not."""
    own = next((ticket for ticket in line if ticket.run == run), None)
    if own is None or own.has is not None:
        what = "does not wait for a device" if own is None else "has begun already"
        raise SftuiError("The run is not in the queue", f"{run.name} {what}.", "`sftui queue` lists who waits.")
    return own


def _rivals(own: Ticket, others: Sequence[Ticket]) -> list[Ticket]:
    return [ticket for ticket in others if not set(ticket.devices).isdisjoint(own.devices)]


def _file() -> Path:
    # Homes are shared between machines, devices are not.
    return paths.data_home() / "queue" / f"{platform.node() or 'machine'}.json"


@contextlib.contextmanager
def _changing() -> Iterator[list[Ticket]]:
    """The line of the living, for a change that nobody else comes in between; it is written when it has changed."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        line = list(tickets())
        yield line
        if tuple(line) != _read():
            listed = [{**asdict(ticket), "run": str(ticket.run)} for ticket in line]
            paths.write_atomically(file, json.dumps(listed, indent=1))
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # Somebody who was halted in the middle must not halt us too.
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def _read() -> tuple[Ticket, ...]:
    try:
        listed = json.loads(_file().read_bytes())
    except (OSError, ValueError):
        # Those who wait enter again.
        return ()
    return tuple(_ticket(entry) for entry in listed if _is_ticket(entry)) if isinstance(listed, list) else ()


def _is_ticket(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("run"), str)
        and isinstance(entry.get("devices"), list)
        and all(isinstance(device, str) for device in entry["devices"])
        and isinstance(entry.get("has"), str | None)
    )


def _ticket(entry: dict[str, Any]) -> Ticket:
    return Ticket(Path(entry["run"]), tuple(entry["devices"]), entry.get("has"))
