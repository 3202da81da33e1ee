"""Step 1: a model is found, chosen and explained."""

from pathlib import Path
from typing import Any

import pytest
from textual.events import Paste
from textual.widgets import Input

from core.models.folders import remember_folder, remembered_folders
from tests.tui.setup_helpers import make_model, one_gpu, opened, seen, sees, told, types, wait_for
from tui_app.widgets.local_list import LocalList
from tui_app.widgets.memory_bar import MemoryBar

pytest_plugins = ["tests.tui.setup_helpers"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_cache(home: Path, name: str, **changes: Any) -> Path:
    """A model in the Hugging Face cache."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    folder = make_model(repository / "snapshots" / COMMIT, **changes)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return folder


async def test_typing_filters_and_enter_chooses_then_goes_on(home: Path) -> None:
    make_model(home / "tiny-llama")
    make_model(home / "other")
    async with opened("model") as (app, pilot):
        await sees(pilot, "tiny-llama")
        await types(pilot, "tiny")
        await wait_for(pilot, lambda: app.screen.query_one(LocalList).option_count == 1)
        assert "model_name_or_path" not in app.known.values, "half a name is no model yet"
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        assert app.known.values["model_name_or_path"] == str(home / "tiny-llama")
        await sees(pilot, "In 4 bit, NF4")
        assert "llama is a text model: transformers loads it as LlamaForCausalLM." in told(app, "ModelCard")
        await pilot.press("enter")
        await sees(pilot, "[2 Data")


async def test_arrows_move_in_the_list_from_the_field(home: Path) -> None:
    make_model(home / "aaa")
    make_model(home / "bbb")
    async with opened("model") as (app, pilot):
        await sees(pilot, "bbb")
        models = app.screen.query_one(LocalList)
        first = models.highlighted
        await pilot.press("down")
        assert models.highlighted == (first or 0) + 1
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_digits_and_letters_typed_into_the_field_stay_there(home: Path) -> None:
    async with opened("model") as (app, pilot):
        await types(pilot, "/x/q3h")
        assert app.screen.query_one("#path").value == "/x/q3h"  # type: ignore[attr-defined]
        await wait_for(pilot, lambda: app.known.values.get("model_name_or_path") == "/x/q3h")
        assert "[1 Model" in seen(app)


async def test_a_folder_that_is_no_model_says_so_in_place_and_enter_stays(home: Path) -> None:
    (home / "empty").mkdir()
    async with opened("model") as (app, pilot):
        await types(pilot, "./empty")
        await wait_for(pilot, lambda: app.known.model_problem is not None)
        await sees(pilot, "✗")
        problem = app.known.model_problem
        assert problem is not None
        assert problem.title in told(app, "ModelCard")
        assert problem.hint in told(app, "ModelCard")
        await pilot.press("enter")
        await pilot.pause()
        assert "[1 Model]" in seen(app)


async def test_pickled_weights_are_named_as_such(home: Path) -> None:
    folder = make_model(home / "old")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    async with opened("model", {"model_name_or_path": str(folder)}) as (app, _):
        problem = app.known.model_problem
        assert problem is not None
        assert problem.title in told(app, "ModelCard")
        assert "pickle" in f"{problem.message} {problem.hint}".lower()


async def test_the_memory_bar_names_the_gpu_and_fills_when_a_model_is_chosen(home: Path) -> None:
    folder = make_model(home / "tiny")
    async with opened("model", gpus=one_gpu()) as (app, pilot):
        await sees(pilot, "? of 80.0 GB")
        await sees(pilot, "NVIDIA H100 80GB")
        await types(pilot, f"./{folder.name}")
        await wait_for(pilot, lambda: app.known.plan is not None and app.known.plan.memory is not None)
        await sees(pilot, "Memory W")
        assert "▒ in use" in seen(app)


async def test_without_a_gpu_the_bar_says_that_it_is_the_hosts_memory(home: Path) -> None:
    async with opened("model") as (_, pilot):
        await sees(pilot, "CPU: host memory")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_bar_and_header_are_at_the_same_place_on_every_step(home: Path, size: tuple[int, int]) -> None:
    values = {"model_name_or_path": str(make_model(home / "tiny"))}
    async with opened("model", values, size=size) as (app, pilot):
        regions = set()
        for key, title in zip("12345", ("Model", "Data", "Precision", "Training", "Review"), strict=True):
            if app.focused is not None:
                # Digits belong to a field while one is in it.
                app.screen.set_focus(None)
            await pilot.press(key)
            await sees(pilot, f"[{key} {title}")
            regions.add(app.screen.query_one(MemoryBar).region)
        assert len(regions) == 1
        assert regions.pop().bottom == size[1] - 1


async def test_a_name_with_escapes_and_markup_is_only_text(home: Path) -> None:
    make_model(home / "bad[b]\x1b[31m")
    async with opened("model") as (app, pilot):
        await sees(pilot, "bad[b]␛[31m")
        assert "\x1b" not in seen(app)
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        assert app.known.values["model_name_or_path"] == str(home / "bad[b]\x1b[31m")


async def test_going_back_and_forth_loses_nothing(home: Path) -> None:
    async with opened("model") as (app, pilot):
        await types(pilot, "/nowhere/x")
        await pilot.press("ctrl+n")
        await sees(pilot, "[2 Data")
        await pilot.press("escape")
        await sees(pilot, "[1 Model")
        assert app.screen.query_one("#path").value == "/nowhere/x"  # type: ignore[attr-defined]
        await pilot.press("escape")
        await sees(pilot, "Runs")


async def test_the_folder_that_holds_models_offers_them(home: Path) -> None:
    make_model(home / "shelf" / "first")
    async with opened("model") as (app, pilot):
        await types(pilot, "./shelf")
        await wait_for(pilot, lambda: app.known.model_problem is not None)
        await wait_for(
            pilot,
            lambda: [model.name for model in app.screen.query_one(LocalList).listed] == [str(home / "shelf" / "first")],
        )
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        assert app.known.values["model_name_or_path"] == str(home / "shelf" / "first")


async def test_the_licence_is_read_from_the_model_card(home: Path) -> None:
    folder = make_model(home / "tiny")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    async with opened("model", {"model_name_or_path": str(folder)}) as (app, pilot):
        await wait_for(pilot, lambda: "License apache-2.0" in told(app, "ModelCard"))


async def test_a_pasted_id_of_the_cache_names_that_model(home: Path) -> None:
    in_cache(home, "org/tiny")
    async with opened("model") as (app, pilot):
        await sees(pilot, "org/tiny")
        app.screen.query_one(Input).post_message(Paste("org/tiny"))
        await wait_for(pilot, lambda: app.known.model is not None)
        assert app.known.values["model_name_or_path"] == "org/tiny"
        await pilot.press("enter")
        await sees(pilot, "[2 Data")


async def test_part_of_an_architecture_filters_too(home: Path) -> None:
    in_cache(home, "org/tiny")
    in_cache(home, "org/other", model_type="gpt_neox")
    async with opened("model") as (app, pilot):
        await sees(pilot, "org/tiny")
        await types(pilot, "neox")
        models = app.screen.query_one(LocalList)
        await wait_for(pilot, lambda: [model.name for model in models.listed] == ["org/other"])
        await sees(pilot, "in the Hugging Face cache")


async def test_what_is_not_whole_comes_last_and_says_why(home: Path) -> None:
    in_cache(home, "a/broken")
    (next((home / "hub" / "models--a--broken" / "snapshots").iterdir()) / "model.safetensors").unlink()
    in_cache(home, "b/whole")
    async with opened("model") as (app, pilot):
        models = app.screen.query_one(LocalList)
        await wait_for(pilot, lambda: [model.name for model in models.listed[1:]] == ["b/whole", "a/broken"])
        await sees(pilot, "! not whole")
        await pilot.press("down", "down")
        await wait_for(pilot, lambda: told(app, "#about").startswith("! "))


async def test_a_folder_that_one_has_chosen_from_is_listed_the_next_time_until_it_is_forgotten(home: Path) -> None:
    shelf, other = home / "far" / "shelf", home / "far" / "single"
    make_model(shelf / "first")
    make_model(shelf / "second")
    make_model(other)
    async with opened("model") as (app, pilot):
        await types(pilot, "./far/shelf")
        models = app.screen.query_one(LocalList)
        await wait_for(pilot, lambda: len(models.listed) == 2)
        assert not remembered_folders(), "looking is not choosing"
        await wait_for(pilot, lambda: "This folder holds 2 models" in told(app, "ModelCard"))
        await pilot.press("enter")
        await wait_for(pilot, lambda: remembered_folders() == (shelf,))
        await wait_for(pilot, lambda: app.known.model is not None)
        await pilot.press("ctrl+u")
        await types(pilot, "./far")
        # It is listed while one types, and would not be the next time.
        await wait_for(pilot, lambda: other in {model.path for model in models.models})
        await types(pilot, "/single")
        await wait_for(pilot, lambda: app.known.model is not None and app.known.model.folder.name == "single")
        await pilot.press("ctrl+n")
        await wait_for(pilot, lambda: remembered_folders() == (other, shelf))
    async with opened("model") as (app, pilot):
        models = app.screen.query_one(LocalList)
        await wait_for(pilot, lambda: {model.path for model in models.models} > {shelf / "first", other})
        models.focus()
        models.highlighted = [model.path for model in models.listed].index(shelf / "first")
        await pilot.press("delete")
        await wait_for(pilot, lambda: remembered_folders() == (other,))
        await wait_for(pilot, lambda: all(model.path.parent != shelf for model in models.models))
        assert (shelf / "first" / "config.json").exists()


async def test_the_keys_are_told_in_the_help_and_in_the_palette(home: Path) -> None:
    async with opened("model", size=(120, 40)) as (_, pilot):
        await pilot.press("tab", "question_mark")
        await sees(pilot, "Search the Hugging Face hub, or go back")
        await pilot.press("escape", "ctrl+p")
        await types(pilot, "hub")
        await sees(pilot, "Search the Hugging Face hub")


async def test_hundreds_of_models_are_listed_and_filtered(home: Path) -> None:
    for number in range(300):
        folder = home / "many" / f"model-{number:03d}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
    remember_folder(home / "many")
    async with opened("model") as (app, pilot):
        models = app.screen.query_one(LocalList)
        await wait_for(pilot, lambda: len(models.listed) == 301)
        await types(pilot, "model-12")
        await wait_for(pilot, lambda: len(models.listed) == 10)
