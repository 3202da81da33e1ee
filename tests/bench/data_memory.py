"""Memory that preparing many rows takes: the file is read, tokenized, cut and packed, and then read as a trainer does.

python -m tests.bench.data_memory [ROWS]     200,000 tiny rows unless said otherwise, in folders of its own
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path


def peak_mb() -> float:
    """The most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held_mb() -> float:
    """What it holds now and shares with no file."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def main(rows: int) -> None:
    """Print seconds and megabytes of each step."""
    home = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = home.name
    os.environ["HF_HUB_OFFLINE"] = "1"
    from tests.tiny import build_tiny_model, write_rows
    from tests.training.prepared import prepare, spec_of

    model = build_tiny_model(Path(home.name) / "model")
    data = write_rows(Path(home.name) / "rows.jsonl", rows)
    few = write_rows(Path(home.name) / "few.jsonl", 100)
    prepare(spec_of(model, few))[0].close()
    began, before = time.monotonic(), held_mb()

    def say(what: str) -> None:
        print(
            f"{what:40} {time.monotonic() - began:7.1f} s  {held_mb() - before:+8.1f} MB held  peak {peak_mb():.0f} MB"
        )

    say("start")
    prepared, _ = prepare(spec_of(model, data))
    say(f"{len(prepared.train):,} rows made into tokens")
    prepared.close()
    prepared, _ = prepare(spec_of(model, data))
    say("the same from the cache")
    for number in range(0, len(prepared.train), 7):
        prepared.train[number]
    say("every seventh row read")
    prepared.close()
    packed, _ = prepare(spec_of(model, data, packing=True, max_length=512))
    say(f"packed into {len(packed.train):,} sequences")
    packed.close()
    home.cleanup()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
