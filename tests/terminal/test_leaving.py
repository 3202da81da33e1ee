"""The app in a real pseudo-terminal: however it is made to leave, the terminal is as it was before."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "import sys; from tui_app.app import SftuiApp; app = SftuiApp(warm=False); app.run(); sys.exit(app.return_code)"
LEAVES_ALTERNATE_SCREEN, SHOWS_CURSOR = b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A terminal of 80×24 with the app in it."""

    def __init__(self, home: Path) -> None:
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.seen = b""
        homes = {f"XDG_{name}_HOME": str(home) for name in ("DATA", "STATE", "CACHE", "CONFIG")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env={**os.environ, **homes, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self.theirs = theirs

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Read what the app writes until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.seen[-400:]
            ready, _, _ = select.select([self.ours], [], [], 0.05)
            if ready:
                self.seen += os.read(self.ours, 65536)

    def until_ended(self) -> int:
        """The exit status, once all that was written is read."""
        self.until(lambda: self.process.poll() is not None)
        while select.select([self.ours], [], [], 0.05)[0]:
            self.seen += os.read(self.ours, 65536)
        return self.process.wait()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in which the list of runs is shown."""
    terminal = Terminal(tmp_path)
    try:
        terminal.until(lambda: b"No runs yet." in terminal.seen)
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        for descriptor in (terminal.ours, terminal.theirs):
            if descriptor >= 0:
                os.close(descriptor)


def assert_terminal_is_as_before(terminal: Terminal) -> None:
    """Cooked mode, the ordinary screen, a cursor."""
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert LEAVES_ALTERNATE_SCREEN in terminal.seen
    assert SHOWS_CURSOR in terminal.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_cleanly(terminal: Terminal, number: signal.Signals) -> None:
    terminal.process.send_signal(number)
    assert terminal.until_ended() == 128 + number
    assert_terminal_is_as_before(terminal)


def test_q_leaves_cleanly(terminal: Terminal) -> None:
    os.write(terminal.ours, b"q")
    assert terminal.until_ended() == 0
    assert_terminal_is_as_before(terminal)


def test_the_app_ends_by_itself_when_the_terminal_is_gone(terminal: Terminal) -> None:
    os.close(terminal.theirs)
    os.close(terminal.ours)
    terminal.ours = terminal.theirs = -1
    assert terminal.process.wait(timeout=30) == 128 + signal.SIGHUP
