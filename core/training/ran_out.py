"""What is known when a run's memory has run out: asked while its process still holds what it held."""

import contextlib
import os
import re
from dataclasses import replace

from core.devices.choose import visible_gpus
from core.devices.gpu import GpuMonitor, GpuReading, GpuSnapshot
from core.devices.host import process_memory_bytes, read_host
from core.diagnosis import Diagnosis
from core.memory.mends import mends_for
from core.memory.plan import make_plan, read_model
from core.runs.checkpoints import committed_checkpoints
from core.runs.events import GpuUser, Mend, OutOfMemory
from core.runs.folder import RunFolder
from core.runs.queue import needed_bytes
from core.spec.run_spec import RunSpec
from core.training.whereabouts import Whereabouts

# "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.12 GiB is free."
_WANTED = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_FREE = re.compile(r"of which ([\d.]+) ?(bytes|[KMGT]i?B) is free", re.IGNORECASE)
_POWERS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
# What others may grow by without meaning anything.
_SMALL_BYTES = 64 << 20


def what_is_known(found: Diagnosis, spec: RunSpec, folder: RunFolder, at: Whereabouts) -> OutOfMemory | None:
    """Return it; None for a failure of another kind. Never raises: what cannot be found out is left open."""
    if found.memory is None:
        return None
    known = OutOfMemory(found.memory, at.phase, at.batch_rows, at.batch_tokens, wanted_bytes(found.text))
    reading = GpuReading((), None, "not asked")
    with contextlib.suppress(Exception):
        known = replace(known, predicted_bytes=needed_bytes(folder))
        monitor = GpuMonitor()
        reading = monitor.read()
        monitor.close()
        known = _with_memory(known, folder, at, reading)
    with contextlib.suppress(Exception):
        known = replace(known, mends=_mends(spec, folder, at, reading, missing_bytes(found.text, known)))
    return known


def wanted_bytes(text: str) -> int | None:
    """Return the bytes that could not be had, as PyTorch says it; None where it does not."""
    return _size(_WANTED, text)


def missing_bytes(text: str, known: OutOfMemory) -> int | None:
    """Return by how much the memory was too small, or at least by how much it fell short; None where nobody knows."""
    wanted = wanted_bytes(text)
    if wanted is None:
        return None
    if known.predicted_bytes is not None and known.held_bytes is not None:
        # The rest of the step would have wanted more, up to what was predicted for all of it.
        wanted = max(wanted, known.predicted_bytes - known.held_bytes)
    return max(0, wanted - (_size(_FREE, text) or 0))


def newcomers(before: GpuSnapshot, now: GpuSnapshot, own_pid: int) -> tuple[GpuUser, ...]:
    """Return who came onto a GPU since; nobody where the driver does not even tell of ourselves, as in a container."""
    if before.processes is None or now.processes is None or own_pid not in {one.pid for one in now.processes}:
        return ()
    there = {one.pid for one in before.processes} | {own_pid}
    new = (one for one in now.processes if one.pid not in there)
    return tuple(GpuUser(one.pid, one.user, one.command, one.used_bytes) for one in new)


def _with_memory(known: OutOfMemory, folder: RunFolder, at: Whereabouts, reading: GpuReading) -> OutOfMemory:
    if known.device == "host" or at.gpu is None:
        total = read_host(folder.path).memory_total_bytes if known.device == "host" else None
        return replace(known, held_bytes=process_memory_bytes(os.getpid()), total_bytes=total)
    held = at.meter.look(at.step).bytes if at.meter is not None else None
    known = replace(known, held_bytes=held, total_bytes=at.gpu.total_bytes)
    now = next((gpu for gpu in visible_gpus(reading.gpus, os.environ) if gpu.uuid == at.gpu.uuid), None)
    if now is None or now.used_bytes is None or held is None:
        return known
    others, before = max(0, now.used_bytes - held), at.gpu.used_bytes
    if before is not None and others - before < _SMALL_BYTES:
        others = before
    came = newcomers(at.gpu, now, os.getpid())
    return replace(known, others_bytes=others, others_bytes_at_start=before, newcomers=came)


def _mends(
    spec: RunSpec, folder: RunFolder, at: Whereabouts, reading: GpuReading, missing: int | None
) -> tuple[Mend, ...]:
    model = read_model(spec.model_name_or_path, spec.model_revision, spec.sftui.preference)
    host = read_host(folder.path)
    return mends_for(
        spec,
        model,
        at.gpu,
        lambda changed: make_plan(changed, model, reading, host),
        longest_tokens=at.longest_tokens,
        missing_bytes=missing,
        has_checkpoint=bool(committed_checkpoints(folder)),
        was_loading=at.phase in ("loading", "adapting"),
    )


def _size(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else round(float(found[1]) * 2 ** _POWERS[found[2][0].lower()])
