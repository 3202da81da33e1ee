"""`sftui queue`: who waits for which device, and who goes before whom."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from core.text import safe


def add_queue_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; `command` makes a parser of a name, an action and a help."""
    added = command("queue", _queue, "The runs that have or wait for a device; with a run, let it change its place.")
    added.add_argument("run", nargs="?")
    how = added.add_mutually_exclusive_group()
    for name, help in (
        ("first", "before all others that wait for its device"),
        ("last", "behind all others"),
        ("up", "before the one that is before it"),
        ("down", "behind the one that is behind it"),
        ("now", "start it at once, beside whatever runs there"),
    ):
        how.add_argument(f"--{name}", dest="move", action="store_const", const=name, help=help)


def _queue(options: argparse.Namespace) -> int:
    from core.errors import SftuiError

    if (options.run is None) != (options.move is None):
        message = "Where it is to go is missing." if options.run else "Which run is missing."
        raise SftuiError("Wrong use", message, "Write `sftui queue RUN --first`, --last, --up, --down or --now.")
    if options.run is not None:
        _change(options)
        return 0
    listed = queued_runs()
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    if not listed:
        print("no run has or waits for a device")
    for entry in listed:
        place = "runs" if entry["place"] is None else str(entry["place"])
        words = f"on {entry['device']}" if entry["place"] is None else f"waits for {entry['waits_for']}"
        print(safe(f"{place:5} {entry['id']:44} {words}"))
    return 0


def queued_runs() -> list[dict[str, Any]]:
    """Those that run, then those that wait, as `sftui queue --json` tells them; `place` is null for who runs."""
    from core.devices.choose import device_name, gpu_name
    from core.devices.gpu import GpuMonitor
    from core.runs.folder import RunFolder
    from core.runs.queue import place_of, tickets

    line = tickets()
    monitor = GpuMonitor()
    names = {device_name(gpu): gpu_name(gpu) for gpu in monitor.read().gpus}
    monitor.close()
    listed: list[dict[str, Any]] = []
    for ticket in sorted(line, key=lambda ticket: ticket.has is None):
        folder = RunFolder(ticket.run)
        place = place_of(ticket.run, line)
        queued = folder.read_state().queued if place else None
        listed.append(
            {
                "id": folder.id,
                "path": str(folder.path),
                "place": place.number if place else None,
                "device": names.get(ticket.has, ticket.has) if ticket.has else None,
                "wants": [names.get(device, device) for device in ticket.devices],
                "waits_for": queued.waits_for if queued else None,
            }
        )
    return listed


def _change(options: argparse.Namespace) -> None:
    from core.errors import SftuiError
    from core.runs.commands import send
    from core.runs.folder import find_run
    from core.runs.queue import move, tickets, waiting

    folder = find_run(options.run)
    if options.move == "now":
        waiting(folder.path, tickets())
        send(folder, "continue")
        told: dict[str, Any] = {"id": folder.id, "place": None}
        words = f"{folder.id}: asked to start now"
    else:
        try:
            place = move(folder.path, options.move)
        except OSError as error:
            message = f"{error.filename or 'Its file'}: {error.strerror}."
            raise SftuiError("The queue cannot be changed now", message, "Try again.") from error
        told = {"id": folder.id, "place": place.number}
        words = f"{folder.id}: place {place.number}"
    print(json.dumps(told) if options.json else safe(words))
