"""One real run in a process of its own, as `sftui run` starts it, and what it held."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from core.memory.plan import Plan
from core.runs import events
from core.runs.events import Event
from core.runs.folder import RunFolder, all_runs, create_run
from core.runs.launch import start_run
from core.spec.run_spec import RunSpec
from tests.training.runs import events_of

_TICK_SECONDS = 0.2
_LETS_GO_SECONDS = 20.0
_MESSAGE = 300


class CutOffError(Exception):
    """There is no time left for the run, which was ended and tells nothing."""


def run(spec: RunSpec, plan: Plan, *, patience: float, until: float) -> dict[str, Any]:
    """Run a spec to its end and return what its journal tells, as `record_of` does.

    A run of more than `patience` seconds is ended and recorded as such. Raises CutOffError at the moment `until`, of
    time.monotonic().
    """
    folder = create_run(spec, plan.to_json())
    began = time.monotonic()
    process = start_run(folder)
    try:
        timed_out = not _ended(process, min(began + patience, until))
        if timed_out and time.monotonic() >= until:
            raise CutOffError
    finally:
        # Its session is its own: it would outlive us, and keep its memory.
        _end(process)
    record = record_of(events_of(folder), timed_out=timed_out)
    record["seconds"] = round(time.monotonic() - began, 1)
    if record["end"] == "interrupted":
        record["log"] = _last_words(folder)
    shutil.rmtree(folder.path)
    return record


def end_leftovers() -> None:
    """End the runs of an earlier call that was cut off, and delete their folders; all runs of this home are ours."""
    for folder in all_runs():
        if folder.is_alive():
            started = [event for event in events_of(folder) if isinstance(event, events.RunStarted)]
            for one in started[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            deadline = time.monotonic() + _LETS_GO_SECONDS
            while folder.is_alive() and time.monotonic() < deadline:
                time.sleep(_TICK_SECONDS)
        shutil.rmtree(folder.path)


def record_of(told: list[Event], *, timed_out: bool = False) -> dict[str, Any]:
    """What the events of a run tell of its memory, its speed and its end, as a JSON object."""
    peaks = [event for event in told if isinstance(event, events.PeakMeasured)]
    probed = [event.bytes for event in told if isinstance(event, events.MemoryProbed)]
    steps = [event for event in told if isinstance(event, events.StepCompleted)]
    loaded = next((event for event in told if isinstance(event, events.ModelLoaded)), None)
    end = next((event for event in told if isinstance(event, events.TERMINAL)), None)
    seen = [0, *(step.tokens_seen for step in steps)]
    return {
        "end": "timed out" if timed_out else _end_of(end),
        "failure": _failure(end),
        "peak": asdict(peaks[-1]) if peaks else None,
        "probed_bytes": max(probed, default=None),
        "driver_growth_bytes": _growth(told),
        "weight_bytes": loaded.weight_bytes if loaded else None,
        "attention": loaded.attention if loaded else None,
        "step_tokens": [later - sooner for sooner, later in pairwise(seen)],
        "step_seconds": [round(step.seconds, 3) for step in steps],
        "losses": [round(step.loss, 3) for step in steps],
    }


def _end_of(end: events.TerminalEvent | None) -> str:
    match end:
        case events.RunFinished():
            return "finished"
        case events.RunFailed(memory=memory) if memory is not None:
            return "ran out of memory"
        case events.RunFailed():
            return "failed"
        case events.RunStopped():
            return "stopped"
        case _:
            return "interrupted"


def _failure(end: events.TerminalEvent | None) -> dict[str, Any] | None:
    if not isinstance(end, events.RunFailed):
        return None
    memory = asdict(end.memory) if end.memory is not None else None
    return {"kind": end.kind, "title": end.title, "message": end.message[:_MESSAGE], "step": end.step, "memory": memory}


def _growth(told: list[Event]) -> int | None:
    """By how much more of the first GPU the driver saw in use than at its first look, before CUDA starts."""
    used = [event.gpus[0].used_bytes for event in told if isinstance(event, events.MemorySampled) and event.gpus]
    return max(used) - used[0] if used else None


def _ended(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_TICK_SECONDS)
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _last_words(folder: RunFolder) -> str:
    with contextlib.suppress(OSError):
        return folder.log_file.read_text(encoding="utf-8", errors="replace")[-2000:]
    return ""
