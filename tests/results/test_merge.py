"""A merged model is what PEFT's own merge gives, for every kind of adapter, and what cannot be merged is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.runs.folder import RunFolder
from tests.families import build_family

SHORT = {"max_steps": 2, "save_strategy": "no", "test_split_size": None, "assistant_only_loss": False}
Train = Callable[..., RunFolder]


def merge(run: RunFolder, target: Path, dtype: Any = None) -> Path:
    """Merge, and return the folder of a model that transformers loads."""
    import torch

    from core.results.loaded import base_request, read_run_spec, result_tokenizer
    from core.results.merging import Merge, merged_files, write_index

    spec = read_run_spec(run)
    request = base_request(spec, "float32", "cpu")
    merged = Merge(request, run.adapter, result_tokenizer(run.adapter, spec, request, lambda *_: None))
    assert merged.changed
    target.mkdir()
    total = 0
    for name, size, write in merged_files(merged, request.folder, dtype or torch.float32):
        write(target / name, lambda _: None)
        total += size
    write_index(merged, request.folder, target, total)
    config = json.loads((request.folder / "config.json").read_text())
    if merged.vocabulary is not None:
        config["vocab_size"] = merged.vocabulary
    (target / "config.json").write_text(json.dumps(config))
    return target


def compare(run: RunFolder, merged: Path) -> float:
    """The largest difference of any weight from what PEFT merges by itself, over a base loaded in float32."""
    import torch
    import transformers
    from peft import PeftModel

    from core.models.token_rows import fit_to_tokenizer
    from core.results.loaded import base_request, read_run_spec, result_tokenizer

    spec = read_run_spec(run)
    request = base_request(spec, "float32", "cpu")
    auto = getattr(transformers, request.architecture.auto_class)
    base = auto.from_pretrained(request.folder, dtype=torch.float32)
    tokenizer = result_tokenizer(run.adapter, spec, request, lambda *_: None)
    fit_to_tokenizer(base, tokenizer, request.folder, lambda _: None)
    wanted = PeftModel.from_pretrained(base, str(run.adapter)).merge_and_unload().state_dict()
    found, told = auto.from_pretrained(merged, dtype=torch.float32, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    got = found.state_dict()
    assert set(got) == set(wanted)
    assert any(not torch.equal(got[name], base_weight) for name, base_weight in _base(auto, request).items())
    return max(float((got[name].float() - weight.float()).abs().max()) for name, weight in wanted.items())


def _base(auto: Any, request: Any) -> dict[str, Any]:
    import torch

    weights = auto.from_pretrained(request.folder, dtype=torch.float32).state_dict()
    return {name: weight for name, weight in weights.items() if "embed" not in name and "lm_head" not in name}


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"lora_modules_to_save": ["embed_tokens"]},
        {"load_in_4bit": True, "dtype": "float32"},
        {"chat_template_path": "llama3"},
        {"sftui": {"device": "cpu", "init_lora_weights": "pissa"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_kind_of_adapter_is_merged_as_peft_does(ended: Train, tmp_path: Path, changes: dict[str, Any]) -> None:
    run = ended(**SHORT, **changes)
    assert compare(run, merge(run, tmp_path / "merged")) < 1e-6


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "llava", "falcon_h1"])
def test_weights_that_files_have_under_other_names_are_found(ended: Train, tmp_path: Path, family: str) -> None:
    run = ended(build_family(family, tmp_path / family), **SHORT)
    assert compare(run, merge(run, tmp_path / "merged")) < 1e-6
