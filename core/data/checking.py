"""The process that reads a dataset for the app: `python -m core.data.checking`.

It reads a request from the first line of stdin and writes JSON lines to stdout: {"progress": …} now and then, and at
last {"facts": …} or {"error": …}. When stdin closes, it stops.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from typing import Any

from core.data.check import StoppedError, check
from core.data.request import CheckRequest
from core.errors import SftuiError

# A pass looks often whether it is to stop; a library that it calls does not.
_GRACE_SECONDS = 0.15


def main() -> int:
    """Read the request, tell how far the pass is, and what it found."""
    # Only this process writes to the pipe: what a library prints must not come between.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stopping = threading.Event()

    def tell(name: str, told: Any) -> None:
        answers.write(json.dumps({name: told}).encode() + b"\n")
        answers.flush()

    try:
        request = CheckRequest.from_json(json.loads(sys.stdin.buffer.readline()))
        threading.Thread(target=_wait_for_end, args=(stopping,), daemon=True).start()
        facts = check(request, lambda progress: tell("progress", asdict(progress)), stopping.is_set)
        tell("facts", facts.to_json())
    except (StoppedError, BrokenPipeError):
        return 1
    except SftuiError as error:
        tell("error", {"title": error.title, "message": error.message, "hint": error.hint})
    return 0


def _wait_for_end(stopping: threading.Event) -> None:
    sys.stdin.buffer.read()
    stopping.set()
    # The main thread ends the process if it can; what it leaves behind otherwise, the next pass clears away.
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    # Threads of libraries would only be waited for.
    os._exit(main())
