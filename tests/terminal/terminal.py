"""A real pseudo-terminal around a program: what it writes is read, what is typed reaches it."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Self

PATIENCE_SECONDS = 300.0
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][0-9A-B]?")


class Terminal:
    """Runs `python -m MODULE ARGUMENTS…` on a terminal of its own, of 120 × 40 cells unless told otherwise."""

    def __init__(self, *command: str, columns: int = 120, lines: int = 40) -> None:
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)}
            os.execv(sys.executable, [sys.executable, "-m", *command])
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return

    @property
    def text(self) -> str:
        """Everything written so far, without escape sequences."""
        return _ESCAPES.sub("", self.output)

    @property
    def fileno(self) -> int:
        """What to wait on for something to read."""
        return self._master

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, words: str, *, after: int = 0) -> None:
        """Read until these words were written (after that many characters of text)."""
        self.wait_until(lambda: words in self.text[after:], f"{words!r} to appear")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Read until something holds; fails with the end of what was seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if not self.read() or time.monotonic() > deadline:
                assert condition(), f"waited in vain for {what}; last seen:\n{self.text[-3000:]}"
                return

    def read(self, seconds: float = 0.1) -> bool:
        """Take what is there to read; False when the other side is closed."""
        if not self._open or not select.select([self._master], [], [], seconds)[0]:
            return self._open
        try:
            data = os.read(self._master, 65536)
        except OSError:
            data = b""
        self.output += self._decoder.decode(data)
        self._open = bool(data)
        return self._open

    def wait(self) -> int:
        """Read to the end; the exit status as a shell would give it."""
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def hang_up(self) -> None:
        """Take the terminal away, as a lost connection does."""
        if self._open:
            self._open = False
            os.close(self._master)
