"""Talking with what a run has made: base and result from one load, streamed, measured and stopped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import SftuiError
from core.results import another, answering
from core.results.asking import BASE, Opened, Sampling
from core.results.result import find_result
from core.runs.folder import RunFolder
from tests.results.conftest import NF4
from tests.terminal.terminal import Terminal
from tests.training.runs import make_run

QUESTION = [{"role": "user", "content": "My parcel is late."}]


def opened(run: RunFolder, **wanted: Any) -> tuple[Opened, list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []
    question = {"of": str(run.path), "step": None, "device": None, **wanted}
    return Opened.from_json(answering.open_result(question, heard.append, lambda: False)), heard


def ask(side: str, turns: Any = QUESTION, **sampling: Any) -> tuple[dict[str, Any], str]:
    parts: list[str] = []
    question = {"side": side, "turns": turns, "sampling": {"max_new_tokens": 24, **sampling}}
    said = answering.chat(question, lambda part: parts.append(part["text"]), lambda: False)
    return said, "".join(parts)


def test_a_qlora_run_answers_as_it_did_at_its_end_and_its_base_as_before(qlora: RunFolder) -> None:
    told, heard = opened(qlora)
    assert told.sides == (BASE, "result")
    assert (told.quantization, told.dtype, told.device) == ("nf4", "float32", "cpu")
    assert told.speaks_turns
    assert told.held_out_rows == 8
    assert len(told.prompts) == 8
    assert told.notices == ()
    names = [phase["name"] for phase in heard]
    assert names[0] == "the base model"
    assert "the adapter" in names
    assert any(phase["total"] and phase["done"] == phase["total"] for phase in heard), "how far the loading is"

    said, streamed = ask("result")
    before, _ = ask(BASE)
    assert said["text"] == streamed
    assert said["text"] != before["text"]
    assert said["tokens"] > 0
    again, _ = ask("result")
    assert again["text"] == said["text"], "the base's turn left the adapter as it was"


def test_the_same_seed_draws_the_same_answer_and_another_one_another(qlora: RunFolder) -> None:
    opened(qlora)
    drawn = [ask("result", temperature=2.0, seed=seed)[0]["text"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert "temperature 2" in str(Sampling(temperature=2.0))


def test_every_adapter_of_a_run_is_asked_over_one_base(qlora: RunFolder) -> None:
    told, _ = opened(qlora, all=True)
    assert told.sides == (BASE, "result", "checkpoint-8", "checkpoint-4")
    texts = {side: ask(side)[0]["text"] for side in told.sides}
    assert texts["result"] == texts["checkpoint-8"]
    assert texts["checkpoint-4"] != texts["checkpoint-8"]
    assert len({texts[BASE], texts["checkpoint-4"], texts["result"]}) == 3


def test_a_whole_model_is_asked_beside_its_base_and_an_adapter_that_comes_onto_it(full: RunFolder, ended: Any) -> None:
    told, _ = opened(full)
    assert told.sides == (BASE, "result")
    before = {side: ask(side)[0]["text"] for side in told.sides}
    assert before[BASE] != before["result"]

    other = ended(save_strategy="no")
    told = Opened.from_json(answering.add_result({"of": str(other.path), "step": None}, lambda _: None, lambda: False))
    assert told.sides == (BASE, "result", other.id), "the base is the same one"
    assert ask(other.id)[0]["text"] != before[BASE]
    assert {side: ask(side)[0]["text"] for side in before} == before, "the adapter is switched off for the base"


def test_two_runs_are_asked_over_one_base_and_each_answers_as_when_it_is_alone(qlora: RunFolder, ended: Any) -> None:
    other = ended(**NF4, seed=7, lora_r=4, learning_rate=3e-3, sftui={"device": "cpu", "name": "v1.5"})
    assert "." in other.id, "PyTorch takes no dots in names"
    opened(other)
    alone = ask("result")[0]["text"]
    opened(qlora)
    before = {side: ask(side)[0]["text"] for side in (BASE, "result")}
    base = answering._desk().loaded.models[BASE]

    told = Opened.from_json(answering.add_result({"of": str(other.path), "step": None}, lambda _: None, lambda: False))
    assert told.sides == (BASE, "result", other.id)
    assert answering._desk().holding(other.id).models[other.id] is base, "it is in memory once"
    assert [title for title, _ in told.notices] == ["Not the same rows"], "another seed held other rows out"
    assert {side: ask(side)[0]["text"] for side in told.sides} == {**before, other.id: alone}
    assert len({*before.values(), alone}) == 3

    figures = answering.measure({"sides": told.sides, "rows": 3}, lambda _: None, lambda: False)
    assert figures[other.id]["perplexity"] < figures[BASE]["perplexity"]
    with pytest.raises(SftuiError, match="can be asked already"):
        answering.add_result({"of": str(other.path), "step": None}, lambda _: None, lambda: False)


def test_a_run_of_another_precision_brings_its_own_base_if_there_is_room(
    qlora: RunFolder, full: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(full)
    before = {side: ask(side)[0]["text"] for side in (BASE, "result")}
    question = {"of": str(qlora.path), "step": 4}
    with monkeypatch.context() as patch:
        patch.setattr(another, "lack_of_room", lambda size, _: f"takes {size} bytes")
        with pytest.raises(SftuiError, match=r"takes \d+ bytes.*learnt on its base in nf4.*the other one in float32"):
            answering.add_result(question, lambda _: None, lambda: False)
    told = Opened.from_json(answering.add_result(question, lambda _: None, lambda: False))
    side = f"{qlora.id} checkpoint-4"
    assert told.sides == (BASE, "result", f"base of {qlora.id}", side)
    assert told.notices[0][0] == "Two base models are in memory"
    texts = {side: ask(side)[0]["text"] for side in told.sides}
    assert {name: texts[name] for name in before} == before
    opened(qlora, step=4)
    assert (texts[f"base of {qlora.id}"], texts[side]) == (ask(BASE)[0]["text"], ask("checkpoint-4")[0]["text"])


def test_an_answer_ends_when_nobody_wants_it(qlora: RunFolder) -> None:
    opened(qlora)
    heard: list[str] = []
    question = {"side": BASE, "turns": QUESTION, "sampling": {"max_new_tokens": 400}}
    said = answering.chat(question, lambda part: heard.append(part["text"]), lambda: len(heard) >= 1)
    assert said["end"] == "stopped"
    assert 0 < said["tokens"] < 400


def test_held_out_rows_tell_both_sides_apart(qlora: RunFolder) -> None:
    opened(qlora)
    heard: list[dict[str, Any]] = []
    told = answering.measure({"sides": [BASE, "result"], "rows": 3}, heard.append, lambda: False)
    assert told["result"]["perplexity"] < told[BASE]["perplexity"]
    assert told["result"]["token_accuracy"] > told[BASE]["token_accuracy"]
    assert [told[side]["rows"] for side in told] == [3, 3]
    assert [told[side]["prompts"] for side in told] == [3, 3]
    assert all(told[side]["whole"] for side in told)
    assert {(part["side"], part["what"]) for part in heard} == {
        (side, what) for side in (BASE, "result") for what in ("perplexity", "answers")
    }
    cut = answering.measure({"sides": ["result"], "rows": 3}, heard.append, lambda: True)
    assert cut["result"]["rows"] == 0
    assert cut["result"]["perplexity"] is None
    assert not cut["result"]["whole"]


def test_the_measured_loss_is_that_of_the_run(qlora: RunFolder, ended: Any) -> None:
    """The trainer's own figure for the same rows and weights."""
    run = ended(load_in_4bit=True, dtype="float32", eval_strategy="steps", eval_steps=8, packing=True)
    known = run.read_state().evaluations[-1]
    opened(run)
    told = answering.measure({"sides": ["result"], "rows": 100}, lambda _: None, lambda: False)
    assert told["result"]["loss"] == pytest.approx(known.loss, rel=1e-3)
    assert told["result"]["token_accuracy"] == pytest.approx(known.token_accuracy, abs=0.02)


def test_a_run_without_a_result_says_what_there_is(qlora: RunFolder, tiny_model: Path, tmp_path: Path) -> None:
    bare = make_run(tiny_model, tmp_path / "rows.jsonl")
    with pytest.raises(SftuiError, match="no result") as raised:
        find_result(bare)
    assert raised.value.hint == "No checkpoint was saved either."

    (bare.path / "checkpoints").mkdir()
    for checkpoint in qlora.checkpoints.iterdir():
        (bare.checkpoints / checkpoint.name).symlink_to(checkpoint)
    with pytest.raises(SftuiError) as raised:
        find_result(bare)
    assert "--checkpoint 8" in raised.value.hint
    assert find_result(bare, 4).path == bare.checkpoints / "checkpoint-4"
    with pytest.raises(SftuiError, match=r"none of step 5; it has 4, 8"):
        find_result(bare, 5)


def test_rows_that_are_gone_do_not_keep_it_from_answering(ended: Any, tmp_path: Path) -> None:
    run = ended(save_strategy="no")
    file = run.spec_file.read_text()
    moved = RunFolder(tmp_path / "moved")
    moved.path.mkdir()
    (moved.path / "run.yaml").write_text(file.replace("rows.jsonl", "gone.jsonl"))
    (moved.path / "adapter").symlink_to(run.adapter)
    told, _ = opened(moved)
    assert told.prompts == ()
    assert "gone.jsonl does not exist" in told.notices[0][1]
    assert ask("result")[0]["tokens"] > 0


def test_one_prompt_on_the_command_line(qlora: RunFolder) -> None:
    command = [sys.executable, "-m", "core.cli", "chat", str(qlora.path), "--both", "--max-new-tokens", "24", "--json"]
    command += ["--beside", str(qlora.path), "--beside-checkpoint", "4"]
    done = subprocess.run(
        [*command, "--prompt", "My parcel is late."], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    opened(qlora, all=True)
    assert [(one["side"], one["text"]) for one in told["answers"]] == [
        (named, ask(side)[0]["text"])
        for named, side in ((BASE, BASE), ("result", "result"), (f"{qlora.id} checkpoint-4", "checkpoint-4"))
    ]
    assert "the base model" in done.stderr


def test_a_conversation_on_a_terminal(qlora: RunFolder) -> None:
    with Terminal("core.cli", "chat", str(qlora.path), "--max-new-tokens", "400") as terminal:
        terminal.wait_for("result> ")
        assert "nf4, float32" in terminal.text
        terminal.type("/base\n")
        terminal.wait_for("base> ")
        seen = len(terminal.text)
        terminal.type("My parcel is late.\n")
        terminal.wait_until(lambda: len(terminal.text) > seen + 40, "an answer to begin")
        terminal.type("\x03")
        terminal.wait_for("(stopped)", after=seen)
        terminal.wait_for("base> ", after=seen + 40)
        terminal.type("/nonsense\n")
        terminal.wait_for("/nonsense is none of the commands")
        terminal.type("/quit\n")
        assert terminal.wait() == 0


def test_what_cannot_be_asked_is_said_before_anything_is_loaded(qlora: RunFolder) -> None:
    for options, words in (
        (["--temperature", "-1"], "temperature is a number"),
        (["--json"], "--json answers one prompt"),
        (["--checkpoint", "7"], "none of step 7"),
        (["--beside", "nowhere"], "nowhere"),
        (["--beside", str(qlora.path), "--beside-checkpoint", "7"], "none of step 7"),
    ):
        command = [sys.executable, "-m", "core.cli", "chat", str(qlora.path), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "…" not in done.stderr, "nothing was loaded"
