"""Models that bring their own Python: what would run is named, and runs only at the revision that was allowed."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.models.architecture import detect
from core.models.checkpoint_files import read_config
from core.models.remote_code import CodeNotAllowedError, allow, find_remote_code, is_allowed
from core.paths import config_home

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyForCausalLM"}


def write_model(folder: Path, auto_map: Any = CODE, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "mymodel", "n_layer": 3, "hidden_size": 64, "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config | more))
    (folder / "configuration_my.py").write_text("raise SystemExit('this must never run')\n")
    (folder / "modeling_my.py").write_text("from .layers import Layer\nfrom . import extra\nimport torch\n")
    (folder / "layers.py").write_text("from .modeling_my import Again\n")
    return folder


def test_the_files_that_would_run_are_named_with_those_that_they_import(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokens.Slow", null]}}')
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    assert remote.files == ("configuration_my.py", "extra.py", "layers.py", "modeling_my.py", "tokens.py")
    assert remote.missing == ("extra.py", "tokens.py")
    assert remote.repository == str(tmp_path)


def test_a_model_without_code_has_none() -> None:
    assert find_remote_code(Path("/nowhere"), {"model_type": "llama"}) is None


def test_unknown_code_is_refused_with_its_files_and_the_way_to_allow_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models--org--my" / "snapshots" / COMMIT)
    with pytest.raises(CodeNotAllowedError) as refusal:
        detect(folder)
    told = refusal.value
    assert "modeling_my.py" in told.message
    assert f"org/my at {COMMIT}" in told.message
    assert json.dumps({"org/my": COMMIT}) in told.hint
    assert str(config_home() / "allowed_code.json") in told.hint
    assert (told.remote.repository, told.remote.revision) == ("org/my", COMMIT)


def test_allowed_code_makes_a_model_that_says_whose_code_it_needs(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models--org--my" / "snapshots" / COMMIT)
    (folder / "extra.py").touch()
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    assert not is_allowed(remote)
    allow(remote)
    assert is_allowed(remote)
    found = detect(folder)
    assert (found.auto_class, found.vision, found.remote_code) == ("AutoModelForCausalLM", False, remote)
    assert (found.layers, found.hidden_size) == (3, 64)
    assert "modeling_my.MyForCausalLM" in found.reason
    other = write_model(tmp_path / "models--org--my" / "snapshots" / COMMIT[::-1])
    with pytest.raises(CodeNotAllowedError):
        detect(other)


def test_in_a_folder_the_permission_ends_when_a_file_changes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    (folder / "extra.py").touch()
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    allow(remote)
    assert detect(folder).remote_code == remote
    (folder / "layers.py").write_text("import os\n")
    with pytest.raises(CodeNotAllowedError):
        detect(folder)


def test_the_list_keeps_one_revision_of_each_repository(tmp_path: Path) -> None:
    for name, commit in (("a", COMMIT), ("b", COMMIT), ("a", COMMIT[::-1])):
        folder = write_model(tmp_path / f"models--org--{name}" / "snapshots" / commit)
        remote = find_remote_code(folder, read_config(folder))
        assert remote is not None
        allow(remote)
    kept = json.loads((config_home() / "allowed_code.json").read_text())
    assert kept == {"org/a": COMMIT[::-1], "org/b": COMMIT}


@pytest.mark.parametrize("content", ["[]", "{", "\x80"])
def test_a_broken_list_allows_nothing_and_is_not_overwritten(content: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    config_home().mkdir(parents=True)
    (config_home() / "allowed_code.json").write_bytes(content.encode("latin-1"))
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    for attempt in (lambda: allow(remote), lambda: is_allowed(remote), lambda: detect(folder)):
        with pytest.raises(SftuiError, match="list of allowed code"):
            attempt()
    assert (config_home() / "allowed_code.json").read_bytes() == content.encode("latin-1")


def test_missing_code_is_said_even_when_it_is_allowed(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    allow(remote)
    with pytest.raises(SftuiError, match=r"extra\.py"):
        detect(folder)


def test_code_from_yet_another_repository_cannot_be_allowed(tmp_path: Path) -> None:
    folder = write_model(tmp_path, {"AutoModelForCausalLM": "evil/code--modeling.Model"})
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    assert remote.files == ("evil/code: modeling.py",)
    allow(remote)
    with pytest.raises(CodeNotAllowedError, match="evil/code"):
        detect(folder)


@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoModelForCausalLM": "../../etc/passwd"},
        {"AutoModelForCausalLM": "a.b.C"},
        {"AutoModelForCausalLM": 3},
        {"AutoModelForCausalLM": {"a": "b"}},
        "modeling",
        [["a.B"], {}],
    ],
)
def test_code_that_cannot_be_followed_is_an_error_in_words(auto_map: Any, tmp_path: Path) -> None:
    with pytest.raises(SftuiError, match="cannot be found"):
        detect(write_model(tmp_path, auto_map))


@pytest.mark.parametrize(
    ("auto_map", "auto_class"),
    [
        ({"AutoModelForImageTextToText": "modeling_my.A"}, "AutoModelForImageTextToText"),
        ({"AutoModel": "modeling_my.A", "AutoModelForCausalLM": "modeling_my.B"}, "AutoModelForCausalLM"),
        ({"AutoModel": "modeling_my.A"}, None),
        ("modeling_my.A", None),
    ],
)
def test_the_auto_class_is_the_one_that_the_code_offers(auto_map: Any, auto_class: str | None, tmp_path: Path) -> None:
    folder = write_model(tmp_path, auto_map)
    (folder / "extra.py").touch()
    remote = find_remote_code(folder, read_config(folder))
    assert remote is not None
    allow(remote)
    if auto_class is None:
        with pytest.raises(SftuiError, match="no class that generates text"):
            detect(folder)
    else:
        assert detect(folder).auto_class == auto_class
