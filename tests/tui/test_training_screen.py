"""Step 4: what follows from batch, epochs and rows is said as one types."""

from pathlib import Path

from textual.widgets._footer import FooterKey

from tests.tui.setup_helpers import field, go_to, make_rows, opened, seen, sees, told, types, wait_for

pytest_plugins = ["tests.tui.setup_helpers"]


async def test_batch_and_accumulation_say_how_many_steps_they_make(home: Path) -> None:
    values = {"datasets": [{"path": str(make_rows(home / "rows.jsonl", 100))}], "num_train_epochs": 2}
    async with opened("training", values) as (app, pilot):
        assert "100 rows make 13 steps an epoch; 26 steps in all." in told(app, "#option-num_train_epochs .note")
        await go_to(pilot, "gradient_accumulation_steps")
        await pilot.press("4")
        await wait_for(pilot, lambda: app.known.values.get("gradient_accumulation_steps") == 4)
        await sees(pilot, "Effective batch: 32 rows a step.")
        assert "100 rows make 4 steps an epoch; 8 steps in all." in told(app, "#option-num_train_epochs .note")
        await go_to(pilot, "max_steps")
        await pilot.press("5")
        await wait_for(pilot, lambda: "5 steps in all" in told(app, "#option-num_train_epochs .note"))


async def test_a_held_out_share_is_not_trained_on(home: Path) -> None:
    values = {"datasets": [{"path": str(make_rows(home / "rows.jsonl", 100))}], "test_split_size": 0.2}
    async with opened("training", values) as (app, _):
        assert "80 rows make 10 steps an epoch" in told(app, "#option-num_train_epochs .note")


async def test_a_learning_rate_is_typed_in_any_notation(home: Path) -> None:
    async with opened("training") as (app, pilot):
        rate = await go_to(pilot, "learning_rate")
        assert rate.value == "2e-5"
        await types(pilot, "3e-4")
        await wait_for(pilot, lambda: app.known.values.get("learning_rate") == 3e-4)
        assert rate.value == "3e-4"
        await pilot.press("x")
        await wait_for(pilot, lambda: "✗ must be a number" in told(app, "#option-learning_rate .note"))
        assert not app.known.done("training")


async def test_evaluation_without_held_out_rows_says_where_to_name_them(home: Path) -> None:
    async with opened("training") as (app, pilot):
        await go_to(pilot, "eval_strategy")
        assert "Evaluate every" not in seen(app)
        await pilot.press("right")
        await sees(pilot, "Evaluate every")
        assert "✗ needs held-out rows" in told(app, "#option-eval_strategy .note")


async def test_the_footer_is_laid_anew_for_other_keys_only(home: Path) -> None:
    async with opened("training") as (app, pilot):
        await go_to(pilot, "learning_rate")
        await pilot.pause()
        laid = list(app.screen.query(FooterKey))
        await go_to(pilot, "max_steps")
        await types(pilot, "12")
        await wait_for(pilot, lambda: app.known.values.get("max_steps") == 12)
        await pilot.pause()
        assert list(app.screen.query(FooterKey)) == laid
        await pilot.resize_terminal(40, 40)
        await wait_for(pilot, lambda: len(app.screen.query(FooterKey)) < len(laid))


async def test_sample_prompts_may_hold_commas(home: Path) -> None:
    async with opened("training") as (app, pilot):
        prompts = await go_to(pilot, "sftui.sample_prompts")
        await types(pilot, "Hello, you | 2 and 3")
        await wait_for(pilot, lambda: app.known.values.get("sftui") == {"sample_prompts": ["Hello, you", "2 and 3"]})
        assert prompts.value == "Hello, you | 2 and 3"


async def test_what_is_typed_survives_the_way_through_all_steps(home: Path) -> None:
    async with opened("training", size=(80, 24)) as (app, pilot):
        await go_to(pilot, "sftui.name")
        await types(pilot, "my 1st")
        await pilot.press("ctrl+n")
        await sees(pilot, "[5 Review")
        await pilot.press("1")
        await sees(pilot, "[1 Model")
        await pilot.press(*["ctrl+n"] * 3)
        await sees(pilot, "[4 Training")
        assert field(app, "sftui.name").value == "my 1st"
        assert app.known.values["sftui"]["name"] == "my 1st"
