"""Models that need no download: the starter, the Hugging Face cache, one's own folders."""

import json
import os
import shutil
from pathlib import Path

import pytest

from core import starter
from core.models.catalog import local_models


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
