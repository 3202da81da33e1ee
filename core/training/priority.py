"""Letting whoever types at the machine go before a run that computes on its CPU."""

import contextlib
import os
import sys
from pathlib import Path

NICENESS = 10


def yield_to_others() -> None:
    """Take the processor last, in this thread and those that it starts; it still gets all that nobody else wants.

    Only on Linux, where a priority can be one thread's: elsewhere it would slow heartbeat and commands too.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) != os.getpid():
        return
    # Where the kernel shares processors out between sessions, priorities count inside of one only. This one is ours.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS), encoding="ascii")
