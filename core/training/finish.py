"""The command that a user wants run at the end of a run: without a shell, with the facts in its environment."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from core.runs import events
from core.runs.events import TerminalEvent
from core.runs.folder import RunFolder
from core.runs.state import RunState, status
from core.text import safe

LIMIT_SECONDS = 60.0
# The command is somebody else's program: what opens the hub to us is none of its business.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
_LONGEST = 2000


def command_line(wanted: str | Sequence[str] | None) -> list[str]:
    """The arguments of a command; none where nothing is wanted. Raises ValueError where a quote is not closed."""
    return shlex.split(wanted) if isinstance(wanted, str) else list(wanted or ())


def facts(folder: RunFolder, state: RunState, outcome: TerminalEvent) -> dict[str, str]:
    """What the command is told, as SFTUI_… variables."""
    match outcome:
        case events.RunFinished():
            result, message = str(folder.path / outcome.result), ""
        case events.RunStopped():
            result = str(folder.path / outcome.checkpoint) if outcome.checkpoint else ""
            message = outcome.reason
        case events.RunFailed():
            result, message = "", f"{outcome.title}: {outcome.message}"
    told = {
        "SFTUI_RUN": folder.id,
        "SFTUI_STATE": status(state, alive=False),
        "SFTUI_RUN_FOLDER": str(folder.path),
        "SFTUI_STEP": str(outcome.step),
        "SFTUI_LOSS": "" if state.last is None else f"{state.last.loss:.6g}",
        "SFTUI_RESULT": result,
        "SFTUI_MESSAGE": message[:_LONGEST],
    }
    return {name: safe(value) for name, value in told.items()}


def run_command(
    wanted: str | Sequence[str] | None,
    told: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    wait: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
) -> None:
    """Run the command, and `wait` for it no longer than its limit. What it prints goes where our own output goes.

    What goes wrong with it is said on standard error, and does nothing to the run.
    """
    try:
        arguments = command_line(wanted)
        if not arguments:
            return
        environment = {name: value for name, value in environ.items() if name not in _SECRETS} | dict(told)
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        _say(f"on_finish could not be started: {error}")
        return
    if not wait:
        return
    try:
        status_of_it = process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        # With all that it started: it leads a group of its own.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _say(f"on_finish was ended after {limit_seconds:g} seconds")
    else:
        if status_of_it:
            _say(f"on_finish ended with status {status_of_it}")


def _say(line: str) -> None:
    sys.stderr.write(f"{safe(line)}\n")
    sys.stderr.flush()
