"""The first batch of the real data loader, held against its rows as the token inspector shows them."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from core.choice import Choice
from core.data.rendering import PreparedData
from core.data.tokenized_row import RowError, TokenizedRow
from core.data.training_rows import Piece
from core.errors import SftuiError
from core.text import safe, shorten

_IGNORED = -100


@dataclass(frozen=True, slots=True)
class _Token:
    """A token that the batch ought to hold, and where it comes from."""

    id: int
    trained: bool
    row: int
    position: int


def check_first_batch(trainer: Any, tokenizer: Any, data: PreparedData) -> Choice:
    """Take the batch that training begins with, take it apart, and compare it with its rows made into tokens afresh.

    Changes neither the order of the data nor anything that is drawn later. Raises SftuiError that names the row and
    the first token that differs.
    """
    batch, numbers = _first_batch(trainer, data)
    sequences = [_tokens_of(data, data.train.pieces(number)) for number in numbers]
    found = list(_taken_apart(batch))
    apart = "attention_mask" not in batch
    wanted = [tokens for pieces in sequences for tokens in (pieces if apart else [list(chain.from_iterable(pieces))])]
    if len(found) != len(wanted):
        raise _differs(f"It holds {len(found):,} sequences, and {len(wanted):,} were to be in it.")
    for (ids, labels), tokens in zip(found, wanted, strict=True):
        _compare(ids, labels, tokens, data, tokenizer)
    everything = [token for tokens in wanted for token in tokens]
    rows, trained = len({token.row for token in everything}), sum(token.trained for token in everything)
    words = f"{rows:,} {'row' if rows == 1 else 'rows'}, {len(everything):,} tokens, {trained:,} of them trained"
    return Choice("first_batch", words, "taken apart and compared with the rows in the files: it is what they say")


def _first_batch(trainer: Any, data: PreparedData) -> tuple[dict[str, Any], list[int]]:
    """The batch, and the numbers of the sequences in it."""
    arguments, prepared = trainer.args, trainer.accelerator._dataloaders
    workers, loaders = arguments.dataloader_num_workers, len(prepared)
    with _undrawn():
        try:
            # What other processes fetch is not put down here.
            arguments.dataloader_num_workers = 0
            data.train.fetched = []
            batch = next(iter(trainer.get_train_dataloader()))
            # The loader is one batch ahead.
            numbers = data.train.fetched[: trainer._train_batch_size]
        finally:
            data.train.fetched = None
            arguments.dataloader_num_workers = workers
            del prepared[loaders:]
    return batch, numbers


@contextmanager
def _undrawn() -> Iterator[None]:
    """Let whatever is drawn within be drawn again afterwards."""
    states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _tokens_of(data: PreparedData, pieces: Sequence[Piece]) -> list[list[_Token]]:
    """The tokens of a sequence, piece by piece."""
    return [
        [
            _Token(token, trained, piece.row, position)
            for position, (token, trained) in enumerate(zip(row.input_ids, row.trained, strict=True))
            if piece.first <= position < piece.stop
        ]
        for piece in pieces
        for row in [_rendered(data, piece.row)]
    ]


def _rendered(data: PreparedData, number: int) -> TokenizedRow:
    row = data.store.row(number)
    try:
        return data.tokenizer.tokenize(row.canonical)
    except RowError as error:
        raise _differs(f"{row.file}:{row.line} became tokens before, and now it does not: {error}") from error


def _taken_apart(batch: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of each sequence that the model keeps apart: no padding, cut where positions begin anew."""
    ids, labels = batch["input_ids"].cpu(), batch["labels"].cpu()
    if "attention_mask" in batch:
        for row, mask in enumerate(batch["attention_mask"].cpu().bool()):
            if (labels[row][~mask] != _IGNORED).any():
                raise _differs("Padding is trained in it.")
            yield ids[row][mask].tolist(), labels[row][mask].tolist()
        return
    starts = (batch["position_ids"][0].cpu() == 0).nonzero().flatten().tolist()
    for start, stop in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
        yield ids[0, start:stop].tolist(), labels[0, start:stop].tolist()


def _compare(
    ids: Sequence[int], labels: Sequence[int], wanted: Sequence[_Token], data: PreparedData, tokenizer: Any
) -> None:
    for place, token in enumerate(wanted):
        if place >= len(ids):
            raise _token_differs(token, "the batch ends before it", data, tokenizer)
        if ids[place] != token.id:
            raise _token_differs(token, f"the batch has {_named(ids[place], tokenizer)} there", data, tokenizer)
        # Nothing comes before the first token, from which it could be learned.
        if place and labels[place] != (token.id if token.trained else _IGNORED):
            is_trained = "is trained" if labels[place] != _IGNORED else "is not trained"
            raise _token_differs(token, f"it {is_trained} in the batch", data, tokenizer)
    if len(ids) > len(wanted):
        extra = _named(ids[len(wanted)], tokenizer)
        raise _token_differs(
            wanted[-1], f"it is the last of its row, and {extra} follows in the batch", data, tokenizer
        )


def _token_differs(token: _Token, what: str, data: PreparedData, tokenizer: Any) -> SftuiError:
    row = data.store.row(token.row)
    marked = "trained" if token.trained else "not trained"
    name = _named(token.id, tokenizer)
    return _differs(f"{row.file}:{row.line}: token {token.position + 1:,} is {name}, {marked}; {what}.")


def _named(token: int, tokenizer: Any) -> str:
    return f"{token} ({shorten(safe(repr(tokenizer.decode([token]))), 40)})"


def _differs(what: str) -> SftuiError:
    return SftuiError(
        "The first batch is not what the rows say",
        what,
        "Nothing was trained. This is a defect of sftui or of a library: please report it with this message.",
    )
