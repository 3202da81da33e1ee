"""A checkpoint counts when every file is on the disk, and only then."""

import hashlib
import json
from pathlib import Path

import pytest

from core.runs.checkpoints import MANIFEST, commit, committed_checkpoints, is_committed, step_of
from core.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def checkpoint(run: RunFolder, step: int) -> Path:
    folder = run.checkpoints / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * step)
    (folder / "inner" / "optimizer.pt").write_bytes(b"state")
    (folder / "empty").touch()
    return folder


def test_the_manifest_names_every_file_with_its_size_and_hash(run: RunFolder) -> None:
    folder = checkpoint(run, 3)
    assert not is_committed(folder)
    assert commit(folder) == 7 * 3 + 5
    assert is_committed(folder)
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert set(files) == {"adapter_model.safetensors", "inner/optimizer.pt", "empty"}
    assert files["inner/optimizer.pt"] == {"size": 5, "sha256": hashlib.sha256(b"state").hexdigest()}


def test_committing_again_covers_what_has_changed(run: RunFolder) -> None:
    folder = checkpoint(run, 3)
    commit(folder)
    (folder / "inner" / "optimizer.pt").write_bytes(b"longer state")
    assert not is_committed(folder)
    assert commit(folder) == 7 * 3 + 12
    assert is_committed(folder)


@pytest.mark.parametrize("damage", ["lost", "cut", "grown"])
def test_a_checkpoint_that_lost_something_does_not_count(run: RunFolder, damage: str) -> None:
    folder = checkpoint(run, 3)
    commit(folder)
    weights = folder / "adapter_model.safetensors"
    if damage == "lost":
        weights.unlink()
    else:
        weights.write_bytes(b"w" * (5 if damage == "cut" else 50))
    assert not is_committed(folder)


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "null", "{}", '{"files": {}}', '{"files": []}', '{"files": null}', '{"files": {"empty": 0}}'],
)
def test_a_manifest_that_says_nothing_does_not_count(run: RunFolder, manifest: str) -> None:
    folder = checkpoint(run, 3)
    (folder / MANIFEST).write_text(manifest)
    assert not is_committed(folder)


def test_whole_checkpoints_are_listed_by_step(run: RunFolder) -> None:
    assert committed_checkpoints(run) == ()
    steps = {step: checkpoint(run, step) for step in (100, 20, 3)}
    for step in (100, 3):
        commit(steps[step])
    (run.checkpoints / "checkpoint-7.partial").mkdir()
    assert committed_checkpoints(run) == (steps[3], steps[100])


@pytest.mark.parametrize(
    ("name", "step"), [("checkpoint-12", 12), ("checkpoint-", -1), ("checkpoint-²", -1), ("x", -1)]
)
def test_the_step_is_in_the_name(name: str, step: int) -> None:
    assert step_of(Path("checkpoints") / name) == step
