"""Downloads into the Hugging Face cache: watched, broken off in every way, and taken up again."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import SftuiError
from core.models import blobs, download
from core.models.blobs import DownloadCancelledError
from core.models.catalog import local_models
from core.models.checkpoint_files import read_tensors, resolve_model_folder
from core.models.download import Download, DownloadProgress
from tests.hub_server import CHUNK, Hub, Repository, environment, git_digest, running_hub
from tests.unit.test_hub import CANARY, ROOT, told

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def weights(name: str, size: int) -> bytes:
    """A safetensors file of one tensor."""
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(name).randbytes(size)


FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" + b" " * 10_000,
    "merges.txt": b"",
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": ONE, "b": TWO}}).encode(),
    ONE: weights("a", 300_000),
    TWO: weights("b", 200_000),
}
REPORT_SECONDS = download._REPORT_SECONDS
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(blobs, "_LOCK_POLL", 0.01)
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.01)


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(own_home, monkeypatch) as running:
        yield running


@pytest.fixture
def model(hub: Hub) -> Repository:
    return hub.add("org/tiny", {**FILES, "pytorch_model.bin": b"pickle", "original/model.safetensors": b"twice"})


@pytest.fixture
def repository() -> Path:
    return Path(os.environ["HF_HUB_CACHE"]) / "models--org--tiny"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_download_is_what_huggingface_hub_would_have_made(hub: Hub, model: Repository, repository: Path) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    folder = Download("org/tiny").run()
    assert folder == repository / "snapshots" / model.refs["main"]
    assert contents(folder) == FILES
    assert resolve_model_folder("org/tiny", None) == folder
    assert len(read_tensors(folder)) == 2
    assert set((repository / "blobs").iterdir()) == {path.resolve() for path in folder.iterdir()}
    cache = scan_cache_dir(repository.parent)
    assert (cache.warnings, len(cache.incomplete_files)) == ([], 0)
    (found,) = cache.repos
    assert (found.repo_id, found.size_on_disk, set(found.refs)) == ("org/tiny", TOTAL, {"main"})
    # Asked for by its commit, it is given from the cache: the hub is not asked again.
    before = len(hub.requests)
    path = hf_hub_download("org/tiny", ONE, revision=model.refs["main"], endpoint=hub.url, cache_dir=repository.parent)
    assert (Path(path), len(hub.requests)) == (folder / ONE, before)


def test_each_byte_is_fetched_once_and_a_second_download_fetches_none(hub: Hub, model: Repository) -> None:
    Download("org/tiny").run()
    assert hub.served == {name: len(content) for name, content in FILES.items() if content}
    before = len(hub.requests)
    Download("org/tiny").run()
    assert [request.path for request in hub.requests[before:]] == ["/api/models/org/tiny/revision/main"]


def test_a_new_commit_fetches_what_changed_and_then_takes_the_name(
    hub: Hub, model: Repository, repository: Path
) -> None:
    older = Download("org/tiny").run()
    hub.served.clear()
    sha = model.commit({**FILES, "config.json": b'{"model_type": "qwen3"}'})
    hub.refuse(500, part="config.json", times=100)
    with pytest.raises(SftuiError, match="status 500"):
        Download("org/tiny").run()
    assert resolve_model_folder("org/tiny", None) == older
    hub.relent()
    assert Download("org/tiny").run() == repository / "snapshots" / sha == resolve_model_folder("org/tiny", None)
    assert hub.served == {"config.json": 23}
    assert contents(older) == FILES


def test_a_revision_is_kept_under_its_name(model: Repository, repository: Path) -> None:
    sha = model.commit({**FILES, "README.md": b"# Second"}, name="refs/pr/1")
    assert Download("org/tiny", "refs/pr/1").run().name == sha
    assert (repository / "refs" / "refs" / "pr" / "1").read_text() == sha
    assert Download("org/tiny", sha).run().name == sha
    assert [path.name for path in (repository / "refs").iterdir()] == ["refs"]


def test_progress_goes_from_what_is_here_to_the_whole(hub: Hub, model: Repository) -> None:
    hub.hold(ONE, 100_000)
    seen: list[DownloadProgress] = []

    def watch(progress: DownloadProgress) -> None:
        seen.append(progress)
        if progress.files_done == 5 and progress.done_bytes == TOTAL - len(FILES[ONE]) + 100_000:
            hub.released.set()

    Download("org/tiny", on_progress=watch).run()
    assert all(before.done_bytes <= after.done_bytes for before, after in pairwise(seen))
    assert {progress.total_bytes for progress in seen} == {TOTAL}
    assert any(progress.files_done == 5 and progress.bytes_per_second > 0 for progress in seen[:-1])
    last = seen[-1]
    assert (last.done_bytes, last.files_done, last.files_total, last.seconds_left) == (TOTAL, 6, 6, 0.0)
    assert last.file == ONE


def test_progress_is_told_five_times_a_second_at_most(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_REPORT_SECONDS", REPORT_SECONDS)
    hub.hold(ONE, 100_000)
    moments: list[float] = []

    def watch(_: DownloadProgress) -> None:
        moments.append(time.monotonic())
        if len(moments) == 3:
            hub.released.set()

    Download("org/tiny", on_progress=watch).run()
    assert all(after - before >= 0.2 for before, after in pairwise(moments[:-1]))


def test_a_dropped_connection_is_taken_up_where_it_broke(hub: Hub, model: Repository) -> None:
    hub.drop(ONE, 50_000, 60_000, 60_000, 250_000)
    folder = Download("org/tiny").run()
    assert contents(folder) == FILES
    assert hub.served[ONE] == len(FILES[ONE])
    asked = [request.range for request in hub.asked(f"/{ONE}") if request.at_storage]
    assert asked == [None, "bytes=50000-", "bytes=60000-", "bytes=60000-", "bytes=250000-"]


def test_a_connection_that_brings_nothing_is_given_up_and_what_came_is_kept(hub: Hub, model: Repository) -> None:
    hub.drop(ONE, *[50_000] * 10)
    with pytest.raises(SftuiError) as caught:
        Download("org/tiny").run()
    assert caught.value.title == "The connection broke"
    assert hub.served[ONE] == 50_000
    hub.drop(ONE)
    Download("org/tiny").run()
    assert hub.served[ONE] == len(FILES[ONE])


def test_a_server_that_passes_over_ranges_sends_the_whole_file(hub: Hub, model: Repository) -> None:
    hub.ignores_ranges = True
    hub.drop(ONE, 50_000)
    assert contents(Download("org/tiny").run()) == FILES
    assert hub.served[ONE] == len(FILES[ONE]) + 50_000


def test_a_storage_that_fails_for_a_moment_is_asked_again(hub: Hub, model: Repository) -> None:
    hub.refuse(503, part="/storage/", times=2)
    assert contents(Download("org/tiny").run()) == FILES


def test_cancelling_stops_within_a_file_and_keeps_it(hub: Hub, model: Repository, repository: Path) -> None:
    hub.hold(ONE, 100_000)

    def stop(progress: DownloadProgress) -> None:
        if progress.files_done == 5 and progress.done_bytes == TOTAL - len(FILES[ONE]) + 100_000:
            job.cancel()
            hub.released.set()

    job = Download("org/tiny", on_progress=stop)
    with pytest.raises(DownloadCancelledError):
        job.run()
    (partial,) = repository.glob("blobs/*.incomplete")
    here = partial.stat().st_size
    assert 100_000 <= here < len(FILES[ONE])
    assert FILES[ONE].startswith(partial.read_bytes())
    (found,) = [model for model in local_models() if model.source == "cache"]
    assert (found.name, found.complete, found.model_type) == ("org/tiny", False, "llama")
    assert "not finished" in (found.problem or "")
    before = len(hub.requests)
    assert contents(Download("org/tiny").run()) == FILES
    (asked,) = [request for request in hub.requests[before:] if request.at_storage]
    assert asked.path.endswith(ONE)
    assert asked.range == f"bytes={here}-"


def test_cancelling_waits_for_no_silent_server(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FAREWELL_SECONDS", 0.01)
    hub.hold(ONE, 100_000)
    job = Download("org/tiny", on_progress=lambda progress: progress.files_done == 5 and job.cancel())  # type: ignore[func-returns-value]
    with pytest.raises(DownloadCancelledError):
        job.run()
    assert not hub.released.is_set()


def test_cancelled_before_it_begins_nothing_is_fetched(hub: Hub, model: Repository) -> None:
    job = Download("org/tiny")
    job.cancel()
    with pytest.raises(DownloadCancelledError):
        job.run()
    assert not hub.served


def test_a_killed_download_is_taken_up(hub: Hub, model: Repository, repository: Path) -> None:
    hub.hold(ONE, 150_000)
    process = subprocess.Popen(
        [sys.executable, "-c", "from core.models.download import Download; Download('org/tiny').run()"],
        cwd=ROOT,
        env={**os.environ, **environment(hub)},
    )
    try:
        until(lambda: any((blobs.file_size(path) or 0) > 140_000 for path in repository.glob("blobs/*.incomplete")))
        until(lambda: len(list(repository.glob("snapshots/*/*"))) == 5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (partial,) = repository.glob("blobs/*.incomplete")
    here = partial.stat().st_size
    hub.abandons_held = True
    hub.released.set()
    hub.hold(ONE, len(FILES[ONE]))
    hub.served.clear()
    assert contents(Download("org/tiny").run()) == FILES
    assert dict(hub.served) == {ONE: len(FILES[ONE]) - here}


def test_damage_on_the_way_is_noticed_and_thrown_away(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = hub._send_file

    def spoil(to: object, name: str, content: bytes, *rest: object) -> None:
        send(to, name, content.replace(b"llama", b"LLAMA"), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(hub, "_send_file", spoil)
    with pytest.raises(SftuiError, match="arrived damaged"):
        Download("org/tiny").run()


def test_damage_on_the_disk_is_mended(hub: Hub, model: Repository, repository: Path) -> None:
    Download("org/tiny").run()
    cut = repository / "blobs" / git_digest(FILES["tokenizer.json"])
    cut.write_bytes(b"{}")
    garbage = repository / "blobs" / f"{cut.name}.incomplete"
    garbage.write_bytes(b"x" * 20_000)
    hub.served.clear()
    assert contents(Download("org/tiny").run()) == FILES
    assert hub.served == {"tokenizer.json": len(FILES["tokenizer.json"])}
    assert not garbage.exists()


def test_more_than_was_promised_is_not_taken(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    send = hub._send_file
    monkeypatch.setattr(
        hub, "_send_file", lambda to, name, content, *rest: send(to, name, content + b"x" * CHUNK, *rest)
    )
    with pytest.raises(SftuiError, match="cannot be understood"):
        Download("org/tiny").run()


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: Hub, model: Repository, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = int(TOTAL * 1.05) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(SftuiError) as caught:
        Download("org/tiny").run()
    assert caught.value.title == "Not enough room on the disk"
    assert str(repository.parent) in caught.value.message
    assert caught.value.message.count(" kB") == 2
    assert not hub.served
    free += 1
    Download("org/tiny").run()
    free = 0
    Download("org/tiny").run()


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, model: Repository, repository: Path) -> None:
    repository.parent.mkdir(parents=True)
    repository.touch()
    with pytest.raises(SftuiError, match=r"cannot be kept.*models--org--tiny"):
        Download("org/tiny").run()


def test_what_is_fetched_elsewhere_is_waited_for(hub: Hub, model: Repository, repository: Path) -> None:
    digest = git_digest(FILES["config.json"])
    lock = repository.parent / ".locks" / repository.name / f"{digest}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        job = threading.Thread(target=Download("org/tiny").run)
        job.start()
        until(lambda: len(list(repository.glob("snapshots/*/*"))) == 5)
        (repository / "blobs" / digest).write_bytes(FILES["config.json"])
    job.join(30)
    assert (repository / "refs" / "main").exists()
    assert "config.json" not in hub.served


def test_waiting_for_another_can_be_cancelled(hub: Hub, model: Repository, repository: Path) -> None:
    lock = repository.parent / ".locks" / repository.name / f"{git_digest(FILES['config.json'])}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        job = Download("org/tiny", on_progress=lambda progress: progress.files_done == 5 and job.cancel())  # type: ignore[func-returns-value]
        with pytest.raises(DownloadCancelledError):
            job.run()


def test_two_files_of_one_content_are_fetched_once(hub: Hub, repository: Path) -> None:
    hub.add("org/tiny", {**FILES, "vocab.json": FILES["tokenizer.json"]})
    assert len(contents(Download("org/tiny").run())) == len(FILES) + 1
    assert sum(hub.served.values()) == TOTAL


@pytest.mark.parametrize(("login", "status"), [("", 401), (CANARY, 403)])
def test_a_gated_model_says_where_its_terms_are(
    hub: Hub, model: Repository, login: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", login)
    model.facts["gated"], model.granted = "manual", False
    with pytest.raises(SftuiError) as caught:
        Download("org/tiny").run()
    assert caught.value.title == "The model is gated"
    assert f"{hub.url}/org/tiny" in caught.value.hint
    assert not hub.served
    model.granted = True
    if login:
        Download("org/tiny").run()


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: Hub, model: Repository, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    seen: list[DownloadProgress] = []
    job = Download("org/tiny", on_progress=seen.append)
    with caplog.at_level(0):
        job.run()
        assert {request.authorization for request in hub.requests if request.at_storage} == {None}
        assert {request.authorization for request in hub.requests if not request.at_storage} == {f"Bearer {CANARY}"}
        hub.refuse(403, part="config.json")
        shutil.rmtree(repository)
        with pytest.raises(SftuiError) as caught:
            Download("org/tiny").run()
    for text in (caplog.text, repr(job), repr(vars(job)), repr(seen), told(caught.value)):
        assert CANARY not in text
    assert not [
        path for path in repository.parent.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def test_what_cannot_be_trained_is_not_downloaded(hub: Hub) -> None:
    hub.add("org/tiny", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(SftuiError, match="pickle"):
        Download("org/tiny").run()
    assert not hub.served


def test_a_file_beyond_what_http_gives_is_told(hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LARGEST_FILE", 250_000)
    with pytest.raises(SftuiError, match="hf download"):
        Download("org/tiny").run()


def test_a_file_system_without_links_gets_the_files_themselves(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)
    folder = Download("org/tiny").run()
    assert contents(folder) == FILES
    assert not any(path.is_symlink() for path in folder.iterdir())
    hub.served.clear()
    Download("org/tiny").run()
    assert not hub.served
