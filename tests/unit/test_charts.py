"""Curves: nothing of a long series is lost, axes have round values with units, what is drawn is where it belongs."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_app.charts.axes import axis_ticks, log_ticks, tick_labels, value_label
from tui_app.charts.curve import SLICE, Curve
from tui_app.charts.plot import Picture, columns_of, draw
from tui_app.charts.pyramid import Pyramid


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=700),
    ends=st.tuples(st.integers(0, 700), st.integers(0, 700)),
)
def test_any_stretch_is_folded_as_if_all_its_values_were_looked_at(values: list[float], ends: tuple[int, int]) -> None:
    series = Pyramid()
    half = len(values) // 3
    series.extend(enumerate(values[:half]))
    series.extend(enumerate(values[half:], half))
    start, end = min(ends), min(max(ends), len(values))
    found, looked_at = series.fold(start, end), values[start:end]
    if not looked_at:
        assert found is None
        return
    assert found is not None
    assert (found.low, found.high) == (min(looked_at), max(looked_at))
    assert found.mean == pytest.approx(sum(looked_at) / len(looked_at), abs=1e-6)


def test_one_leap_among_a_hundred_thousand_steps_is_seen() -> None:
    series = Pyramid()
    series.extend((step, 50.0 if step == 77_777 else 1.0) for step in range(100_000))
    columns = columns_of(series, 0, 99_999, 60)
    assert len(columns) == 120
    assert [column.dot for column in columns if column.fold.high == 50] == [int(77_777 / 99_999 * 119)]


def test_values_that_are_not_finite_are_passed_over() -> None:
    series = Pyramid()
    series.extend([(1, math.nan), (2, 3.0), (3, math.inf)])
    assert list(series.xs) == [2]


def test_the_moving_average_is_that_of_all_values_however_they_come() -> None:
    values = [random.Random(4).gauss(2, 1) for _ in range(500)]
    at_once, bit_by_bit = Curve(weight=0.9), Curve(weight=0.9)
    at_once.extend(list(enumerate(values)))
    assert at_once.catch_up()
    for step, value in enumerate(values):
        bit_by_bit.extend([(step, value)])
        assert bit_by_bit.catch_up()
    assert list(at_once.smooth.ys) == pytest.approx(list(bit_by_bit.smooth.ys))
    assert at_once.smooth.ys[0] == pytest.approx(values[0])
    average = known = 0.0
    for value in values:
        average, known = 0.9 * average + 0.1 * value, 0.9 * known + 0.1
    assert at_once.smooth.ys[-1] == pytest.approx(average / known)
    at_once.smooth_by(0.0)
    assert (at_once.catch_up(), len(at_once.smooth)) == (True, 0)


def test_a_long_curve_is_smoothed_in_slices() -> None:
    curve = Curve(weight=0.9)
    curve.extend([(step, 1.0) for step in range(2 * SLICE + 5)])
    assert [curve.catch_up(), curve.catch_up(), curve.catch_up()] == [False, False, True]
    assert len(curve.smooth) == 2 * SLICE + 5


def test_ticks_are_round_and_logarithmic_ones_too() -> None:
    assert axis_ticks(0.9, 3.1, 4) == [1.0, 2.0, 3.0]
    assert axis_ticks(0.0, 45.8, 2) == [0.0, 20.0, 40.0]
    assert axis_ticks(0.0, 230.0, 4, "seconds") == [0.0, 60.0, 120.0, 180.0], "200 s would be called 3.3 min"
    assert log_ticks(0.02, 1.5, 8) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
    assert log_ticks(1e-9, 1e3, 5) == pytest.approx([1e-9, 1e-6, 1e-3, 1.0, 1e3])
    assert len(log_ticks(2.1, 2.9, 5)) >= 2


@pytest.mark.parametrize(
    ("ticks", "unit", "labels"),
    [
        ([1.0, 1.5, 2.0], "", ["1.0", "1.5", "2.0"]),
        ([0.1, 0.30000000000000004, 0.5], "share", ["10 %", "30 %", "50 %"]),
        ([0.0, 2e9, 4e9], "bytes", ["0 GB", "2 GB", "4 GB"]),
        ([0.0, 20_000.0], "count", ["0 k", "20 k"]),
        ([0.2, 0.4], "seconds", ["200 ms", "400 ms"]),
        ([1e-4, 2e-4], "", ["1e-4", "2e-4"]),
    ],
)
def test_ticks_are_called_in_their_unit(ticks: list[float], unit: str, labels: list[str]) -> None:
    assert tick_labels(ticks, unit) == labels  # type: ignore[arg-type]


def test_values_have_four_digits_and_a_unit() -> None:
    assert value_label(1.04177) == "1.042"
    assert value_label(1.8e-4) == "1.8e-4"
    assert value_label(0.614, "share") == "61.40 %"
    assert value_label(9_400_000_000, "bytes") == "9.400 GB"
    assert value_label(0.05, "seconds") == "50 ms"
    assert value_label(None) == "–"


def lines_of(picture: Picture, width: int = 60, height: int = 12) -> list[str]:
    lines = [line.plain for line in draw(picture, width, height)]
    assert len(lines) == height
    assert {len(line) for line in lines} <= {width}
    return lines


def falling(steps: int = 100) -> Curve:
    curve = Curve("Loss")
    curve.extend([(step, 3 - step / 50) for step in range(1, steps + 1)])
    return curve


def test_a_chart_has_values_steps_points_and_marks_in_their_places() -> None:
    lines = lines_of(Picture([falling()], points=[(50, 2.5)], marks={25: "C", 75: "‖"}))
    assert any(line.startswith("   2 ┤") for line in lines)
    assert lines[-1].startswith("step")
    assert "50" in lines[-1]
    axis = lines[-2]
    assert axis.index("C") < axis.index("‖")
    (row,) = (index for index, line in enumerate(lines) if "●" in line)
    assert row < 5


def test_the_cursor_and_a_level_stand_in_the_chart() -> None:
    plain = lines_of(Picture([falling()]))
    lines = lines_of(Picture([falling()], cursor=100, level=1.5))
    assert sum(line.count("│") for line in lines) > sum(line.count("│") for line in plain)
    assert lines[-2].endswith("┴")


def test_a_window_shows_a_part_and_a_logarithm_keeps_decades_apart() -> None:
    parts = "\n".join(lines_of(Picture([falling()], window=(60, 100))))
    assert "2 ┤" not in parts
    assert "80" in parts
    curve = Curve()
    curve.extend([(step, 10.0 ** (-step / 10)) for step in range(40)])
    text = "\n".join(lines_of(Picture([curve], log=True), height=16))
    assert "0.001 ┤" in text.replace("1e-3", "0.001")
    curve.extend([(40, 0.0), (41, -1.0)])
    lines_of(Picture([curve], log=True))


def test_several_curves_are_told_apart_without_colours() -> None:
    other = Curve("b")
    other.extend([(step, 1.0) for step in range(1, 101)])
    text = "\n".join(lines_of(Picture([falling(), other])))
    assert "o" in text
    assert "x" in text


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_anything_to_draw_is_drawn(count: int) -> None:
    curve = Curve()
    curve.extend([(step, 2.0) for step in range(count)])
    lines_of(Picture([curve]))
