"""A process that has its libraries loaded before there is a run, and becomes the runner of the first one it is given.

python -m core.training.warm        one JSON line on standard input: {"run": FOLDER}; its end without one ends it
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from core.runs.folder import RunFolder
from core.training.libraries import import_libraries
from core.training.runner import Runner


def main() -> int:
    """Import in the background, wait for a run, be its runner."""
    # Idle, it belongs to the app: a hang-up reaches the app, and the end of our input then reaches us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=import_libraries, name="sftui-imports", daemon=True).start()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        # Waiting for the imports would keep an orphan busy for seconds.
        os._exit(0)
    folder = RunFolder(Path(json.loads(line)["run"]))
    _write_to(folder.log_file)
    return Runner(folder, warm=True).run()


def _write_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
