"""Which files a dataset's entry stands for: a file, a folder, a pattern, and configurations and splits as `datasets`
sees them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.data.request import CheckRequest, Source, check_held_out_request, check_request, training_request
from core.data.sources import find_files, is_on_hub, label_of
from core.errors import SftuiError
from core.spec.build import build_spec


def made(folder: Path, *names: str, card: str = "") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"text": "a"}\n')
    if card:
        (folder / "README.md").write_text(f"---\n{card}---\n# A dataset\n")
    return folder


def found(source: Source, folder: Path | None = None) -> list[str]:
    (files,) = find_files(CheckRequest((source,)), lambda _done, _total: None, lambda: False)
    return [file.relative_to(folder).as_posix() if folder else str(file) for file in files.files]


def in_folder(folder: Path, **more: Any) -> list[str]:
    return found(Source(str(folder), **more), folder)


def test_a_file_is_itself_and_a_pattern_is_what_it_fits_in_order(tmp_path: Path) -> None:
    made(tmp_path, "b.jsonl", "a.jsonl", "c.csv", "deep/er/d.jsonl", ".hidden.jsonl")
    assert found(Source(str(tmp_path / "a.jsonl"))) == [str(tmp_path / "a.jsonl")]
    assert found(Source(f"{tmp_path}/*.jsonl"), tmp_path) == ["a.jsonl", "b.jsonl"]
    assert found(Source(f"{tmp_path}/**/*.jsonl"), tmp_path) == ["a.jsonl", "b.jsonl", "deep/er/d.jsonl"]
    assert found(Source(f"{tmp_path}/[bc].*"), tmp_path) == ["b.jsonl", "c.csv"]
    assert found(Source("json", data_files=(str(tmp_path / "b.jsonl"), f"{tmp_path}/a*")), tmp_path) == [
        "b.jsonl",
        "a.jsonl",
    ]
    assert found(Source("json", data_dir=str(tmp_path / "deep")), tmp_path) == ["deep/er/d.jsonl"]


def test_a_home_and_the_folder_one_is_in_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "data/a.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "data")
    assert found(Source("~/data/a.jsonl")) == [str(tmp_path / "data/a.jsonl")]
    assert found(Source("a.jsonl")) == ["a.jsonl"]
    assert found(Source("*.jsonl")) == ["a.jsonl"]


def test_a_folder_is_its_training_rows_without_notes_and_hidden_files(tmp_path: Path) -> None:
    made(tmp_path, "a.jsonl", "more/b.jsonl.gz", "c.PARQUET", "notes.txt", "dataset_info.json", ".git/x.json", "x.png")
    assert in_folder(tmp_path) == ["a.jsonl", "c.PARQUET", "more/b.jsonl.gz"]
    assert in_folder(tmp_path, data_dir="more") == ["more/b.jsonl.gz"]
    assert in_folder(tmp_path, data_files=("a.jsonl",)) == ["a.jsonl"]
    texts = made(tmp_path / "texts", "a.txt", "b.txt")
    assert in_folder(texts) == ["a.txt", "b.txt"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    made(tmp_path, "data/train.jsonl", "data/test.jsonl", "empty/x.png", "a.jsonl")
    for source, words in [
        (Source(str(tmp_path / "no.jsonl")), "does not exist"),
        (Source(f"{tmp_path}/no*.jsonl"), "No file matches"),
        (Source("data/no.jsonl"), "does not exist"),
        (Source("json", data_files=("no.jsonl",)), "does not exist"),
        (Source(str(tmp_path / "data"), data_files=("no.jsonl",)), "does not exist"),
        (Source(str(tmp_path / "empty")), "has no file that ends in .jsonl"),
        (Source(str(tmp_path / "data"), split="dev"), "there are train, test"),
        (Source(str(tmp_path / "data"), data_dir="no"), "has nothing in no"),
        (Source(str(tmp_path / "data"), name="other"), "no configuration “other”"),
        (Source(str(tmp_path / "a.jsonl"), split="test"), "a file has none"),
    ]:
        with pytest.raises(SftuiError, match=words):
            found(source)


CONFIG = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/*\n  - split: held\n    path: x.jsonl\n"
DEFAULT = (
    "configs:\n- {config_name: one, data_files: a.jsonl}\n- {config_name: two, data_files: b.jsonl, default: true}\n"
)
LAYOUTS: dict[str, tuple[tuple[str, ...], str]] = {
    "by name": (("train.jsonl", "test.jsonl", "dev.jsonl"), ""),
    "by parts of names": (("my-train-0.jsonl", "my-train-1.jsonl", "my_test.jsonl"), ""),
    "by folders": (("train/a.jsonl", "train/test_cases.jsonl", "test/b.jsonl"), ""),
    "no split": (("one.jsonl", "two.jsonl"), ""),
    "shards": (
        ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"),
        "",
    ),
    "a word within a word": (("trained.jsonl", "contest.jsonl"), ""),
    "one pattern": (("a/x.jsonl", "b/y.jsonl"), "configs:\n- config_name: default\n  data_files: a/*\n"),
    "a list": (("a.jsonl", "b.jsonl", "c.jsonl"), "configs:\n- config_name: x\n  data_files: [c.jsonl, a.jsonl]\n"),
    "splits": (("en/a.jsonl", "x.jsonl"), f"configs:\n{CONFIG.format('en')}"),
    "a default": (("a.jsonl", "b.jsonl"), DEFAULT),
    "folders of configurations": (
        ("one/train.jsonl", "two/train.jsonl"),
        "configs:\n- config_name: default\n  data_dir: two\n",
    ),
    "deep patterns": (("a/b/c.jsonl", "a/d.jsonl"), "configs:\n- config_name: default\n  data_files: a/**\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_configurations_and_splits_are_those_that_datasets_finds(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset_builder

    names, card = LAYOUTS[layout]
    made(tmp_path, *names, card=card)
    theirs = load_dataset_builder(str(tmp_path), cache_dir=str(tmp_path / "cache")).config.data_files
    for split, files in theirs.items():
        ours = in_folder(tmp_path, split=str(split))
        assert sorted(ours) == sorted(Path(file).relative_to(tmp_path).as_posix() for file in files), split


def test_a_configuration_is_named_where_there_are_several(tmp_path: Path) -> None:
    made(tmp_path, "en/a.jsonl", "de/b.jsonl", "x.jsonl", card=f"configs:\n{CONFIG.format('en')}{CONFIG.format('de')}")
    assert in_folder(tmp_path, name="de") == ["de/b.jsonl"]
    assert in_folder(tmp_path, name="en", split="held") == ["x.jsonl"]
    for more, words in [
        ({}, "several, and none is the default: en, de"),
        ({"name": "fr"}, "no configuration “fr”; there are en, de"),
        ({"name": "en", "split": "test"}, "no split “test”; there are train, held"),
    ]:
        with pytest.raises(SftuiError, match=words):
            in_folder(tmp_path, **more)


@pytest.mark.parametrize("card", ["configs: 5\n", "configs:\n- 3\n- {a: b}\n", "a: &a [*a]\n", "a: [\n", "[1]\n"])
def test_a_card_that_says_nonsense_says_nothing(tmp_path: Path, card: str) -> None:
    assert in_folder(made(tmp_path, "a.jsonl", card=card)) == ["a.jsonl"]


def test_what_looks_like_an_id_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(tmp_path, "data/rows"))
    assert is_on_hub(Source("org/name"))
    assert is_on_hub(Source("org/name-1.5_x"))
    for path in ("data/rows", "data/missing.jsonl", "data/missing.csv.gz", "/org/name", "name", "a/b/c", "../x", "~/x"):
        assert not is_on_hub(Source(path)), path


def test_a_spec_is_asked_for_all_of_it() -> None:
    values = {
        "model_name_or_path": "m",
        "datasets": [
            "a.jsonl",
            {"path": "org/x", "name": "en", "split": "test", "columns": ["text"], "fraction": 0.5},
            {"path": "json", "data_files": {"train": ["b", "c"], "test": "d"}, "split": "test"},
        ],
        "sftui": {"columns": {"user": "q", "assistant": "a"}, "held_out_file": "held.jsonl"},
    }
    request = check_request(values)
    assert request.sources == (
        Source("a.jsonl"),
        Source("org/x", name="en", split="test", columns=("text",), fraction=0.5),
        Source("json", data_files=("d",), split="test"),
    )
    assert request.columns == (("user", "q"), ("assistant", "a"))
    assert hash(request) == hash(CheckRequest.from_json(request.to_json()))
    assert CheckRequest.from_json(request.to_json()) == request
    held_out = check_held_out_request(values)
    assert held_out == CheckRequest((Source("held.jsonl"),), request.columns)
    assert check_held_out_request({"sftui": {"held_out_file": " "}}) is None
    half_typed = check_request(
        {"datasets": [5, {"pth": "x"}, "a.jsonl"], "sftui": {"columns": {"no slot": "x", "user": "q"}}}
    )
    assert half_typed == CheckRequest((Source("a.jsonl"),), (("user", "q"),))
    datasets = [replace(source, fraction=None) for source in request.sources]
    spec = build_spec({**values, "datasets": [{"path": source.path} for source in datasets]})
    assert [source.path for source in training_request(spec).sources] == ["a.jsonl", "org/x", "json"]


def test_a_source_is_called_as_it_was_named() -> None:
    assert label_of(Source("a.jsonl")) == "a.jsonl"
    assert label_of(Source("org/x", name="en", split="test")) == "org/x en (test)"
    assert label_of(Source("json", data_files=("a", "b", "c", "d"))) == "a, b, c …"
