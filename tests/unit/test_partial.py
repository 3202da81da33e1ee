"""Of lines that changed a little, only that little is drawn again."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Region

from tui_app.charts.curve import Curve
from tui_app.charts.plot import Picture, draw
from tui_app.partial import changed_parts, same


def test_only_the_cells_that_changed_are_named() -> None:
    before = [Content("step 41 of 100"), Content("loss 2.5"), Content("same")]
    after = [Content("step 42 of 100"), Content("loss 2.45"), Content("same")]
    assert changed_parts(before, after, 20) == [Region(6, 0, 1, 1), Region(7, 1, 2, 1)]
    assert changed_parts(before, before, 20) == []


def test_another_colour_is_a_change_too() -> None:
    plain, red = [Content("held down")], [Content.styled("held down", "$error")]
    assert not same(plain, red)
    assert changed_parts(plain, red, 12) == [Region(0, 0, 9, 1)]


def test_lines_with_wide_characters_are_drawn_whole() -> None:
    assert changed_parts([Content("模型 1")], [Content("模型 2")], 12) == [Region(0, 0, 12, 1)]


def test_a_curve_that_grows_by_a_step_leaves_most_of_the_chart_as_it_is() -> None:
    curve = Curve("Loss")
    curve.extend([(step, 1 + 2 / step) for step in range(1, 401)])
    picture = Picture([curve], grows=True)
    before = draw(picture, 100, 20)
    curve.extend([(401, 1 + 2 / 401)])
    changed = changed_parts(before, draw(picture, 100, 20), 100)
    assert sum(part.area for part in changed) < 20
