"""What torch, transformers and jinja would load for a run: pickles, code and templates that try to do more."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from core.data.tokenized_row import RowError
from core.data.tokenizing import RowTokenizer
from core.models.tokenizer import load_tokenizer
from core.runs import events
from core.runs.checkpoints import MANIFEST, commit, find_damage, place_of, staging
from core.runs.folder import RunFolder
from core.runs.launch import runner_environment
from tests.safety.hostile_files import escaping_templates, marking_code, pickled, saved_by_torch
from tests.tiny import write_rows
from tests.training.runs import make_run
from tests.training.test_worker import only, train

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that must not be there at the end."""
    file = tmp_path / "canary"
    yield file
    assert not file.exists(), "something ran"


@pytest.fixture(scope="module")
def stopped(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a checkpoint in its middle, made once."""
    home = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "CACHE", "STATE", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name))
        rows = write_rows(home / "rows.jsonl", 12)
        folder = make_run(tiny_model, rows, save_strategy="steps", save_steps=2, max_steps=4)
        assert only(train(folder), events.RunFinished).step == 4
    shutil.rmtree(place_of(folder, 4))
    return folder.path


def forged(stopped: Path, copy: Path, changed: Mapping[str, bytes | None]) -> RunFolder:
    """A copy of the run whose checkpoint has other files, with a manifest that vouches for them."""
    shutil.copytree(stopped, copy)
    folder = RunFolder(copy)
    place = place_of(folder, 2)
    beside = staging(folder) / place.name
    beside.parent.mkdir(exist_ok=True)
    place.rename(beside)
    (beside / MANIFEST).unlink()
    for name, data in changed.items():
        (beside / name).unlink(missing_ok=True)
        if data is not None:
            (beside / name).write_bytes(data)
    commit(beside, place)
    assert find_damage(place) is None, "a manifest says nothing of who made it"
    return folder


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt"])
@pytest.mark.parametrize("form", [pickled, saved_by_torch])
def test_a_forged_pickle_in_a_checkpoint_does_not_run(
    name: str, form: Callable[[Path], bytes], stopped: Path, tmp_path: Path, canary: Path
) -> None:
    failed = only(train(forged(stopped, tmp_path / "copy", {name: form(canary)})), events.RunFailed)
    assert failed.title == "A file would run code when it is loaded"
    assert not canary.exists()


def test_pickled_adapters_and_arguments_in_a_checkpoint_are_not_loaded(
    stopped: Path, tmp_path: Path, canary: Path
) -> None:
    arguments = {"training_args.bin": pickled(canary), "extra.pkl": pickled(canary)}
    assert only(train(forged(stopped, tmp_path / "one", arguments)), events.RunFinished).step == 4
    adapter = {"adapter_model.safetensors": None, "adapter_model.bin": saved_by_torch(canary)}
    only(train(forged(stopped, tmp_path / "two", adapter)), events.RunFailed)


def test_a_changed_file_is_found_before_anything_is_loaded(stopped: Path, tmp_path: Path, canary: Path) -> None:
    shutil.copytree(stopped, tmp_path / "copy")
    folder = RunFolder(tmp_path / "copy")
    (place_of(folder, 2) / "rng_state.pth").write_bytes(pickled(canary))
    failed = only(train(folder), events.RunFailed)
    assert failed.title == "The checkpoint is damaged"
    assert "rng_state.pth" in failed.message


def test_a_runner_unpickles_nothing_even_for_a_library_that_asks(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for name, value in runner_environment().items():
        monkeypatch.setenv(name, value)
    for number, form in enumerate((pickled, saved_by_torch)):
        file = tmp_path / f"{number}.pt"
        file.write_bytes(form(canary))
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file, weights_only=False)


def copy_of(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "processor_config.json"])
def test_code_that_a_tokenizer_or_a_known_model_brings_stays_unread(
    name: str, tiny_model: Path, tmp_path: Path, canary: Path
) -> None:
    model = copy_of(tiny_model, tmp_path / "model")
    (model / "mine.py").write_text(marking_code(canary))
    told = json.loads((model / name).read_text()) if (model / name).exists() else {}
    mine = {"AutoTokenizer": ["mine.Mine", "mine.Mine"], "AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
    (model / name).write_text(json.dumps({**told, "auto_map": mine, "tokenizer_class": "Mine"}))
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    outcome = train(make_run(model, rows, max_steps=1))[-1]
    assert isinstance(outcome, events.RunFinished | events.RunFailed)
    assert isinstance(outcome, events.RunFinished) or "not foreseen" not in outcome.title, outcome


@pytest.mark.parametrize("what", escaping_templates(Path()))
def test_a_template_gets_nothing_but_the_conversation(
    what: str, tiny_model: Path, tmp_path: Path, canary: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(escaping_templates(canary)[what] + "{% for m in messages %}{{ m.content }}{% endfor %}")
    row = json.loads(json.dumps(ROW))
    tokenizer = load_tokenizer(tiny_model, lambda *_: None, chat_template_path=str(template))
    with pytest.raises(RowError, match=r"The chat template (refuses|fails on) this row"):
        RowTokenizer(tokenizer, "all").tokenize(row)
    assert row == ROW
