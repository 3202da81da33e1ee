"""Step 1 with a hub: a model is searched for, looked at, downloaded, and then chosen."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from core.models import blobs, download
from tests.hub_server import Hub, Repository, running_hub
from tests.tui.setup_helpers import Watcher, make_model, opened, seen, sees, told, types, wait_for
from tui_app.widgets.hub_list import HubList
from tui_app.widgets.local_list import LocalList

pytest_plugins = ["tests.tui.setup_helpers"]

CANARY = "hf_canaryCanaryCanaryCanary"
WEIGHTS = "model.safetensors"
HELD = 40_000


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub; a connection that breaks is taken up at once."""
    monkeypatch.setattr(blobs, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(download, "_FAREWELL_SECONDS", 0.05)
    with running_hub(home, monkeypatch) as running:
        yield running


@pytest.fixture
def tiny(hub: Hub, home: Path) -> Repository:
    """A small model on the hub."""
    folder = make_model(home / "source" / "tiny")
    return hub.add("org/tiny", {path.name: path.read_bytes() for path in folder.iterdir()}, downloads=1_234_567)


def listed(app: Watcher) -> list[str]:
    """The ids that the search has found."""
    return [model.id for model in app.screen.query_one(HubList).listed]


async def search(pilot: Pilot[int], app: Watcher, text: str, *, expect: list[str]) -> None:
    """Go to the hub and search for a name."""
    await pilot.press("ctrl+f")
    await types(pilot, text)
    found = app.screen.query_one(HubList)
    await wait_for(pilot, lambda: not found.is_searching and found.text == text)
    assert listed(app) == expect


async def offered(pilot: Pilot[int], app: Watcher) -> None:
    """Search for the small model, and have its download offered."""
    await search(pilot, app, "tiny", expect=["org/tiny"])
    await pilot.press("enter")
    await sees(pilot, "Enter download it")


async def test_nothing_is_asked_of_the_hub_before_one_wants_it(hub: Hub, tiny: Repository) -> None:
    async with opened("model") as (app, pilot):
        await types(pilot, "org/tiny")
        await sees(pilot, "Enter ask the hub what a download would fetch")
        assert not hub.requests
        await pilot.press("enter")
        await sees(pilot, "To download")
        assert not hub.asked("resolve"), "nor is anything fetched"
        assert app.known.values["model_name_or_path"] == "org/tiny"


async def test_results_tell_size_downloads_license_and_what_is_gated(hub: Hub, tiny: Repository) -> None:
    weights = {"parameters": {"BF16": 8_000_000_000}, "total": 8_000_000_000}
    hub.add("other/tiny-8b", gated="manual", safetensors=weights, tags=["safetensors", "license:evil\x1b[31m[b]"])
    async with opened("model", size=(200, 60)) as (app, pilot):
        await search(pilot, app, "tiny", expect=["org/tiny", "other/tiny-8b"])
        first, second = (" ".join(line.split()) for line in seen(app).splitlines() if "/tiny" in line)
        assert "org/tiny 2.00 kB ↓1.2 M apache-2.0" in first
        assert "other/tiny-8b 16.0 GB gated ↓10 evil␛[31m[b]" in second
        await pilot.press("down")
        await sees(pilot, "gated: its terms must be accepted first")
        assert "\x1b" not in seen(app)


async def test_typing_on_asks_for_the_last_text_only(hub: Hub, tiny: Repository) -> None:
    async with opened("model") as (app, pilot):
        await search(pilot, app, "tiny", expect=["org/tiny"])
        asked = [request.query.get("search", [""])[0] for request in hub.asked("/api/models")]
        assert set(asked) <= {"", "tiny"}
        assert asked.count("tiny") == 1
        assert "model_name_or_path" not in app.known.values, "a search chooses nothing"


async def test_enter_on_results_of_an_older_text_chooses_none_of_them(hub: Hub, tiny: Repository) -> None:
    hub.add("org/other")
    async with opened("model") as (app, pilot):
        await search(pilot, app, "tiny", expect=["org/tiny"])
        await types(pilot, "x")
        await pilot.press("enter")
        await sees(pilot, "nothing to train is called “tinyx”")
        assert "model_name_or_path" not in app.known.values


async def test_too_many_requests_are_said_with_the_wait_and_ctrl_r_tries_again(hub: Hub, tiny: Repository) -> None:
    hub.refuse(429, "/api/models", Retry_After="55")
    async with opened("model", size=(80, 24)) as (app, pilot):
        await pilot.press("ctrl+f")
        await sees(pilot, "Too many requests")
        await sees(pilot, "Try again in 55 s.")
        hub.relent()
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: listed(app) == ["org/tiny"])
        assert "Too many requests" not in seen(app)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HF_HUB_OFFLINE", "1", "Unset HF_HUB_OFFLINE"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "The hub cannot be reached."),
    ],
)
async def test_offline_and_no_network_are_said_in_place_and_local_models_stay(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    make_model(home / "mine")
    monkeypatch.setenv(variable, value)
    async with opened("model") as (app, pilot):
        await pilot.press("ctrl+f")
        await wait_for(pilot, lambda: words in told(app, "#note"))
        await pilot.press("ctrl+f")
        await sees(pilot, "[Here]")
        await wait_for(pilot, lambda: home / "mine" in [it.path for it in app.screen.query_one(LocalList).models])


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_download_shows_its_progress_and_then_the_model_is_chosen(
    hub: Hub, tiny: Repository, size: tuple[int, int]
) -> None:
    hub.hold(WEIGHTS, HELD)
    async with opened("model", size=size) as (app, pilot):
        await offered(pilot, app)
        assert "free" in seen(app).lower()
        await pilot.press("enter")
        await sees(pilot, "Downloading org/tiny")
        await sees(pilot, "4 of 5 files")
        await wait_for(pilot, lambda: "▕" in seen(app) and " % " in seen(app))
        hub.released.set()
        await wait_for(pilot, lambda: app.known.model is not None)
        await sees(pilot, "In 4 bit, NF4")
        await wait_for(pilot, lambda: any(line.lstrip().startswith("● org/tiny") for line in seen(app).splitlines()))
        await pilot.press("enter")
        await sees(pilot, "[2 Data")


async def test_a_download_is_stopped_and_taken_up_where_it_stopped(hub: Hub, tiny: Repository) -> None:
    hub.hold(WEIGHTS, HELD)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await sees(pilot, "4 of 5 files")
        await wait_for(pilot, lambda: hub.served[WEIGHTS] >= HELD)
        await pilot.press("ctrl+x")
        await sees(pilot, "Stopped. What has arrived is kept.")
        hub.released.set()
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        ranges = [request.range for request in hub.asked("/storage/")]
        assert ranges[0] is None
        assert ranges[1] is not None


async def test_a_download_goes_on_while_one_is_elsewhere_and_says_when_it_is_here(hub: Hub, tiny: Repository) -> None:
    hub.hold(WEIGHTS, HELD)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await sees(pilot, "Downloading org/tiny")
        await pilot.press("ctrl+n")
        await sees(pilot, "[2 Data")
        hub.released.set()
        await sees(pilot, "org/tiny is here.")
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_the_download_of_another_model_stays_in_sight_and_can_be_stopped(
    hub: Hub, tiny: Repository, home: Path
) -> None:
    make_model(home / "mine")
    hub.hold(WEIGHTS, HELD)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await sees(pilot, "Downloading org/tiny")
        await pilot.press("ctrl+f", "ctrl+u")
        await types(pilot, "./mine")
        await wait_for(pilot, lambda: app.known.model is not None)
        await sees(pilot, "ctrl+x stops")
        await pilot.press("ctrl+x")
        await wait_for(pilot, lambda: app.download is not None and app.download.phase == "stopped")
        assert app.known.values["model_name_or_path"] == "./mine"


async def test_leaving_does_not_wait_for_a_silent_hub(hub: Hub, tiny: Repository) -> None:
    hub.hold(WEIGHTS, HELD)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await wait_for(pilot, lambda: hub.served[WEIGHTS] >= HELD)
        await pilot.press("ctrl+q")
    assert app.return_code == 0
    assert not hub.released.is_set()


@pytest.mark.parametrize("login", ["", CANARY])
async def test_a_gated_model_names_the_page_and_the_login_and_shows_no_token(
    hub: Hub, tiny: Repository, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", login)
    tiny.facts["gated"], tiny.granted = "manual", False
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        assert f"accept its terms at {hub.url}/org/tiny" in told(app, "DownloadPanel")
        await pilot.press("enter")
        await wait_for(pilot, lambda: "✗ The model is gated" in told(app, "DownloadPanel"))
        assert f"{hub.url}/org/tiny" in told(app, "DownloadPanel")
        assert CANARY not in seen(app)
        tiny.granted = True
        if login:
            await pilot.press("enter")
            await wait_for(pilot, lambda: app.known.model is not None)
        else:
            assert "hf auth login" in told(app, "DownloadPanel")


async def test_a_connection_that_drops_mid_file_is_taken_up(hub: Hub, tiny: Repository) -> None:
    hub.drop(WEIGHTS, HELD)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
        assert hub.served[WEIGHTS] == len(tiny.commits[tiny.refs["main"]][WEIGHTS])


async def test_a_connection_that_keeps_breaking_is_said_and_enter_tries_again(hub: Hub, tiny: Repository) -> None:
    hub.drop(WEIGHTS, 0, 0, 0)
    async with opened("model") as (app, pilot):
        await offered(pilot, app)
        await pilot.press("enter")
        await sees(pilot, "Enter try again")
        assert "✗" in told(app, "DownloadPanel")
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)


async def test_a_model_that_cannot_be_trained_is_not_downloaded(hub: Hub) -> None:
    hub.add("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    async with opened("model") as (app, pilot):
        await search(pilot, app, "pickled", expect=["org/pickled"])
        await pilot.press("enter")
        await sees(pilot, "pickle files")
        await pilot.press("enter")
        await wait_for(pilot, lambda: "pickle files" in told(app, "DownloadPanel"))
        assert app.download is None


async def test_too_little_room_is_said_before_anything_is_fetched(
    hub: Hub, tiny: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_free_bytes", lambda repository: 1000)
    async with opened("model") as (app, pilot):
        await search(pilot, app, "tiny", expect=["org/tiny"])
        await pilot.press("enter")
        await sees(pilot, "Not enough room")
        await pilot.press("enter")
        await sees(pilot, "Not enough room")
        assert app.download is None


async def test_half_a_download_of_another_time_is_listed_and_gone_on_with(hub: Hub, tiny: Repository) -> None:
    hub.drop(WEIGHTS, HELD, 0, 0, 0)
    repository = Path(os.environ["HF_HUB_CACHE"]) / "models--org--tiny"
    with pytest.raises(Exception, match="broke"):
        download.Download("org/tiny").run()
    assert list(repository.glob("blobs/*.incomplete"))
    async with opened("model") as (app, pilot):
        await sees(pilot, "! not whole")
        await types(pilot, "tiny")
        await wait_for(pilot, lambda: "The download is not finished" in told(app, "#about"))
        await pilot.press("enter")
        await sees(pilot, "are here already")
        await pilot.press("enter")
        await wait_for(pilot, lambda: app.known.model is not None)
