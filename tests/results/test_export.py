"""A run's result taken elsewhere: whole or not there, with nothing of this machine in it, and loading by itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.results import beside
from core.results.beside import MARK
from core.results.export_process import Exporter
from core.results.exporting import Exported, ExportProgress, ExportRequest, line_of, told
from core.runs.folder import RunFolder
from tests.results.test_merge import SHORT
from tests.tiny import CHAT_TEMPLATE

Train = Callable[..., RunFolder]


def export(run: RunFolder, kind: Any, target: Path, **how: Any) -> tuple[Exported, list[ExportProgress]]:
    heard: list[ExportProgress] = []
    request = ExportRequest(kind, str(target), **how)
    return Exporter(run, request, heard.append).do(), heard


def test_an_adapter_travels_with_its_template_and_a_card_and_tells_nothing_of_this_machine(
    qlora: RunFolder, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    made, _ = export(qlora, "adapter", tmp_path / "out", base_id="acme/tiny-llama")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        MARK,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert made.size_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        for secret in (str(tiny_model.parent), str(qlora.path.parent), str(Path.home()), os.uname().nodename, "hf_c"):
            assert secret.encode() not in data, f"{path.name} tells {secret}"

    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: acme/tiny-llama\n" in card
    assert "| dataset | rows.jsonl |" in card
    assert "| lora\\_r | 8 |" in card
    assert "| training loss at the end |" in card
    assert "| peft | 0.2" in card
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHAT_TEMPLATE
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id in (ends if isinstance(ends, list) else [ends])

    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "acme/tiny-llama"
    # As on a machine that has the base model under this name.
    config["base_model_name_or_path"] = str(tiny_model)
    (tmp_path / "out" / "adapter_config.json").write_text(json.dumps(config))
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").generation_config is not None


def test_a_checkpoint_travels_with_the_end_of_its_answers_too(qlora: RunFolder, tmp_path: Path) -> None:
    export(qlora, "adapter", tmp_path / "out", step=4)
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == 2 or 2 in ends
    assert "step 4" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "optimizer.pt").exists()
    assert not (tmp_path / "out" / "committed.json").exists()


def test_a_merged_model_loads_alone_and_says_how_far_it_is_from_the_run(qlora: RunFolder, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made, heard = export(qlora, "merged", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHAT_TEMPLATE
    assert "2" in str(model.generation_config.eos_token_id)
    facts = dict(made.facts)
    words = facts["merged against the adapter on its base"]
    assert words.startswith("max ")
    assert "top-1 agrees on" in words
    assert "of 2,000 tokens" in words
    assert words.split(",")[0].removeprefix("max ") in (tmp_path / "out" / "README.md").read_text()
    merging = [one for one in heard if one.step == "merging"]
    assert merging[-1].done == merging[-1].total > 0
    assert str(qlora.path) not in (tmp_path / "out" / "config.json").read_text()


def test_a_model_that_was_trained_whole_is_written_in_16_bits(full: RunFolder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    with pytest.raises(SftuiError, match="trained every weight"):
        export(full, "adapter", tmp_path / "none")
    export(full, "merged", tmp_path / "out", compare=False)
    wanted = load_file(full.model / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], weight.bfloat16()) for name, weight in wanted.items())


def test_a_merge_that_was_cut_off_goes_on_and_another_one_begins_anew(
    ended: Train, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base lies in three files; the disk gives out in the second one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from core.results.safetensors_writer import write_safetensors

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(sharded, max_shard_size="150KB")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(sharded)
    run = ended(sharded, **SHORT)
    files = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(files) >= 3
    target, half = tmp_path / "out", tmp_path / "out.partial"
    write = write_safetensors
    written: list[str] = []

    def full_disk(path: Path, *more: Any) -> None:
        if len(written) == 1:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device", str(path))
        written.append(path.name)
        write(path, *more)

    monkeypatch.setattr("core.results.merging.write_safetensors", full_disk)
    with pytest.raises(SftuiError, match="No space left"):
        export(run, "merged", target, compare=False)
    assert not target.exists()
    first = half / files[0]
    stamp = first.stat().st_mtime_ns

    monkeypatch.setattr("core.results.merging.write_safetensors", write)
    export(run, "merged", target, compare=False)
    assert not half.exists()
    assert (target / files[0]).stat().st_mtime_ns == stamp, "what was whole is not written again"
    assert sorted(path.name for path in target.glob("*.safetensors")) == files
    assert set(json.loads((target / "model.safetensors.index.json").read_text())["weight_map"].values()) == {*files}
    AutoModelForCausalLM.from_pretrained(target)

    # Half of another run's export is in the way.
    half.mkdir()
    (half / MARK).write_text('{"kind": "merged", "run": "another"}')
    (half / files[0]).write_bytes(b"of another run")
    export(run, "merged", target, compare=False, force=True)
    AutoModelForCausalLM.from_pretrained(target)


def test_nothing_is_overwritten_but_an_earlier_export(qlora: RunFolder, tmp_path: Path) -> None:
    home = tmp_path / "home-of-somebody"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(SftuiError):
            export(qlora, "adapter", home, force=force)
    assert (home / "thesis.tex").read_text() == "years of work"
    assert not home.with_name("home-of-somebody.partial").exists()

    export(qlora, "adapter", tmp_path / "out")
    (tmp_path / "out" / "old").touch()
    with pytest.raises(SftuiError, match="exists") as raised:
        export(qlora, "adapter", tmp_path / "out")
    assert "--force" in raised.value.hint
    export(qlora, "adapter", tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "old").exists()
    assert (tmp_path / "out" / MARK).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home-of-somebody", "out"]


def test_room_is_asked_for_before_anything_is_written(
    qlora: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("core.results.beside.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SftuiError, match="not enough room") as raised:
        export(qlora, "adapter", tmp_path / "out")
    assert "bytes" in raised.value.message
    assert not (tmp_path / "out").exists()


def test_two_exports_to_one_place_do_not_mix(qlora: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with beside.written_beside(target, 0, {"kind": "adapter"}, force=False) as half:
        with pytest.raises(SftuiError, match="being written by another"):
            export(qlora, "adapter", target)
        (half / "whole").touch()
    assert (target / "whole").exists()


def test_what_the_process_says_is_understood_and_its_noise_is_not() -> None:
    progress = ExportProgress("merging", 3, 4)
    made = Exported("merged", "/out", 10, (("chat template", "kept"),))
    error = SftuiError("There is no adapter", "Every weight was trained.", "--merged DIR")
    assert told(line_of(progress)) == progress
    assert told(line_of(made)) == made
    again = told(line_of(error))
    assert isinstance(again, SftuiError)
    assert again.args == error.args
    for noise in ("Loading weights: 100%", "{}", '{"progress": {"x": 1}}', "[]"):
        assert told(noise) is None


def test_the_command_tells_what_it_made_and_why_not(qlora: RunFolder, tmp_path: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "core.cli", "export", str(qlora.path), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = run("--adapter", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'out'}  " in done.stdout
    assert "writing the adapter" in done.stderr
    again = run("--adapter", str(tmp_path / "out"))
    assert again.returncode == 2
    assert "--force" in again.stderr
    made = json.loads(run("--adapter", str(tmp_path / "out"), "--force", "--json").stdout)["exported"]
    assert made["kind"] == "adapter"
    assert run("--adapter", "x", "--merged", "y").returncode == 2, "one thing at a time"
    assert run().returncode == 2


def test_a_model_that_is_too_large_to_compare_is_exported_all_the_same(
    qlora: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("core.results.difference.load_result", no_memory)
    made, _ = export(qlora, "merged", tmp_path / "out")
    assert dict(made.facts)["merged against the adapter on its base"].startswith("not measured: there is not enough")
    assert (tmp_path / "out" / "model.safetensors").exists()
