"""What a run held, and where its memory ran out, in words. Every name in them is foreign: make it safe."""

from collections.abc import Sequence

from core.runs.events import GpuUser, MemoryProbed, Mend, OutOfMemory, PeakMeasured
from core.text import human_bytes, safe

_PLACES = {"gpu": "on the GPU", "host": "in the process"}


def peak_words(peak: PeakMeasured) -> str:
    """ "peak 7.9 GB on the GPU (7.1 GB in tensors), 8.1 GB predicted"."""
    words = f"peak {human_bytes(peak.bytes)} {_PLACES.get(peak.device, '')}".rstrip()
    if peak.allocated_bytes is not None:
        words += f" ({human_bytes(peak.allocated_bytes)} in tensors)"
    return words + (f", {human_bytes(peak.predicted_bytes)} predicted" if peak.predicted_bytes is not None else "")


def probe_words(probed: MemoryProbed) -> str:
    """ "probed: peak 7.9 GB of 79.1 GB, with 4 rows, 8,192 tokens"."""
    of = f" of {human_bytes(probed.total_bytes)}" if probed.total_bytes is not None else ""
    rows = "1 row" if probed.rows == 1 else f"{probed.rows:,} rows"
    return f"probed: peak {human_bytes(probed.bytes)}{of}, with {rows}, {probed.tokens:,} tokens"


def mend_words(mend: Mend) -> str:
    """ "Batch 1, accumulation 8: saves 2.1 GB"."""
    words = safe(mend.title)
    if mend.saved_bytes is not None:
        words += f": saves {human_bytes(mend.saved_bytes)}"
    return words + (", and the run begins anew" if mend.begins_anew else "")


def out_of_memory_lines(found: OutOfMemory, step: int, most_mends: int | None = None) -> list[tuple[str, str]]:
    """What is known of it, as names with their words, the most telling first; the best mends come last."""
    lines = [("where", _where(found, step))]
    held = []
    if found.wanted_bytes is not None:
        held.append(f"{human_bytes(found.wanted_bytes)} were wanted")
    if found.held_bytes is not None:
        held.append(f"{human_bytes(found.held_bytes)} held")
    if found.predicted_bytes is not None:
        held.append(f"{human_bytes(found.predicted_bytes)} predicted for the whole run")
    if found.total_bytes is not None:
        held.append(f"{human_bytes(found.total_bytes)} there in all")
    if held:
        lines.append(("memory", ", ".join(held)))
    if others := _others(found):
        lines.append(("others", others))
    return lines + [
        ("mends" if not number else "", mend_words(mend)) for number, mend in enumerate(found.mends[:most_mends])
    ]


def user_words(users: Sequence[GpuUser]) -> str:
    """ "vllm (user ml, pid 4121) 12.0 GB, …"."""
    return ", ".join(
        f"{safe(one.command or 'a process')} ({f'user {safe(one.user)}, ' if one.user else ''}pid {one.pid})"
        + (f" {human_bytes(one.bytes)}" if one.bytes is not None else "")
        for one in users
    )


def _where(found: OutOfMemory, step: int) -> str:
    words = f"{found.phase}, " + (f"after step {step:,}" if step else "before the first step was done")
    if found.batch_rows is None or found.batch_tokens is None:
        return words
    rows = "1 row" if found.batch_rows == 1 else f"{found.batch_rows:,} rows"
    return f"{words}, in a batch of {rows} with {found.batch_tokens:,} tokens"


def _others(found: OutOfMemory) -> str:
    """Who else holds memory, where that has grown since the run began."""
    if found.newcomers:
        return f"came onto the GPU since the start: {user_words(found.newcomers)}"
    now, before = found.others_bytes, found.others_bytes_at_start
    if now is None or before is None or now <= before:
        return ""
    return f"hold {human_bytes(now)} by now, {human_bytes(before)} when the run began"
