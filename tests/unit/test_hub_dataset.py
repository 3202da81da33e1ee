"""Datasets of the hub: brought into its cache by configuration and split, again without it, and refused in words."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.data.check import StoppedError, check
from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest, Source
from core.errors import SftuiError
from core.models import blobs, download
from tests.hub_server import Hub, running_hub
from tests.unit.test_hub import CANARY, told
from tests.unit.test_row_store import turns

CARD = b"""---
license: mit
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: extra
  data_files: extra.jsonl
---
# Rows
"""


def rows(*names: str) -> bytes:
    return "".join(json.dumps(turns(name)) + "\n" for name in names).encode()


FILES = {
    "README.md": CARD,
    "main/train-00000-of-00002.jsonl": rows("a", "b"),
    "main/train-00001-of-00002.jsonl": rows("c"),
    "main/test-00000-of-00001.jsonl": rows("d"),
    "extra.jsonl": rows("e"),
    "make.py": b"raise SystemExit",
    "../evil.jsonl": b"{}",
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.01)


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(own_home, monkeypatch) as running:
        running.add("datasets/org/rows", dict(FILES))
        yield running


def read(path: str = "org/rows", name: str | None = "main", split: str = "train") -> DataFacts:
    return check(CheckRequest((Source(path, name=name, split=split),)))


def refused(path: str = "org/rows", name: str | None = "main", split: str = "train") -> SftuiError:
    with pytest.raises(SftuiError) as caught:
        read(path, name, split)
    return caught.value


def asked(facts: DataFacts) -> list[str]:
    return [row["messages"][0]["content"] for row in facts.preview]


def test_a_split_of_a_configuration_is_brought_and_read(hub: Hub) -> None:
    facts = read()
    assert asked(facts) == ["a", "b", "c"]
    assert facts.sources[0].label == "org/rows main"
    cache = Path(os.environ["HF_HUB_CACHE"]) / "datasets--org--rows"
    (sha,) = hub.repositories["datasets/org/rows"].commits
    assert [file.parent.parent for file in facts.files] == [cache / "snapshots" / sha] * 2
    assert (cache / "refs" / "main").read_text() == sha
    # Neither other splits nor any code.
    assert {path.name for path in cache.rglob("*.*") if path.is_symlink()} == {
        "README.md",
        "train-00000-of-00002.jsonl",
        "train-00001-of-00002.jsonl",
    }
    assert asked(read(split="test")) == ["d"]
    assert asked(read(name="extra")) == ["e"]


def test_what_is_here_is_not_fetched_again_and_a_new_commit_is(hub: Hub) -> None:
    assert read().rows == 3
    before = dict(hub.served)
    assert read().rows == 3
    assert dict(hub.served) == before
    hub.repositories["datasets/org/rows"].commit(FILES | {"main/train-00001-of-00002.jsonl": rows("c", "new")})
    assert asked(read()) == ["a", "b", "c", "new"]


def test_without_the_hub_what_is_here_is_read_and_nothing_less(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read()
    hub.refuse(503)
    assert read() == facts
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert read() == facts
    error = refused(split="test")
    assert error.title == "Offline"
    assert "HF_HUB_OFFLINE is set, and “org/rows” main (test) is not wholly in the cache." in error.message
    assert refused("org/never").title == "Offline"
    facts.files[1].unlink()
    assert refused().title == "Offline"


def test_what_another_program_brought_is_found_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import snapshot_download

    wanted, cache = ["*.md", "main/train*"], os.environ["HF_HUB_CACHE"]
    snapshot_download("org/rows", repo_type="dataset", allow_patterns=wanted, cache_dir=cache, endpoint=hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert asked(read()) == ["a", "b", "c"]


def test_offline_from_the_beginning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused()
    assert (error.title, "HF_HUB_OFFLINE is set" in error.message) == ("Offline", True)
    assert "If this is a file" in error.hint


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    large = rows(*(f"{number:07}" for number in range(2000)))
    hub.add("datasets/org/large", {"rows.jsonl": large})
    hub.drop("rows.jsonl", 50_000, 100_000)
    assert read("org/large", None).rows == 2000
    assert hub.served["rows.jsonl"] == len(large)


def test_a_download_tells_how_far_it_is_and_is_stopped(hub: Hub) -> None:
    large = rows(*(f"{number:07}" for number in range(2000)))
    hub.add("datasets/org/large", {"rows.jsonl": large})
    hub.hold("rows.jsonl", 50_000)
    stopped = threading.Event()
    seen: list[Progress] = []

    def tell(progress: Progress) -> None:
        seen.append(progress)
        if progress.bytes_done >= 50_000:
            stopped.set()

    request = CheckRequest((Source("org/large"),))
    with pytest.raises(StoppedError):
        check(request, tell, stopped.is_set)
    assert {(at.downloading, at.bytes_total) for at in seen} == {(True, len(large))}
    hub.released.set()
    assert check(request).rows == 2000
    # What had arrived was kept.
    assert hub.served["rows.jsonl"] < 2 * len(large)


def test_a_private_or_missing_dataset_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused("org/nothing", None)
    assert error.title == "No such dataset"
    assert "shows no “org/nothing” to somebody who is not logged in" in error.message
    monkeypatch.setenv("HF_TOKEN", CANARY)
    error = refused("org/nothing", None)
    assert "to this account" in error.message
    assert CANARY not in told(error)


def test_a_gated_dataset_says_where_its_terms_are(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.add("datasets/org/gated", FILES, gated="auto")
    error = refused("org/gated")
    assert error.title == "The dataset is gated"
    assert f"{hub.url}/datasets/org/gated" in error.hint
    monkeypatch.setenv("HF_TOKEN", CANARY)
    repository.granted = False
    error = refused("org/gated")
    assert "this account has not" in error.message
    assert CANARY not in told(error)
    repository.granted = True
    assert read("org/gated").rows == 3


def test_an_unreachable_hub_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused().title == "The hub cannot be reached"


def test_configurations_and_splits_that_there_are_not(hub: Hub) -> None:
    assert "none is the default: main, extra" in refused(name=None).message
    assert "there are main, extra" in refused(name="other").message
    assert "there are train, test" in refused(split="dev").message


def test_a_script_is_never_run(hub: Hub) -> None:
    hub.add("datasets/org/script", {"script.py": b"raise SystemExit", "README.md": b"# Rows"})
    error = refused("org/script", None)
    assert error.title == "The dataset has no data files"
    assert "a script that makes them is never run" in error.message


def test_rows_that_are_there_twice_are_read_once(hub: Hub) -> None:
    hub.add("datasets/org/twice", {"a.jsonl": rows("a"), "b.jsonl": rows("b"), "all.csv": b"prompt,completion\nx,y\n"})
    assert asked(read("org/twice", None)) == ["a", "b"]


@pytest.mark.parametrize("answer", [{}, {"sha": "0" * 40}, {"sha": "../../x", "siblings": []}])
def test_nonsense_is_not_understood(hub: Hub, monkeypatch: pytest.MonkeyPatch, answer: dict[str, str]) -> None:
    monkeypatch.setattr("core.data.hub_dataset.get_json", lambda *_: (answer, None))
    assert refused().title == "The hub's answer cannot be understood"
