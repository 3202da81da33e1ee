"""Headers of safetensors, whole and damaged, and where a model lies on this machine."""

import json
import struct
from pathlib import Path

import pytest

from core.errors import SftuiError
from core.models.checkpoint_files import read_tensors, resolve_model_folder
from tests.model_files import LLAMA, write_safetensors


def write_shards(folder: Path) -> None:
    names = list(LLAMA)
    shards = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for shard, held in shards.items():
        write_safetensors(folder / shard, {name: LLAMA[name] for name in held})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert {tensor.name: tensor.shape for tensor in read_tensors(tmp_path)} == LLAMA
    assert sum(tensor.byte_count for tensor in read_tensors(tmp_path)) == 3600


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SftuiError, match=r"1 of 2 weight files are missing: model-00002-of-00002\.safetensors"):
        read_tensors(tmp_path)


def test_a_tensor_that_no_shard_holds_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", {"lm_head.weight": (100, 8)})
    with pytest.raises(SftuiError, match=r"input_layernorm"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": [1]}'])
def test_a_broken_or_escaping_index_is_refused(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SftuiError, match="index of the weights"):
        read_tensors(tmp_path)


def test_a_download_cut_short_says_how_much_is_missing(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", LLAMA, cut=1000)
    with pytest.raises(SftuiError, match="1,000 bytes are missing"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (struct.pack("<Q", 2**62), "claims"),
        (struct.pack("<Q", 1000) + b"{}", "longer than the file"),
        (struct.pack("<Q", 2) + b"[]", "not readable"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "not readable"),
        (b'x' * 8, "claims"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_said_and_not_followed(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(SftuiError, match=words):
        read_tensors(tmp_path)


def test_a_shape_that_contradicts_its_bytes_is_damage(tmp_path: Path) -> None:
    raw = json.dumps({"a.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 10]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 10)
    with pytest.raises(SftuiError, match="does not match its shape"):
        read_tensors(tmp_path)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(SftuiError) as refusal:
        read_tensors(tmp_path)
    assert "pickle" in refusal.value.message
    assert "save_pretrained" in refusal.value.hint


def test_a_hub_id_is_found_in_the_cache_by_branch_and_by_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs" / "pr").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "pr" / "1").write_text(commit)
    for revision in (None, "main", "pr/1", commit):
        assert resolve_model_folder("org/tiny", revision) == repository / "snapshots" / commit
    for revision in ("v9", "../../..", "fedcba"):
        with pytest.raises(SftuiError, match="but not its revision"):
            resolve_model_folder("org/tiny", revision)


def test_the_cache_lies_where_its_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = tmp_path / "hub" / "models--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert resolve_model_folder("gpt2", "abc") == snapshot


def test_a_model_that_is_nowhere_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SftuiError, match="hf download org/none"):
        resolve_model_folder("org/none", None)
    for path in ("/no/such/folder", "", "../nothing", "a/b/c", "org/\x1b[1m"):
        with pytest.raises(SftuiError, match="is not a folder"):
            resolve_model_folder(path, None)
    assert resolve_model_folder(str(tmp_path), None) == tmp_path
