"""Where an axis gets its ticks, and what they are called."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from core.text import human_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.runs.metrics import Unit

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# Up to 9,999 is told without one.
_COUNTS = ((1e12, 1e12, " T"), (1e9, 1e9, " B"), (1e6, 1e6, " M"), (1e4, 1e3, " k"))


def axis_ticks(low: float, high: float, most: int, unit: Unit = "") -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) from `low` to `high`: at least two, `most` or one more.

    Seconds are round in what they are called in: minutes, hours or days.
    """
    if unit == "seconds":
        scale, _ = _scale(high, unit)
        return [scale * tick for tick in axis_ticks(low / scale, high / scale, most)]
    spread = (high - low) or abs(high) or 1.0
    power = math.floor(math.log10(spread))
    best: list[float] = []
    for size in (factor * 10.0**exponent for exponent in (power, power - 1, power - 2) for factor in (5, 2, 1)):
        start, end = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
        if end - start + 1 > most:
            if len(best) < 2 and end - start <= most:
                # One too many is better than none that is round.
                best = [index * size for index in range(start, end + 1)]
            break
        best = [index * size for index in range(start, end + 1)]
    return best if len(best) >= 2 else [low, low + spread]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten from `low` to `high`, both above 0, with 2 and 5 times them where there is room."""
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [
            value
            for exponent in range(bottom, top + 1)
            for factor in factors
            if low <= (value := factor * 10.0**exponent) <= high
        ]
        if 2 <= len(found) <= most:
            return found
    # Too many powers, or a range without two of them.
    return found[:: -(-len(found) // most)] if len(found) > most else axis_ticks(low, high, most)


def tick_labels(ticks: Sequence[float], unit: Unit = "") -> list[str]:
    """Ticks in their unit, with as many decimals as tell them apart."""
    largest = max(abs(tick) for tick in ticks)
    scale, suffix = _scale(largest, unit)
    values = [round(tick / scale, 12) for tick in ticks]
    gap = min((abs(after - before) for before, after in itertools.pairwise(values)), default=1.0)
    if not gap or not 1e-3 <= max(map(abs, values)) < 1e7:
        return [f"{_short(value)}{suffix}" for value in values]
    decimals = 0 if all(value == int(value) for value in values) else max(1, -math.floor(math.log10(gap) + 1e-9))
    if decimals > 5:
        return [f"{_short(value)}{suffix}" for value in values]
    return [f"{value:,.{decimals}f}{suffix}" for value in values]


def value_label(value: float | None, unit: Unit = "") -> str:
    """One value with four digits and its unit."""
    if value is None:
        return "–"
    if unit == "seconds":
        return human_duration(value) if value >= 0.1 else f"{value * 1000:.0f} ms"
    scale, suffix = _scale(abs(value), unit)
    scaled = value / scale
    if unit == "count" and not suffix:
        return f"{scaled:,.0f}"
    if scaled and not 1e-3 <= abs(scaled) < 1e6:
        return f"{_short(scaled)}{suffix}"
    digits = max(0, 3 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    return f"{scaled:,.{min(digits, 3 if abs(scaled) >= 0.1 else 5)}f}{suffix}"


def _scale(largest: float, unit: Unit) -> tuple[float, str]:
    if unit == "share":
        return 0.01, " %"
    if unit == "bytes":
        return next(((size, f" {name}B") for size, name in _PREFIXES if largest >= size), (1.0, " B"))
    if unit == "seconds":
        named = ((86_400.0, " d"), (3600.0, " h"), (60.0, " min"), (0.5, " s"))
        return next(((size if size >= 1 else 1.0, name) for size, name in named if largest >= 2 * size), (1e-3, " ms"))
    if unit == "count":
        return next(((size, name) for least, size, name in _COUNTS if largest >= least), (1.0, ""))
    return 1.0, ""


def _short(value: float) -> str:
    if not value or 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
