"""Leaving when the terminal is taken away."""

from __future__ import annotations

import os
import select
import sys
import threading

_GRACE_SECONDS = 3.0


def terminal_is_gone() -> bool:
    """Whether the other end of the terminal was closed without a signal reaching us, as after a lost connection.

    Textual's input thread would spin on the end of file it reads then.
    """
    try:
        descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        poll = select.poll()
        poll.register(descriptor, 0)
        return any(found & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, found in poll.poll(0))
    except (OSError, ValueError):
        return True


def leave_for_certain(status: int) -> None:
    """End the process with this status soon, even if leaving cleanly hangs on writing to a terminal that is gone."""
    timer = threading.Timer(_GRACE_SECONDS, os._exit, (status,))
    timer.daemon = True
    timer.start()
