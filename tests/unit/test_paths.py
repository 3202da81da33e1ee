"""Files lie where the XDG specification says, and a write is seen whole or not at all."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from core import paths
from core.errors import SftuiError

HOMES = [
    (paths.data_home, "XDG_DATA_HOME", ".local/share/sftui"),
    (paths.config_home, "XDG_CONFIG_HOME", ".config/sftui"),
    (paths.state_home, "XDG_STATE_HOME", ".local/state/sftui"),
    (paths.cache_home, "XDG_CACHE_HOME", ".cache/sftui"),
]


@pytest.mark.parametrize(("home", "variable", "default"), HOMES)
def test_folders_follow_the_environment_at_each_call(
    home: Callable[[], Path], variable: str, default: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    assert home() == tmp_path / default
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert home() == tmp_path / "elsewhere" / "sftui"
    for invalid in ("", "relative/folder"):
        monkeypatch.setenv(variable, invalid)
        assert home() == tmp_path / default


def test_runs_lie_under_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert paths.runs_home() == tmp_path / "sftui" / "runs"


def test_a_file_is_replaced_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "run.yaml"
    target.write_text("old")
    target.chmod(0o644)
    paths.write_atomically(target, "néw\n")
    assert target.read_bytes() == "néw\n".encode()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    paths.write_atomically(target, b"\x00bytes")
    assert target.read_bytes() == b"\x00bytes"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run.yaml"
    target.write_text("old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        paths.write_atomically(target, "new")
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.yaml"]


def test_an_error_reads_as_sentences() -> None:
    error = SftuiError("No such model", "The folder is empty.", hint="Download it again.")
    assert (error.title, error.message, error.hint) == (
        "No such model",
        "The folder is empty.",
        "Download it again.",
    )
    assert str(error) == "No such model: The folder is empty. Download it again."
    assert str(SftuiError(title="A", message="B.")) == "A: B."
