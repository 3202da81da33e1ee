"""Step 1 with a model of the hub that brings its own code: downloaded, refused, allowed, fetched, shown."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from textual.pilot import Pilot

from core.models import blobs, download
from core.models.remote_code import CodeNotHereError
from core.paths import config_home
from tests.hub_server import Hub, Repository, running_hub
from tests.tui.setup_helpers import make_model, opened, seen, sees, told, types, wait_for
from tui_app import reading
from tui_app.draft import Draft
from tui_app.messages import ModelRead
from tui_app.reading import read_model
from tui_app.widgets.hub_list import HubList

pytest_plugins = ["tests.tui.setup_helpers"]

PYTHON = {"modeling_own.py": b"from .layers import Layer\n", "layers.py": b"raise SystemExit('never run here')\n"}


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(blobs, "PAUSES", (0.0,))
    monkeypatch.setattr(download, "_FAREWELL_SECONDS", 0.05)
    with running_hub(home, monkeypatch) as running:
        yield running


@pytest.fixture
def own(hub: Hub, home: Path) -> Repository:
    """A small model of a type that transformers does not know."""
    auto_map = {"AutoModelForCausalLM": "modeling_own.OwnModel"}
    folder = make_model(home / "source" / "own", model_type="own_type", auto_map=auto_map)
    return hub.add("org/own", {path.name: path.read_bytes() for path in folder.iterdir()} | PYTHON)


async def downloaded_and_refused(pilot: Pilot[int]) -> None:
    await pilot.press("ctrl+f")
    await types(pilot, "own")
    found = pilot.app.screen.query_one(HubList)
    await wait_for(pilot, lambda: not found.is_searching and found.text == "own")
    await pilot.press("enter")
    await sees(pilot, "Enter download it")
    assert "it runs code of its own: modeling_own.py, layers.py" in told(pilot.app, "DownloadPanel")
    await pilot.press("enter")
    await sees(pilot, "This model runs its own code")


async def allowed(pilot: Pilot[int]) -> None:
    await pilot.press("ctrl+o")
    await sees(pilot, "Type allow and press Enter")
    await types(pilot, "allow")
    await pilot.press("enter")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_model_is_downloaded_refused_allowed_and_then_fetched_with_its_code(
    hub: Hub, own: Repository, size: tuple[int, int]
) -> None:
    commit = own.refs["main"]
    async with opened("model", size=size) as (app, pilot):
        await downloaded_and_refused(pilot)
        card = told(app, "ModelCard")
        assert "Would run modeling_own.py" in card
        assert f"at {commit}" in card
        assert f"{hub.url}/org/own/tree/{commit}" in card.replace(" ", "")
        assert not hub.asked(".py")
        await pilot.press("ctrl+o")
        await sees(pilot, "Of these, what is not here is fetched then")
        await pilot.press("escape")
        assert not (config_home() / "allowed_code.json").exists()
        # What is allowed is what was shown, though the branch has moved on by now.
        own.commit({**own.commits[commit], "modeling_own.py": b"import evil\n"})
        await allowed(pilot)
        await wait_for(pilot, lambda: f"modeling_own.py, allowed at {commit}" in told(app, "ModelCard"))
        assert all(f"/{commit}/" in request.path for request in hub.asked(".py"))
        assert hub.served["layers.py"] == len(PYTHON["layers.py"])
        assert "import evil" not in (app.known.model.folder / "modeling_own.py").read_text()  # type: ignore[union-attr]


@pytest.mark.parametrize("by_folder", [False, True])
async def test_what_was_read_while_the_code_was_on_its_way_is_read_again_when_it_is_here(
    hub: Hub, own: Repository, monkeypatch: pytest.MonkeyPatch, by_folder: bool
) -> None:
    has_read, may_tell = Event(), Event()

    def tell_late(draft: Draft) -> ModelRead:
        found = read_model(draft)
        if isinstance(found.problem, CodeNotHereError):
            has_read.set()
            may_tell.wait(60)
        return found

    folder = download.Download("org/own").run()
    async with opened("model", {"model_name_or_path": str(folder) if by_folder else "org/own"}) as (app, pilot):
        await sees(pilot, "This model runs its own code")
        monkeypatch.setattr(reading, "read_model", tell_late)
        hub.hold("layers.py", 1)
        await allowed(pilot)
        await wait_for(pilot, has_read.is_set)
        hub.released.set()
        await wait_for(pilot, lambda: app.download is not None and app.download.phase == "done")
        may_tell.set()
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_code_that_cannot_be_fetched_now_is_fetched_with_enter_later(hub: Hub, own: Repository) -> None:
    async with opened("model") as (app, pilot):
        await downloaded_and_refused(pilot)
        hub.refuse(500, part=".py", times=100)
        await allowed(pilot)
        await sees(pilot, "The hub has a failure")
        await sees(pilot, "Enter try again")
        hub.relent()
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_a_model_given_by_its_folder_in_the_cache_gets_its_code_too(hub: Hub, own: Repository) -> None:
    folder = download.Download("org/own").run()
    async with opened("model", {"model_name_or_path": str(folder)}) as (app, pilot):
        await sees(pilot, "This model runs its own code")
        await allowed(pilot)
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_code_of_another_repository_is_refused_and_not_offered(hub: Hub, home: Path) -> None:
    auto_map = {"AutoModelForCausalLM": "other/repo--modeling.Mine"}
    folder = make_model(home / "source" / "own", model_type="own_type", auto_map=auto_map)
    hub.add("org/own", {path.name: path.read_bytes() for path in folder.iterdir()} | PYTHON)
    hub.add("other/repo", {"modeling.py": b"import evil\n"})
    async with opened("model") as (app, pilot):
        await downloaded_and_refused(pilot)
        assert "Some of it lies in another repository" in told(app, "ModelCard")
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert "Type allow" not in seen(app)
        assert not hub.asked(".py")
