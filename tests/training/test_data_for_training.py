"""What is shown is what is trained: rows on their way from files to the labels of a trainer."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from core import paths
from core.data import tokenized
from core.data.check import StoppedError, check
from core.data.packing import PackingStrategy
from core.data.rendering import PreparedData, sample_prompts, split
from core.data.request import training_request
from core.data.seen_row import SeenRow
from core.data.token_statistics import Batching, TokenCounts, statistics
from core.data.tokenized_row import RowError
from core.data.tokenizing import RowTokenizer
from core.data.tokenizing_options import tokenizing_options
from core.errors import SftuiError
from core.runs import events
from core.runs.events import Event, KindCount
from core.spec.run_spec import RunSpec
from core.training.questions import answer
from tests.tiny import chat_rows
from tests.training.prepared import prepare, spec_of
from tests.training.runs import write_jsonl


def long_rows(count: int) -> list[dict[str, Any]]:
    """Conversations of every length, some of them longer than any of these tests allows."""
    draw = random.Random(3)
    rows = chat_rows(count, seed=1)
    for row in rows:
        row["messages"][0]["content"] *= draw.choice([1, 1, 2, 5])
        row["messages"][1]["content"] *= draw.choice([1, 1, 3])
    return rows


def as_completions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in rows]


def sequences(data: PreparedData) -> list[tuple[list[int], list[int]]]:
    return [(row["input_ids"].tolist(), row["labels"].tolist()) for row in data.train]


def question(spec: RunSpec, **asked: Any) -> dict[str, Any]:
    facts = check(training_request(spec))
    options = tokenizing_options(spec, facts.form).to_json()
    return {**asked, "store": str(facts.store), "folder": spec.model_name_or_path, "options": options}


@pytest.mark.parametrize("learn_from", ["all", "completion", "assistant"])
def test_the_labels_are_what_the_inspector_shows(tiny_model: Path, tmp_path: Path, learn_from: str) -> None:
    rows = long_rows(30)
    if learn_from == "completion":
        rows = as_completions(rows)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    spec = spec_of(tiny_model, data, max_length=None, assistant_only_loss=learn_from == "assistant")

    prepared, tokenizer = prepare(spec)

    assert len(prepared.train) == 30
    for number, (ids, labels) in enumerate(sequences(prepared)):
        seen = SeenRow.from_json(json.loads(json.dumps(answer(question(spec, ask="row", index=number)))))
        assert seen.refused is None
        assert seen.tokens == len(ids)
        assert "".join(seen.texts) == tokenizer.decode(ids)
        assert list(seen.trained) == [label != -100 for label in labels]
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        assert seen.trained.count(True) == len(ids) or learn_from != "all"
        assert all(seen.texts[place] == "<|im_end|>" for place in seen.ends)
        assert seen.trained[seen.ends[-1]], "the model learns to stop"
    prepared.close()


def test_lengths_are_asked_slice_by_slice_and_are_those_of_the_run(tiny_model: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", long_rows(60))
    spec = spec_of(tiny_model, data, max_length=80, assistant_only_loss=True, sftui={"bad_rows": "skip"})
    counts = TokenCounts(60)

    while (start := counts.next_unknown()) is not None:
        told = answer(question(spec, ask="lengths", start=start, stop=min(start + 25, 60)))
        assert told["stop"] > start
        counts.add(json.loads(json.dumps(told)))
    found = statistics(counts, Batching(80, 8))
    prepared, _ = prepare(spec)

    assert found.counted == 60
    assert found.truncated > 0
    assert (found.dropped, found.dropped == 0) == (prepared.told.dropped_rows, False)
    assert found.tokens_per_epoch == prepared.told.tokens == sum(len(ids) for ids, _ in sequences(prepared))
    assert found.steps_per_epoch == -(-len(prepared.train) // 8)
    assert prepared.told.trained_tokens == sum(label != -100 for _, labels in sequences(prepared) for label in labels)
    prepared.close()


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(tiny_model))


@pytest.mark.parametrize("learn_from", ["all", "completion", "assistant"])
@pytest.mark.parametrize("packing", [None, "bfd", "bfd_split", "wrapped"])
def test_trl_makes_the_same_of_the_same_rows(
    tiny_model: Path, model: Any, tmp_path: Path, learn_from: str, packing: PackingStrategy | None
) -> None:
    rows = long_rows(50)
    # What TRL packs for nothing is left out here: there is nothing to learn from within 80 tokens.
    rows = [row for row in rows if len(row["messages"][0]["content"]) < 50 or not packing]
    if learn_from == "completion":
        rows = as_completions(rows)
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    wanted: dict[str, Any] = {"max_length": 80, "assistant_only_loss": learn_from == "assistant", "seed": 5}
    wanted |= {"packing": True, "packing_strategy": packing} if packing else {}
    spec = spec_of(tiny_model, data, **wanted, shuffle_dataset=True, sftui={"bad_rows": "skip"})

    prepared, tokenizer = prepare(spec)
    plain = {"use_cpu": True, "report_to": "none", "activation_checkpointing": False, "shuffle_dataset": True}
    arguments = SFTConfig(str(tmp_path / "trl"), **plain, **wanted)
    trl = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)

    expected = [(row["input_ids"], row["labels"]) for row in trl.train_dataset]
    assert sequences(prepared) == expected
    if packing in ("bfd", "bfd_split"):
        assert [row["seq_lengths"] for row in prepared.train] == trl.train_dataset["seq_lengths"][:]
    assert prepared.told.truncated_rows > 0 or packing in ("bfd_split", "wrapped")
    prepared.close()


def test_what_is_held_out_is_what_datasets_draws() -> None:
    drawn = Dataset.from_dict({"row": range(103)}).train_test_split(test_size=0.13, seed=7)

    train, held_out = split(103, 0.13, 7)

    assert (train.tolist(), held_out.tolist()) == (drawn["train"]["row"][:], drawn["test"]["row"][:])
    with pytest.raises(SftuiError, match="1 row cannot be split"):
        split(1, 0.5, 0)


def test_tokens_are_made_once_and_again_when_they_are_damaged(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))
    made: list[Any] = []
    tokenize = RowTokenizer.tokenize_many

    def note(self: RowTokenizer, rows: Any) -> Any:
        made.extend(rows)
        return tokenize(self, rows)

    monkeypatch.setattr(RowTokenizer, "tokenize_many", note)

    def prepared_sequences(**changes: Any) -> tuple[int, list[tuple[list[int], list[int]]]]:
        made.clear()
        prepared, _ = prepare(spec_of(tiny_model, data, **changes))
        found = sequences(prepared)
        prepared.close()
        return len(made), found

    count, first = prepared_sequences()
    assert count == 20
    assert prepared_sequences() == (0, first)
    # Another cut, order or share held out makes no new tokens; another loss does.
    assert prepared_sequences(max_length=60)[0] == 0
    assert prepared_sequences(packing=True, test_split_size=0.2)[0] == 0
    assert prepared_sequences(assistant_only_loss=True)[0] == 20

    kept = list((paths.cache_home() / "tokenized").iterdir())
    assert len(kept) == 2
    for spoil in (
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        Path.unlink,
        lambda file: file.write_text(""),
    ):
        for folder in kept:
            spoil(folder / "tokens.arrow")
        assert prepared_sequences() == (20, first)
        assert prepared_sequences() == (0, first)
    # The same rows in another file are the same rows.
    shutil.move(data, tmp_path / "moved.jsonl")
    data = tmp_path / "moved.jsonl"
    assert prepared_sequences() == (0, first)
    write_jsonl(data, chat_rows(21))
    assert prepared_sequences()[0] == 21


def test_a_stop_leaves_nothing_half_made(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenized, "_TELL_SECONDS", 0.0)
    monkeypatch.setattr(tokenized, "_ENCODED_AT_ONCE", 8)
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(50))
    told: list[Event] = []

    def stop() -> bool:
        return any(isinstance(event, events.DataProgressed) and event.step == "tokenizing" for event in told)

    with pytest.raises(StoppedError):
        prepare(spec_of(tiny_model, data), told, stop)

    assert told[-1] == events.DataProgressed("tokenizing", 8, 50)
    assert list((paths.cache_home() / "tokenized").iterdir()) == []


def spoiled_rows(tmp_path: Path) -> Path:
    """Twelve rows: one that is no row, one that the template refuses, one whose answer is cut off."""
    rows = chat_rows(12)
    rows[4]["messages"] = None
    rows[6]["messages"][0]["content"] = "refuse me"
    rows[9]["messages"][0]["content"] *= 20
    return write_jsonl(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def choosy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that refuses some rows."""
    tokenize = RowTokenizer.tokenize_many

    def choose(self: RowTokenizer, rows: Any) -> Any:
        refused = RowError("template_refuses", "The chat template refuses the row.", "Mend it.")
        made = tokenize(self, rows)
        return [
            refused if row["messages"][0]["content"] == "refuse me" else one
            for row, one in zip(rows, made, strict=True)
        ]

    monkeypatch.setattr(RowTokenizer, "tokenize_many", choose)


def test_rows_that_cannot_be_trained_on_stop_the_run_with_their_lines(
    tiny_model: Path, tmp_path: Path, choosy: None
) -> None:
    data = spoiled_rows(tmp_path)
    with pytest.raises(SftuiError, match=r"rows\.jsonl:5") as raised:
        prepare(spec_of(tiny_model, data, assistant_only_loss=True))
    assert raised.value.title == "A row is wrong"

    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[:4] + lines[5:]) + "\n")
    with pytest.raises(SftuiError) as raised:
        prepare(spec_of(tiny_model, data, assistant_only_loss=True))
    assert raised.value.title == "2 rows are wrong"
    refused, cut = raised.value.message.splitlines()
    assert refused == f"{data}:6: The chat template refuses the row. Mend it."
    assert cut == f"{data}:9: Nothing of it is left to learn from: 96 tokens end before. Raise max_length."


def test_rows_that_are_to_be_left_out_are_counted_by_kind(tiny_model: Path, tmp_path: Path, choosy: None) -> None:
    spec = spec_of(tiny_model, spoiled_rows(tmp_path), assistant_only_loss=True, sftui={"bad_rows": "skip"})

    prepared, _ = prepare(spec)

    told = prepared.told
    assert (told.train_rows, told.skipped_rows, told.dropped_rows) == (9, 2, 1)
    assert {KindCount("template_refuses", 1)} < set(told.skipped_kinds)
    assert sum(kind.rows for kind in told.skipped_kinds) == 2
    assert [prepared.store.row(prepared.train.pieces(number)[0].row).line for number in range(9)] == [
        1, 2, 3, 4, 6, 8, 9, 11, 12,
    ]  # fmt: skip
    prepared.close()


def test_there_is_nothing_to_train_on(tiny_model: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(3))
    with pytest.raises(SftuiError, match="within 8 tokens"):
        prepare(spec_of(tiny_model, data, max_length=8, assistant_only_loss=True, sftui={"bad_rows": "skip"}))


def test_prompts_are_those_of_held_out_rows_with_all_that_they_say(tiny_model: Path, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "description": "Look up.", "parameters": {}}}]
    rows = [{**row, "tools": tools} for row in chat_rows(10)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    spec = spec_of(tiny_model, data, test_split_size=0.5, sftui={"sample_prompts": ["Where is it?"], "sample_rows": 3})
    prepared, _ = prepare(spec)

    own, *drawn = sample_prompts(spec, prepared)

    _, held_out = split(10, 0.5, spec.seed)
    assert (own.shown, own.expected) == ("Where is it?", None)
    assert [(one.shown, one.expected) for one in drawn] == [
        tuple(message["content"] for message in rows[number]["messages"]) for number in held_out[:3]
    ]
    assert all(list(one.tools) == tools for one in drawn)
    prepared.close()


def test_a_file_that_a_library_dies_of_ends_the_run_in_words(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying").mkdir()
    (tmp_path / "dying" / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4, seed=1))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "dying"))
    with pytest.raises(SftuiError, match=r"a library fails on this file, which may be damaged"):
        prepare(spec_of(tiny_model, data))
