"""Why a runner is gone that left no last word: what the kernel counted, what libraries wrote, how full it was."""

import contextlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.devices.choose import choose_device
from core.devices.gpu import GpuMonitor
from core.devices.host import boot_id, kills_counted, read_host
from core.errors import SftuiError
from core.failures import FAILURES, Failure
from core.runs.checkpoints import committed_checkpoints
from core.runs.events import Mend, OutOfMemory, RunFailed
from core.runs.folder import RunFolder
from core.runs.state import RunState

_LOG_BYTES = 64 << 10
# So full the machine was when it was last looked at: a second later it may have been full.
_NEARLY_FULL = 0.97
_HINT = "Close other programs, or make the run smaller; what was saved is whole."


@dataclass(frozen=True, slots=True)
class _Found:
    """One reason."""

    kind: str
    title: str
    message: str
    hint: str
    memory: Literal["gpu", "host"] | None = None
    """Whose memory ran out, where that is it."""


def why_gone(folder: RunFolder, state: RunState) -> RunFailed | None:
    """Return why the runner of a run without an outcome is gone, in the form of a failure; None where nothing tells.

    Reads files and plans: for a background thread. Never raises.
    """
    found = None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        start = _start(folder)
        found = _in_log(folder, start) or _counted(start) or _was_nearly_full(state) or _restarted(start)
    if found is None:
        return None
    memory = None
    if found.memory is not None:
        sample = state.memory[-1].use if state.memory else None
        total = sample.host_total_bytes if sample is not None and found.memory == "host" else None
        held = sample.process_bytes if sample is not None and found.memory == "host" else None
        mends = _mends(folder, found.memory, state)
        memory = OutOfMemory(found.memory, state.phase or "", held_bytes=held, total_bytes=total, mends=mends)
    seconds = (state.last_time or 0.0) - (state.started_at or state.last_time or 0.0)
    return RunFailed(found.kind, found.title, found.message, found.hint, None, state.step, seconds, memory)


def _start(folder: RunFolder) -> dict[str, Any]:
    """What was put down when the runner began; nothing by versions that did not, or on another machine."""
    environment = json.loads(folder.environment_file.read_text(encoding="utf-8"))
    if not isinstance(environment, dict) or environment.get("host") != platform.node():
        return {}
    start = environment.get("start")
    return start if isinstance(start, dict) else {}


def _in_log(folder: RunFolder, start: dict[str, Any]) -> _Found | None:
    """What a library wrote before it ended the process, as those in C do, which raise nothing."""
    if not isinstance(start.get("log_bytes"), int):
        # What stands there may be of an earlier start.
        return None
    with folder.log_file.open("rb") as log:
        end = log.seek(0, 2)
        log.seek(max(end - _LOG_BYTES, min(end, start["log_bytes"])))
        text = log.read().decode("utf-8", "replace")
    for line in reversed(text.splitlines()):
        failure = _failure_in(line.lower())
        if failure is not None:
            message = f"{failure.cause} Its log says: {line.strip()[:300]}".strip()
            return _Found("Killed", failure.title, message, failure.hint, failure.memory)
    return None


def _failure_in(line: str) -> Failure | None:
    for failure in FAILURES:
        if failure.memory is not None and all(part.lower() in line for part in failure.parts):
            return failure
    return None


def _counted(start: dict[str, Any]) -> _Found | None:
    before, file = start.get("kills"), start.get("kills_file")
    now = kills_counted(Path(file)) if isinstance(file, str) else None
    if not isinstance(before, int) or now is None or now <= before or start.get("boot") != boot_id():
        return None
    message = "The system killed a process of this session for lack of memory since the run began, and the run is gone."
    return _Found("Killed", "The host's memory ran out", message, _HINT, "host")


def _was_nearly_full(state: RunState) -> _Found | None:
    if not state.memory:
        return None
    use = state.memory[-1].use
    if use.host_used_bytes < _NEARLY_FULL * use.host_total_bytes:
        return None
    share = use.host_used_bytes / max(1, use.host_total_bytes)
    message = f"{share:.0%} of it was in use when the run was last heard of: most likely the system killed the run."
    return _Found("Killed", "The host's memory ran out", message, _HINT, "host")


def _restarted(start: dict[str, Any]) -> _Found | None:
    before, now = start.get("boot"), boot_id()
    if not before or not now or before == now:
        return None
    return _Found("Restarted", "The machine was restarted", "The run ended with it.", "What was saved is whole.")


def _mends(folder: RunFolder, memory: str, state: RunState) -> tuple[Mend, ...]:
    """What would make the run smaller, where what ran out is what its plan counts."""
    on_cpu = state.loaded is not None and state.loaded.device == "cpu"
    if memory == "host" and not on_cpu:
        return ()
    # Whoever only watches runs that end well need not wait for these.
    from core.memory.mends import mends_for
    from core.memory.plan import make_plan, read_model
    from core.spec.yaml_file import read_spec

    monitor = GpuMonitor()
    reading = monitor.read()
    monitor.close()
    try:
        spec = read_spec(folder.spec_file)
        device = "cpu" if on_cpu else spec.sftui.device
        spec = spec.model_copy(update={"sftui": spec.sftui.model_copy(update={"device": device})})
        model = read_model(spec.model_name_or_path, spec.model_revision, spec.sftui.preference)
        host = read_host(folder.path)
        return mends_for(
            spec,
            model,
            choose_device(device, reading, os.environ).gpu,
            lambda changed: make_plan(changed, model, reading, host),
            longest_tokens=None,
            missing_bytes=None,
            has_checkpoint=bool(committed_checkpoints(folder)),
            was_loading=state.phase in ("loading", "adapting"),
        )
    except (SftuiError, OSError):
        return ()
