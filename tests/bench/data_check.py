"""How fast a dataset is checked: bytes of JSONL a second of one core, beside reading its lines and parsing them alone.

python -m tests.bench.data_check [MEGABYTES]
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from core.data.check import read_facts
from core.data.row_store import RowStore

_WORDS = 5000


def make_rows(file: Path, size: int) -> int:
    """Write chat rows of about 1.2 kB, so many bytes of them; return their number."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(_WORDS)]
    rows = written = 0
    with file.open("w") as opened:
        while written < size:
            messages = [{"role": "system", "content": " ".join(draw.choices(words, k=12))}]
            for _ in range(2):
                messages.append({"role": "user", "content": " ".join(draw.choices(words, k=30))})
                messages.append({"role": "assistant", "content": " ".join(draw.choices(words, k=45))})
            written += opened.write(json.dumps({"id": rows, "messages": messages}) + "\n")
            rows += 1
    return rows


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long work took: of this process on its core, and by the clock."""
    processor, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - clock


def parse(file: Path) -> None:
    """What nobody can do without: lines and their JSON."""
    with file.open("rb") as opened:
        for line in opened:
            orjson.loads(line)


def main() -> None:
    """Make rows, read them in each way, and print the figures."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else 200) * 10**6
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        file = Path(folder) / "rows.jsonl"
        rows = make_rows(file, size)
        parsing = seconds(lambda: parse(file))
        checking = seconds(lambda: read_facts([file]))
        again = seconds(lambda: read_facts([file]))
        facts = read_facts([file])
        assert facts.store is not None
        assert facts.rows == rows
        with RowStore.open(facts.store) as store:
            read_back = seconds(lambda: sum(1 for _ in store.rows()))
    megabytes = size / 1e6
    print(f"{rows:,} rows, {megabytes:.0f} MB of JSONL, {os.cpu_count()} cores")
    for name, (processor, clock) in (("lines and orjson", parsing), ("check", checking), ("read back", read_back)):
        print(f"{name:18} {megabytes / processor:6.0f} MB/s of a core, {megabytes / clock:6.0f} MB/s by the clock")
    print(
        f"check takes {checking[0] / parsing[0]:.2f} times as long as lines and orjson; again {again[1] * 1000:.1f} ms"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB")


if __name__ == "__main__":
    main()
