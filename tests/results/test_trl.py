"""A run as TRL alone does it: `trl sft --config` on what was exported gives the losses of the run's journal."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from core.errors import SftuiError
from core.runs.folder import RunFolder
from tests.results.conftest import NF4
from tests.results.test_export import export

Train = Callable[..., RunFolder]


def losses(run: RunFolder) -> list[float]:
    return [step.loss for step in run.read_state().steps]


def logged(folder: Path, step: int) -> list[float]:
    state = json.loads((folder / "output" / f"checkpoint-{step}" / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_the_trl_command_runs_it_unmodified_to_the_same_losses(qlora: RunFolder, tmp_path: Path) -> None:
    made, _ = export(qlora, "trl", tmp_path / "out")
    assert "as text" in dict(made.facts)["rows"]
    first = json.loads((tmp_path / "out" / "data" / "train.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]
    command = [str(Path(sys.executable).with_name("trl")), "sft", "--config", "sft.yaml"]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert logged(tmp_path / "out", 8) == pytest.approx(losses(qlora), abs=2e-5)


def test_what_trl_cannot_mask_goes_as_tokens_to_the_same_losses(
    ended: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: its command line is tried above."""
    from trl.scripts.sft import main, make_parser

    unknown = tmp_path / "unknown.jinja"
    unknown.write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if "
        "add_generation_prompt %}[assistant]{% endif %}"
    )
    run = ended(
        **NF4, chat_template_path=str(unknown), packing=True, max_length=128, max_steps=4, per_device_train_batch_size=1
    )
    made, _ = export(run, "trl", tmp_path / "out")
    assert "as tokens" in dict(made.facts)["rows"]
    monkeypatch.chdir(tmp_path / "out")
    main(*make_parser().parse_args_and_config(["--config", "sft.yaml"])[:4])
    assert logged(tmp_path / "out", 4) == pytest.approx(losses(run), abs=2e-5)


def test_packed_rows_go_as_text_in_the_order_in_which_they_are_packed(ended: Train, tmp_path: Path) -> None:
    from datasets import load_dataset

    from core.data.packing import pack
    from core.models.tokenizer import load_tokenizer

    run = ended(packing=True, max_length=256, max_steps=1, save_strategy="no")
    export(run, "trl", tmp_path / "out")
    values = yaml.safe_load((tmp_path / "out" / "sft.yaml").read_text())
    assert values["packing"] is True
    rows = load_dataset(str(tmp_path / "out" / "data"))["train"]
    tokenizer = load_tokenizer(Path(values["model_name_or_path"]), lambda *_: None)
    lengths = [len(tokenizer.apply_chat_template(row["messages"])["input_ids"]) for row in rows]
    sequences = run.read_state().data
    assert sequences is not None
    assert len(pack(lengths, 256, "bfd")) == sequences.sequences


def test_what_trl_has_no_argument_for_is_refused(ended: Train, tmp_path: Path) -> None:
    own = {"device": "cpu", "init_lora_weights": "gaussian"}
    run = ended(max_steps=1, save_strategy="no", sftui=own)
    with pytest.raises(SftuiError, match=r"sftui\.init_lora_weights"):
        export(run, "trl", tmp_path / "out")
    run = ended(max_steps=1, save_strategy="no", chat_template_path="llama3")
    with pytest.raises(SftuiError, match="new tokens") as raised:
        export(run, "trl", tmp_path / "out")
    assert raised.value.hint
