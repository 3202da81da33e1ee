"""Models that need no download: the starter, the Hugging Face cache, one's own folders."""

import json
import os
import shutil
from pathlib import Path

import pytest

from core import starter
from core.models.catalog import LocalModel, local_models
from core.models.checkpoint_files import read_tensors


def copy(folder: Path) -> Path:
    """A real small model in this folder."""
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(starter.MODEL / name, folder / name)
    return folder


def cached(cache: Path, name: str, commit: str = "abc123") -> Path:
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return copy(repository / "snapshots" / commit)


@pytest.fixture
def cache() -> Path:
    return Path(os.environ["HF_HUB_CACHE"])


def test_the_starter_is_always_there() -> None:
    (model,) = local_models()
    assert (model.name, model.path, model.source) == (str(starter.MODEL), starter.MODEL, "starter")
    assert (model.model_type, model.complete, model.problem) == ("llama", True, None)
    assert 0 < model.size_bytes <= (starter.MODEL / "model.safetensors").stat().st_size


def test_the_cache_is_listed_by_id(cache: Path) -> None:
    for name in ("org/zebra", "org/ant", "gpt2"):
        cached(cache, name)
    (cache / "datasets--org--rows").mkdir()
    (cache / "models--").mkdir()
    (cache / "models--org--half").mkdir()
    (cache / "version.txt").touch()
    found = [model for model in local_models() if model.source == "cache"]
    assert [model.name for model in found] == ["gpt2", "org/ant", "org/zebra"]
    assert all(model.complete and model.model_type == "llama" for model in found)
    assert found[1].path == cache / "models--org--ant" / "snapshots" / "abc123"


def test_a_folder_is_a_model_or_holds_models(tmp_path: Path) -> None:
    one, two = copy(tmp_path / "many" / "one"), copy(tmp_path / "many" / "two")
    (tmp_path / "many" / "notes").mkdir()
    (tmp_path / "many" / "file.txt").touch()
    many = [model for model in local_models([tmp_path / "many"]) if model.source == "folder"]
    assert [(model.name, model.path) for model in many] == [(str(one), one), (str(two), two)]
    assert [model.path for model in local_models([one, tmp_path / "nothing"]) if model.source == "folder"] == [one]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", None),
    ],
)
def test_a_broken_model_is_listed_with_what_is_wrong(tmp_path: Path, file: str, content: bytes | None) -> None:
    folder = copy(tmp_path / "model")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    model = local_models([folder])[-1]
    assert (model.path, model.complete, model.size_bytes) == (folder, False, 0)
    assert model.problem


def test_a_config_without_a_type_is_told_as_unknown(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": 5}))
    assert local_models([folder])[-1].model_type is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_is_closed_to_us_hides_no_other(tmp_path: Path) -> None:
    open_one, closed = copy(tmp_path / "many" / "open"), copy(tmp_path / "many" / "closed")
    closed.chmod(0)
    try:
        assert [model.path for model in local_models([tmp_path / "many"])[1:]] == [open_one]
    finally:
        closed.chmod(0o700)


def only(name: str) -> LocalModel:
    (model,) = [model for model in local_models() if model.name == name]
    return model


def sharded(folder: Path) -> Path:
    """A small model whose weights are in two files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    for tensor, shard in shards.items():
        header = json.dumps({tensor: {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]}}).encode()
        (folder / shard).write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    return folder


def test_the_size_is_that_of_the_tensors(tmp_path: Path) -> None:
    for folder in (starter.MODEL, sharded(tmp_path / "sharded")):
        model = local_models([folder])[-1]
        assert (model.complete, model.size_bytes) == (True, sum(tensor.byte_count for tensor in read_tensors(folder)))


@pytest.mark.parametrize("file", ["model-00002-of-00002.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_a_damaged_shard_or_index_is_noticed(tmp_path: Path, file: str, damage: str) -> None:
    folder = sharded(tmp_path / "sharded")
    whole = (folder / file).read_bytes()
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(whole[:-1] if damage == "cut" else b"\xff" * len(whole))
    model = local_models([folder])[-1]
    assert (model.complete, model.size_bytes) == (False, 0)
    assert model.problem


@pytest.mark.parametrize(
    "weight_map", [None, [], {"a": 1}, {"a": ["b"]}, {"a": "../../x.safetensors"}, {"a": "config.json"}]
)
def test_an_index_that_means_nothing_is_noticed(tmp_path: Path, weight_map: object) -> None:
    folder = sharded(tmp_path / "sharded")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert local_models([folder])[-1].problem


def test_when_a_model_was_used_is_when_its_tokenizer_was_read(cache: Path) -> None:
    folder = cached(cache, "org/tiny")
    assert only("org/tiny").last_used is None
    (folder / "tokenizer.json").touch()
    for name, read, written in (("tokenizer.json", 5_000, 3_000), ("model.safetensors", 9_000, 4_000)):
        os.utime(folder / name, (read, written))
    os.utime(folder / "config.json", (9_000, 1_000))
    assert (only("org/tiny").last_used, only("org/tiny").last_modified) == (5_000, 4_000)


def test_the_disk_holds_all_revisions(cache: Path) -> None:
    folder = cached(cache, "org/tiny")
    repository = folder.parents[1]
    blobs = repository / "blobs"
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(f"../../blobs/{name}")
    (blobs / "older").write_bytes(bytes(1000))
    (repository / "snapshots" / "def456").mkdir()
    (repository / "snapshots" / "fed789").mkdir()
    (repository / "refs" / "refs" / "pr").mkdir(parents=True)
    (repository / "refs" / "refs" / "pr" / "1").write_text("def456\n")
    model = only("org/tiny")
    assert model.complete
    assert model.disk_bytes == sum(path.stat().st_size for path in blobs.iterdir()) > model.size_bytes + 1000
    assert model.revisions == ("fed789", "main", "refs/pr/1")


def test_a_model_whose_content_was_deleted_is_not_complete(cache: Path) -> None:
    folder = cached(cache, "org/tiny")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")
    assert not only("org/tiny").complete


def test_a_broken_download_says_how_much_is_here(cache: Path) -> None:
    folder = cached(cache, "org/tiny")
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    (blobs / "0123.4567.incomplete").write_bytes(bytes(12_000))
    assert only("org/tiny").complete, "what is here is whole: the rest belongs to something else"
    (folder / "model.safetensors").unlink()
    model = only("org/tiny")
    assert not model.complete
    assert "12.0 kB" in (model.problem or "")


@pytest.mark.parametrize("with_config", [True, False])
def test_a_first_download_that_broke_is_listed(cache: Path, with_config: bool) -> None:
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0123.incomplete").write_bytes(bytes(3_000))
    if with_config:
        snapshot = cache / "models--org--tiny" / "snapshots" / "abc123"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text('{"model_type": "llama"}')
    model = only("org/tiny")
    assert (model.complete, model.model_type) == (False, "llama" if with_config else None)
    assert "3.00 kB" in (model.problem or "")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../../../etc", b"0" * 40])
def test_a_name_that_leads_nowhere_hides_no_other_model(cache: Path, content: bytes) -> None:
    cached(cache, "org/whole")
    reference = cached(cache, "org/broken").parents[1] / "refs" / "main"
    reference.write_bytes(content)
    assert only("org/whole").complete
    broken = only("org/broken")
    assert not broken.complete
    assert "main is not here, only: abc123" in (broken.problem or "")


def test_what_is_no_folder_of_the_cache_hides_no_model(cache: Path) -> None:
    cached(cache, "org/whole")
    (cache / "models--org--file").touch()
    odd = cache / "models--org--odd"
    odd.mkdir()
    for name in ("blobs", "refs", "snapshots"):
        (odd / name).touch()
    loop = cache / "models--org--loop"
    loop.symlink_to(loop)
    assert [model.name for model in local_models()[1:]] == ["org/whole"]
