"""Before the first step, the batch is held against the rows in the files."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.data.token_file import TokenFile
from core.data.tokenized_row import RowError
from core.data.tokenizing import RowTokenizer
from core.errors import SftuiError
from core.training.first_batch import check_first_batch
from tests.tiny import chat_rows
from tests.training.prepared import prepare, spec_of, trainer_over
from tests.training.runs import write_jsonl

WAYS: dict[str, dict[str, Any]] = {
    "padded": {},
    "cut": {"max_length": 40},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "bfd": {"packing": True, "max_length": 200},
    "bfd_split": {"packing": True, "packing_strategy": "bfd_split", "max_length": 150},
    "wrapped": {"packing": True, "packing_strategy": "wrapped"},
    "padding-free": {"padding_free": True},
    "loaded by others": {"dataloader_num_workers": 1},
    "held out": {"test_split_size": 0.2, "eval_strategy": "epoch"},
}


def setup(model: Path, folder: Path, **values: Any) -> tuple[Any, Any, Any]:
    data = write_jsonl(folder / "rows.jsonl", chat_rows(30))
    spec = spec_of(model, data, per_device_train_batch_size=4, activation_checkpointing=False, **values)
    prepared, tokenizer = prepare(spec)
    return trainer_over(spec, prepared, tokenizer, folder / "run"), tokenizer, prepared


def first_order(trainer: Any) -> list[list[list[int]]]:
    torch.manual_seed(11)
    return [batch["input_ids"].tolist() for batch in trainer.get_train_dataloader()]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_taken_apart_and_is_what_the_rows_say(tiny_model: Path, tmp_path: Path, way: str) -> None:
    trainer, tokenizer, data = setup(tiny_model, tmp_path, **WAYS[way])
    torch.manual_seed(3)
    drawn = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    loaders = list(trainer.accelerator._dataloaders)

    found = check_first_batch(trainer, tokenizer, data)

    # What comes is the batch that was looked at.
    torch.manual_seed(3)
    batch = next(iter(trainer.get_train_dataloader()))
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    assert f" {int(mask.sum()):,} tokens" in found.value
    rows = int(found.value.split()[0])
    assert rows >= 4
    assert rows == 4 or WAYS[way].get("packing")
    # Nothing that a run draws later is drawn by looking.
    torch.manual_seed(3)
    check_first_batch(trainer, tokenizer, data)
    assert random.getstate() == drawn[0]
    assert str(np.random.get_state()) == drawn[1]
    assert torch.equal(torch.get_rng_state(), drawn[2])
    assert trainer.accelerator._dataloaders[: len(loaders)] == loaders
    assert trainer.args.dataloader_num_workers == WAYS[way].get("dataloader_num_workers", 0)
    data.close()


@pytest.mark.parametrize("way", ["padded", "bfd", "bfd_split", "wrapped", "padding-free"])
@pytest.mark.parametrize("spoil", ["token", "mark", "cut", "joined"])
def test_a_difference_is_told_with_its_row_and_token(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, spoil: str
) -> None:
    if spoil == "joined" and way not in ("bfd", "bfd_split"):
        return
    trainer, tokenizer, data = setup(tiny_model, tmp_path, assistant_only_loss=True, **WAYS[way])
    collate = trainer.data_collator

    def spoiled(examples: list[dict[str, Any]]) -> Any:
        if spoil == "cut":
            examples[0]["input_ids"] = examples[0]["input_ids"][:-1]
            examples[0]["labels"] = examples[0]["labels"][:-1]
            if "seq_lengths" in examples[0]:
                examples[0]["seq_lengths"][-1] -= 1
        elif spoil == "joined":
            examples[0]["seq_lengths"] = [sum(examples[0]["seq_lengths"])]
        batch = collate(examples)
        if spoil == "token":
            batch["input_ids"][0, 6] += 1
        elif spoil == "mark":
            batch["labels"][0, 5] = batch["input_ids"][0, 5]
        return batch

    monkeypatch.setattr(trainer, "data_collator", spoiled)

    with pytest.raises(SftuiError) as raised:
        check_first_batch(trainer, tokenizer, data)

    assert raised.value.title == "The first batch is not what the rows say"
    piece = data.train.pieces(_first(trainer, data))[0]
    row = f"rows.jsonl:{data.store.row(piece.row).line}: token"
    match spoil:
        case "token":
            assert f"{row} {piece.first + 7} is " in raised.value.message
        case "mark":
            assert f"{row} {piece.first + 6} is " in raised.value.message
            assert "not trained; it is trained in the batch" in raised.value.message
        case "joined":
            assert "sequences" in raised.value.message
    data.close()


def _first(trainer: Any, data: Any) -> int:
    """The number of the first sequence of the batch that comes next."""
    with torch.random.fork_rng(devices=[]):
        data.train.fetched = []
        next(iter(trainer.get_train_dataloader()))
        number: int = data.train.fetched[0]
        data.train.fetched = None
    return number


def test_tokens_that_were_kept_and_are_no_longer_what_is_shown_stop_the_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, tokenizer, data = setup(tiny_model, tmp_path)
    read = TokenFile.tokens

    def other(self: TokenFile, place: int, start: int = 0, stop: int | None = None) -> Any:
        ids, trained = read(self, place, start, stop)
        return ids, ~trained

    monkeypatch.setattr(TokenFile, "tokens", other)
    with pytest.raises(SftuiError, match="is not trained in the batch"):
        check_first_batch(trainer, tokenizer, data)
    monkeypatch.undo()

    def refuse(self: RowTokenizer, row: Any) -> Any:
        raise RowError("template_refuses", "It is refused.", "Mend it.")

    monkeypatch.setattr(RowTokenizer, "tokenize", refuse)
    with pytest.raises(SftuiError, match=r"rows\.jsonl:\d+ became tokens before, and now it does not: It is refused"):
        check_first_batch(trainer, tokenizer, data)
    data.close()
