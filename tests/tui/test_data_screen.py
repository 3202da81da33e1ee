"""Step 2: the rows are named, shown and judged."""

import json
from pathlib import Path

import pytest

from tests.tui.setup_helpers import field, go_to, make_rows, opened, seen, sees, told, types, wait_for
from tui_app.widgets.row_view import RowView, turns

pytest_plugins = ["tests.tui.setup_helpers"]


async def test_a_typed_path_shows_its_rows_and_arrows_go_through_them(home: Path) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data") as (app, pilot):
        assert "Name a file to see its rows." in told(app, "#facts")
        await types(pilot, file.name)
        await wait_for(pilot, lambda: app.known.data is not None)
        await sees(pilot, "Where is parcel 1?")
        assert "12 rows, no problems: conversations (messages)" in told(app, "#facts")
        await pilot.press("enter", "right", "right")
        await sees(pilot, "Where is parcel 3?")
        await pilot.press("left")
        await sees(pilot, "Where is parcel 2?")
        await pilot.press("enter")
        await sees(pilot, "[3 Precision")


async def test_several_files_are_separated_by_commas(home: Path) -> None:
    make_rows(home / "a.jsonl", 3)
    make_rows(home / "b.jsonl", 4)
    async with opened("data") as (app, pilot):
        await types(pilot, "a.jsonl, b.jsonl")
        await wait_for(pilot, lambda: app.known.data is not None and app.known.data.rows == 7)
        assert app.known.values["datasets"] == [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
        assert field(app, "datasets").value == "a.jsonl, b.jsonl", "what was typed is left as it was typed"


async def test_p_goes_to_the_rows_that_cannot_be_used(home: Path) -> None:
    file = make_rows(home / "rows.jsonl", 30, bad={4: '{"messages": []}', 9: "{"})
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        app.screen.query_one(RowView).focus()
        await pilot.press("p")
        await wait_for(pilot, lambda: app.focused is not None and app.focused.id == "problems")
        problems = told(app, "#problem-list")
        assert "rows.jsonl:4 `messages` is empty." in problems
        assert "rows.jsonl:9 Not JSON" in problems
        assert "2 problems (p)" in told(app, "#facts")
        assert not app.known.done("data")


async def test_a_missing_file_says_so_under_its_field(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await types(pilot, "/nowhere.jsonl")
        await wait_for(pilot, lambda: app.known.data_problem is not None)
        await sees(pilot, "✗ No such data file")


async def test_what_is_learnt_from_is_marked(home: Path) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        assert "+ User" in seen(app)
        await go_to(pilot, "assistant_only_loss")
        await pilot.press("space")
        await wait_for(pilot, lambda: app.known.values.get("assistant_only_loss") is True)
        await wait_for(pilot, lambda: "+ User" not in seen(app))
        assert "+ Assistant" in seen(app)


async def test_a_wrong_length_is_kept_and_says_what_is_allowed(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await go_to(pilot, "max_length")
        await pilot.press("end", "x")
        await wait_for(pilot, lambda: app.known.values.get("max_length") == "1024x")
        await wait_for(pilot, lambda: "✗ must be a whole number" in told(app, "#option-max_length .note"))
        assert "it is '1024x'" in told(app, "#option-max_length .note")
        await pilot.press("ctrl+n", "escape")
        await sees(pilot, "[2 Data")
        assert field(app, "max_length").value == "1024x"


async def test_an_empty_length_means_none_and_not_the_default(home: Path) -> None:
    async with opened("data") as (app, pilot):
        await go_to(pilot, "max_length")
        await pilot.press("end", *["backspace"] * 4)
        await wait_for(pilot, lambda: "max_length" in app.known.values and app.known.values["max_length"] is None)
        assert field(app, "max_length").value == ""


async def test_held_out_rows_are_read_and_must_fit_the_training_rows(home: Path) -> None:
    rows, held_out, other = make_rows(home / "a.jsonl"), make_rows(home / "b.jsonl", 5), home / "c.jsonl"
    other.write_text('{"text": "plain"}\n')
    values = {"datasets": [{"path": str(rows)}], "sftui": {"held_out_file": str(held_out)}}
    note = "#option-sftui-held_out_file .note"
    async with opened("data", values) as (app, pilot):
        await wait_for(pilot, lambda: told(app, note) == "5 rows to evaluate on.")
        await go_to(pilot, "sftui.held_out_file")
        await types(pilot, other.name)
        await wait_for(pilot, lambda: "✗ is in text form" in told(app, note))
        await types(pilot, "x")
        await wait_for(pilot, lambda: "✗ No such data file" in told(app, note))
        await pilot.press("ctrl+n", "ctrl+n", "ctrl+n")
        await sees(pilot, "[5 Review")
        await wait_for(pilot, lambda: "No such data file" in told(app, "#problems"))
        assert app.screen.query_one("#start").disabled


async def test_hostile_rows_are_only_text(home: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "\x1b]0;x\x07 [/red]"}, {"role": "assistant", "content": "ok\u202e"}]
    }
    file = home / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    async with opened("data", {"datasets": [{"path": str(file)}]}) as (app, pilot):
        await sees(pilot, "␛]0;x␇ [/red]")
        assert "ok‹U+202E›" in seen(app)
        assert "\x1b" not in seen(app)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_rows_are_reached_at_every_size(home: Path, size: tuple[int, int]) -> None:
    file = make_rows(home / "rows.jsonl")
    async with opened("data", {"datasets": [{"path": str(file)}]}, size=size) as (_, pilot):
        await go_to(pilot, "datasets")
        await pilot.press("enter")
        await sees(pilot, "Where is parcel 1?")


def test_rows_of_every_form_become_turns() -> None:
    assert turns({"prompt": "q", "completion": "a"}) == [("prompt", "q"), ("completion", "a")]
    assert turns(
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    ) == [
        ("user", "q"),
        ("assistant", "a"),
    ]
    assert turns({"text": "t", "id": 1}) == [("text", "t")]
    assert turns({"question": "q", "n": 2}) == [("question", "q"), ("n", "2")]
    assert turns({"messages": ["x", {"role": "user", "content": [{"type": "image"}]}]}) == [
        ("?", '"x"'),
        ("user", '[{"type": "image"}]'),
    ]
