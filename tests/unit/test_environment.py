"""A run that goes on elsewhere, with other libraries or other options, is told so."""

import json
import platform
from importlib import metadata
from pathlib import Path

import pytest

from core.runs.folder import RunFolder
from core.training.environment import put_down


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run.yaml").write_text("learning_rate: 0.001\nsftui:\n  device: cpu\n")
    return RunFolder(tmp_path)


def test_a_run_that_goes_on_as_it_was_is_told_nothing(folder: RunFolder) -> None:
    assert put_down(folder) == []
    assert put_down(folder) == []
    written = json.loads(folder.environment_file.read_text())
    assert written["packages"]["torch"] == metadata.version("torch")
    assert written["spec"] == {"learning_rate": 0.001, "sftui.device": "cpu"}


def test_other_versions_are_told_with_what_they_mean(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_down(folder)
    version = metadata.version
    for package, meaning in (("torch", "may come out otherwise"), ("datasets", "is not touched")):
        monkeypatch.setattr(metadata, "version", lambda name, new=package: "99.0" if name == new else version(name))
        ((title, message),) = put_down(folder)
        assert title == "Other versions than before"
        assert f"{package}: {version(package)} → 99.0" in message
        assert meaning in message
        monkeypatch.setattr(metadata, "version", version)
        put_down(folder)


def test_another_machine_and_other_options_are_told(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_down(folder)
    here = platform.node()
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    (folder.path / "run.yaml").write_text("learning_rate: 0.002\nseed: 7\nsftui:\n  device: cpu\n")
    machine, options = put_down(folder)
    assert machine == (
        "Another machine than before",
        f"{here} before, elsewhere now: another processor or GPU rounds otherwise.",
    )
    assert options[1].startswith("learning_rate: 0.001 → 0.002, seed: None → 7. ")


def test_a_file_that_cannot_be_read_is_written_anew(folder: RunFolder) -> None:
    folder.environment_file.write_text("[")
    assert put_down(folder) == []
    folder.environment_file.write_text("[]")
    assert put_down(folder) == []
    assert json.loads(folder.environment_file.read_text())["host"] == platform.node()
