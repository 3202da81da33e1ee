"""Columns that say nothing by their names are given a part by a key each, and a row shows what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from core.data.mapping import ColumnMapping
from tests.tui.helpers import shown, until_shown
from tests.tui.setup_helpers import opened, seen, sees, told, types, wait_for
from tui_app.dialogs.column_mapping import ColumnMappingDialog, given

pytest_plugins = ["tests.tui.setup_helpers"]

SAMPLE = [
    {"id": number, "frage": f"Was ist {number} plus 1?", "antwort": f"Das ist {number + 1}.", "system": "Sei kurz."}
    for number in range(3)
]


class Stage(App[None]):
    """The dialog over nothing, and what it returned."""

    def __init__(self, sample: list[dict[str, Any]], mapping: ColumnMapping) -> None:
        super().__init__()
        self._dialog = ColumnMappingDialog(list(sample[0]), sample, mapping)
        self.returned: list[dict[str, str] | None] = []

    def on_mount(self) -> None:
        """Open it."""
        self.push_screen(self._dialog, self.returned.append)


def flat(pilot: Pilot[Any]) -> str:
    """What is on the screen, in one line."""
    return " ".join(shown(pilot.app).replace("│", " ").split())


async def test_keys_give_columns_their_parts_and_a_row_shows_what_comes_of_it() -> None:
    app = Stage(SAMPLE, ColumnMapping())
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(pilot, "becomes nothing yet")
        await pilot.press("down", "u")
        await until_shown(pilot, "A column must be the answer, too")
        await pilot.press("enter")
        assert app.returned == [], "half a mapping is not taken"
        await pilot.press("down", "a", "down", "s")
        await until_shown(pilot, "Sei kurz.", "Was ist 0 plus 1?", "+ [Das ist 1.]")
        assert "becomes a prompt and its answer" in flat(pilot)
        await pilot.press("right")
        await until_shown(pilot, "+ [Das ist 2.]")
        await pilot.press("enter")
        assert app.returned == [{"user": "frage", "assistant": "antwort", "system": "system"}]


async def test_a_row_that_does_not_fit_says_why() -> None:
    app = Stage([{"text": 7}], ColumnMapping())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("t")
        await until_shown(pilot, "becomes a problem", "✗")


async def test_escape_changes_nothing_and_r_leaves_it_to_what_is_recognised() -> None:
    for key, returned in (("escape", None), ("r", {})):
        app = Stage(SAMPLE, ColumnMapping(user="frage", assistant="antwort"))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("x", key)
            await pilot.pause()
            assert app.returned == [returned]


async def test_many_columns_scroll_with_the_cursor() -> None:
    app = Stage([{f"column {number}": number for number in range(40)}], ColumnMapping())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("up")
        await until_shown(pilot, "▸ column 39")
        await pilot.press("down")
        await until_shown(pilot, "▸ column 0")


async def test_hostile_columns_are_only_text() -> None:
    app = Stage([{"\x1b]0;x\x07[/red]": "\x1b[31m [/b]\u202e"}], ColumnMapping())
    async with app.run_test(size=(100, 24)) as pilot:
        await pilot.press("t")
        await until_shown(pilot, "␛]0;x␇[/red]", "␛[31m [/b]‹U+202E›")
        assert "\x1b" not in shown(pilot.app)


@pytest.mark.parametrize(
    ("before", "column", "slot", "after"),
    [
        ({"user": "a"}, "b", "assistant", {"user": "a", "assistant": "b"}),
        ({"user": "a", "input": "c"}, "b", "text", {"text": "b"}),
        ({"user": "a"}, "a", "", {}),
        ({"user": "a"}, "a", "assistant", {"assistant": "a"}),
        ({"messages": "a", "system": "s"}, "b", "user", {"system": "s", "user": "b"}),
        ({"prompt": "p", "completion": "c"}, "d", "completion", {"prompt": "p", "completion": "d"}),
    ],
)
def test_a_row_is_one_thing(before: dict[str, str], column: str, slot: str, after: dict[str, str]) -> None:
    assert given(before, column, slot) == after


async def test_m_maps_the_columns_of_a_file_and_the_rows_follow(home: Path) -> None:
    file = home / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in SAMPLE))
    async with opened("data", size=(80, 24)) as (app, pilot):
        await types(pilot, file.name)
        await sees(pilot, "✗ not recognised")
        assert "m says which column is what" in told(app, "#facts")
        await pilot.press("enter")
        await sees(pilot, "The first row as it is:")
        await pilot.press("m")
        await sees(pilot, "Which column is what?")
        await pilot.press("down", "u", "down", "a", "enter")
        await wait_for(pilot, lambda: app.known.data is not None and app.known.data.rows == 3)
        assert app.known.values["sftui"]["columns"] == {"user": "frage", "assistant": "antwort"}
        await sees(pilot, "+ [Das ist 1.]")
        assert "not recognised" not in seen(app)
        await pilot.press("m", "r")
        await sees(pilot, "✗ not recognised")
        assert "columns" not in app.known.values.get("sftui", {})
