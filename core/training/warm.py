"""A process that has its libraries loaded before there is a run, and becomes the runner of the first one it is given.

python -m core.training.warm

JSON lines on standard input: {"run": FOLDER} ends the waiting; {"id", "ask", …} is answered by lines on standard
output; {"cancel": ID} ends long answers up to that one; the end of input without a run ends the process.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from core.runs.folder import RunFolder
from core.training.libraries import import_libraries
from core.training.questions import Answerer
from core.training.runner import Runner


def main() -> int:
    """Import in the background, answer questions, wait for a run, be its runner."""
    # Idle, it belongs to the app: a hang-up reaches the app, and the end of our input then reaches us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answerer = Answerer(_take_standard_output())
    threading.Thread(target=import_libraries, name="sftui-imports", daemon=True).start()
    answerer.start()
    while (line := sys.stdin.buffer.readline()).endswith(b"\n"):
        told = json.loads(line)
        if "run" in told:
            # The worker waits for a question that is under way, as it waits for the imports; the runner does not.
            answerer.stop()
            folder = RunFolder(Path(told["run"]))
            _write_to(folder.log_file)
            return Runner(folder, warm=True).run()
        if "cancel" in told:
            answerer.cancel(told["cancel"])
        else:
            answerer.ask(told)
    answerer.stop()
    # Waiting for the imports would keep an orphan busy for seconds.
    os._exit(0)


def _take_standard_output() -> int:
    """Keep the pipe to whoever asks for answers alone: what libraries print goes to the log from now on."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


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
