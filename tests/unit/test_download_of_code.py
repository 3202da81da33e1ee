"""Models of the hub that bring their own Python: none of it is fetched before the user has allowed that revision."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.models import blobs, download
from core.models.architecture import detect
from core.models.checkpoint_files import read_config
from core.models.download import Download
from core.models.remote_code import CodeNotAllowedError, CodeNotHereError, RemoteCode, allow, find_remote_code
from tests.hub_server import Hub, Repository, running_hub
from tests.unit.test_download import ONE, weights

CODE = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
PYTHON = {
    "configuration_own.py": b"class OwnConfig: ...\n",
    "modeling_own.py": b"from .layers import Layer\nfrom .configuration_own import OwnConfig\n",
    "layers.py": b"from .kernels import fast\n",
    "kernels.py": b"fast = True\n",
}
OTHERS = {"setup.py": b"import os\n", "train.py": b"import os\n", "tools/layers.py": b"import os\n"}


def files(auto_map: object = CODE, **more: object) -> dict[str, bytes]:
    """A repository of a type that transformers does not know, with Python that loading it needs, and other Python."""
    config = {"model_type": "own_type", "hidden_size": 64, "num_hidden_layers": 2, "auto_map": auto_map, **more}
    named = {"config.json": json.dumps(config).encode(), "tokenizer.json": b"{}"}
    return {**named, "model.safetensors": weights("a", 1000), **PYTHON, **OTHERS}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "PAUSES", (0.0,))
    monkeypatch.setattr(download, "_REPORT_SECONDS", 0.01)


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(own_home, monkeypatch) as running:
        yield running


@pytest.fixture
def model(hub: Hub) -> Repository:
    return hub.add("org/own", files())


def asked_code(hub: Hub) -> set[str]:
    """The Python files that somebody has asked for."""
    return {request.path.rsplit("/", 1)[-1] for request in hub.asked(".py")}


def code_of(folder: Path) -> RemoteCode:
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    return remote


def test_without_permission_the_model_comes_without_its_code_and_is_refused_in_words(
    hub: Hub, model: Repository
) -> None:
    folder = Download("org/own").run()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not asked_code(hub)
    with pytest.raises(CodeNotAllowedError) as refusal:
        detect(folder)
    told = refusal.value
    assert "configuration_own.py, modeling_own.py of org/own" in told.message
    assert f"at {model.refs['main']}" in told.message
    assert f"{hub.url}/org/own/tree/{model.refs['main']}" in told.hint, "where they can be read first"
    assert "ctrl+o" in told.hint
    assert told.remote.fetchable
    assert told.remote.allowable


def test_after_the_permission_just_what_the_model_needs_is_fetched(hub: Hub, model: Repository) -> None:
    folder = Download("org/own").run()
    allow(code_of(folder))
    with pytest.raises(CodeNotHereError) as missing:
        detect(folder)
    command = f"hf download org/own configuration_own.py modeling_own.py --revision {model.refs['main']}"
    assert command in missing.value.hint
    assert Download("org/own", model.refs["main"]).run() == folder
    assert asked_code(hub) == set(PYTHON), "with what is imported over two steps, and nothing else"
    assert {name: (folder / name).read_bytes() for name in PYTHON} == PYTHON
    assert hub.served["model.safetensors"] == len(files()["model.safetensors"]), "the weights came once"
    found = detect(folder)
    assert found.auto_class == "AutoModelForCausalLM"
    assert found.remote_code is not None
    assert found.remote_code.files == tuple(sorted(PYTHON))


def test_the_permission_is_for_one_commit_and_no_other(hub: Hub, model: Repository) -> None:
    allow(code_of(Download("org/own").run()))
    model.commit({**files(), "modeling_own.py": b"import evil\n"})
    folder = Download("org/own").run()
    assert not asked_code(hub)
    with pytest.raises(CodeNotAllowedError):
        detect(folder)


def test_the_permission_is_for_one_repository_and_no_other(hub: Hub, model: Repository) -> None:
    hub.add("evil/own", files())
    allow(code_of(Download("org/own").run()))
    Download("evil/own").run()
    assert not asked_code(hub)


@pytest.mark.parametrize("auto_map", [{"AutoModelForCausalLM": "evil/code--modeling.Model"}, {"AutoModel": "../x"}])
def test_code_of_another_repository_or_of_no_file_is_never_fetched(hub: Hub, auto_map: object) -> None:
    model = hub.add("org/own", files(auto_map))
    hub.add("evil/code", files())
    allow(RemoteCode((), (), "org/own", model.refs["main"]))
    allow(RemoteCode((), (), "evil/code", hub.repositories["evil/code"].refs["main"]))
    folder = Download("org/own").run()
    assert not asked_code(hub)
    with pytest.raises(SftuiError) as refusal:
        detect(folder)
    if isinstance(refusal.value, CodeNotAllowedError):
        assert "evil/code: modeling.py" in refusal.value.message
        assert not refusal.value.remote.allowable


def test_code_that_the_repository_does_not_have_is_said(hub: Hub) -> None:
    model = hub.add("org/own", {name: content for name, content in files().items() if name != "layers.py"})
    allow(RemoteCode((), (), "org/own", model.refs["main"]))
    with pytest.raises(CodeNotHereError, match=r"layers\.py"):
        detect(Download("org/own").run())


def test_a_broken_list_of_what_is_allowed_lets_no_code_come(hub: Hub, model: Repository) -> None:
    from core.paths import config_home, write_atomically

    config_home().mkdir(parents=True)
    write_atomically(config_home() / "allowed_code.json", '{"org/own": "' + model.refs["main"])
    Download("org/own").run()
    assert not asked_code(hub)


def test_cancelled_between_the_weights_and_the_code_it_stops(
    hub: Hub, model: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(RemoteCode((), (), "org/own", model.refs["main"]))
    job = Download("org/own")
    bring = job._bring

    def bring_and_cancel(*of: Any) -> None:
        bring(*of)
        job.cancel()

    monkeypatch.setattr(job, "_bring", bring_and_cancel)
    with pytest.raises(blobs.DownloadCancelledError):
        job.run()
    assert not asked_code(hub)


def test_a_shard_named_like_code_is_not_code(hub: Hub) -> None:
    """Names that would leave the folder, or that no import can mean, are not even offered."""
    model = hub.add("org/own", {**files(), "a-b.py": b"", ".hidden.py": b"", ONE: weights("a", 1000)})
    allow(RemoteCode((), (), "org/own", model.refs["main"]))
    Download("org/own").run()
    assert asked_code(hub) == set(PYTHON)
