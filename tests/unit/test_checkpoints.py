"""A checkpoint counts when every file is on the disk under its name, and only then."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.runs.checkpoints import (
    MANIFEST,
    checkpoint_to_resume,
    commit,
    committed_checkpoints,
    discard_after,
    find_damage,
    is_committed,
    place_of,
    rotate,
    size_of_last,
    staging,
    step_of,
    sweep,
)
from core.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "a-run")


def written(run: RunFolder, step: int) -> Path:
    """A checkpoint as the trainer leaves it, beside its place."""
    folder = staging(run) / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * step)
    (folder / "inner" / "optimizer.pt").write_bytes(b"state")
    (folder / "empty").touch()
    return folder


def committed(run: RunFolder, step: int) -> Path:
    place = place_of(run, step)
    commit(written(run, step), place)
    return place


def test_the_manifest_names_every_file_with_its_size_and_hash(run: RunFolder) -> None:
    folder, place = written(run, 3), place_of(run, 3)
    assert not is_committed(place)
    assert commit(folder, place) == 7 * 3 + 5
    assert is_committed(place)
    assert not folder.exists()
    files = json.loads((place / MANIFEST).read_text())["files"]
    assert set(files) == {"adapter_model.safetensors", "inner/optimizer.pt", "empty"}
    assert files["inner/optimizer.pt"] == {"size": 5, "sha256": hashlib.sha256(b"state").hexdigest()}
    assert find_damage(place) is None


def test_a_whole_checkpoint_of_the_step_is_kept_and_half_a_one_replaced(run: RunFolder) -> None:
    place = committed(run, 3)
    before = (place / MANIFEST).stat().st_mtime_ns
    again = written(run, 3)
    (again / "empty").write_bytes(b"not so empty")
    assert commit(again, place) == 7 * 3 + 5
    assert (place / MANIFEST).stat().st_mtime_ns == before
    assert not again.exists()
    (place / MANIFEST).unlink()
    commit(written(run, 3), place)
    assert is_committed(place)


@pytest.mark.parametrize("damage", ["lost", "cut", "grown"])
def test_a_checkpoint_that_lost_something_does_not_count(run: RunFolder, damage: str) -> None:
    place = committed(run, 3)
    weights = place / "adapter_model.safetensors"
    if damage == "lost":
        weights.unlink()
    else:
        weights.write_bytes(b"w" * (5 if damage == "cut" else 50))
    assert not is_committed(place)


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "null", "{}", '{"files": {}}', '{"files": []}', '{"files": null}', '{"files": {"empty": 0}}'],
)
def test_a_manifest_that_says_nothing_does_not_count(run: RunFolder, manifest: str) -> None:
    place = committed(run, 3)
    (place / MANIFEST).write_text(manifest)
    assert not is_committed(place)


def test_whole_checkpoints_are_listed_by_step(run: RunFolder) -> None:
    assert committed_checkpoints(run) == ()
    assert size_of_last(run) is None
    places = [committed(run, step) for step in (100, 3)]
    written(run, 20)
    shutil.copytree(places[0], place_of(run, 50))
    (place_of(run, 50) / MANIFEST).unlink()
    assert committed_checkpoints(run) == (places[1], places[0])
    assert size_of_last(run) == 7 * 100 + 5


def test_what_a_killed_runner_left_beside_is_swept_away(run: RunFolder) -> None:
    committed(run, 3)
    written(run, 4)
    sweep(run)
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-3"]
    sweep(run)


def test_the_newest_are_kept_and_the_best(run: RunFolder) -> None:
    places = {step: committed(run, step) for step in (1, 2, 3, 4, 5)}
    assert rotate(run, None, None) == ()
    assert rotate(run, 2, 1) == (places[2], places[3])
    assert committed_checkpoints(run) == (places[1], places[4], places[5])
    assert rotate(run, 2, 1) == ()
    assert rotate(run, 1, 5) == (places[1], places[4])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"w"), "is 1 bytes long instead of 35"),
        (lambda file: file.write_bytes(b"Weights" * 5), "is not as it was written"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_next_good_one_offered(
    run: RunFolder, damage: object, words: str
) -> None:
    assert checkpoint_to_resume(run) is None
    good, worse, bad = (committed(run, step) for step in (3, 4, 5))
    assert checkpoint_to_resume(run) == bad
    assert callable(damage)
    damage(bad / "adapter_model.safetensors")
    (worse / "inner" / "optimizer.pt").write_bytes(b"STATE")
    with pytest.raises(SftuiError) as raised:
        checkpoint_to_resume(run)
    assert raised.value.message == f"{bad}/adapter_model.safetensors {words}."
    assert "sftui resume a-run --from 3" in raised.value.hint
    assert checkpoint_to_resume(run, 3) == good
    assert set(discard_after(run, 3)) == {bad, worse}
    assert checkpoint_to_resume(run) == good


def test_without_any_good_one_a_new_beginning_is_offered(run: RunFolder) -> None:
    bad = committed(run, 5)
    (bad / MANIFEST).write_text("{")
    with pytest.raises(SftuiError, match="cannot be read") as raised:
        checkpoint_to_resume(run)
    assert "sftui resume a-run --from 0" in raised.value.hint
    assert checkpoint_to_resume(run, 0) is None
    with pytest.raises(SftuiError, match="it has 5"):
        checkpoint_to_resume(run, 7)


@pytest.mark.parametrize(
    ("name", "step"), [("checkpoint-12", 12), ("checkpoint-", -1), ("checkpoint-²", -1), ("x", -1)]
)
def test_the_step_is_in_the_name(name: str, step: int) -> None:
    assert step_of(Path("checkpoints") / name) == step
