"""What a chart of a long run costs: adding its steps, smoothing them, drawing any stretch of them.

python -m tests.bench.chart [STEPS]        1,000,000 by default
"""

import math
import random
import sys
import time
from collections.abc import Callable
from functools import partial

from tui_app.charts.curve import SLICE, Curve
from tui_app.charts.plot import Picture, draw

ROUNDS = 15


def median_of(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds that the work takes."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[rounds // 2]


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    noise = random.Random(1)
    values = [(step, 1 + 2 * math.exp(-step * 6 / count) + noise.gauss(0, 0.1)) for step in range(1, count + 1)]
    curve = Curve("Loss", weight=0.99)
    slices = []
    for start in range(0, count, SLICE):
        began = time.perf_counter()
        curve.extend(values[start : start + SLICE])
        curve.catch_up()
        slices.append(time.perf_counter() - began)
    print(f"{count:,} steps added and smoothed: {sum(slices):.2f} s, in slices of at most {max(slices) * 1000:.0f} ms")
    for words, window in (("all of it", None), ("a third", (count / 3, count * 2 / 3)), ("100 steps", (500, 600))):
        picture = Picture([curve], window=window)
        seconds = median_of(partial(draw, picture, 120, 40))
        print(f"drawing {words:10} at 120 x 40: {seconds * 1000:.1f} ms")


if __name__ == "__main__":
    main()
