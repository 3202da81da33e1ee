"""How far a merged model is from the adapter on the base as it was trained: the two say the next token of real rows."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.data.check import StoppedError
from core.data.rendering import PreparedData
from core.errors import SftuiError
from core.models import loading
from core.models.architecture import detect
from core.models.tokenizer import load_tokenizer
from core.results.exporting import ExportProgress
from core.results.held_out import held_out_data
from core.results.loaded import load_result
from core.results.result import Result
from core.results.room import lack_of_room

Hear = Callable[[ExportProgress], object]
_MOST_TOKENS = 2000
_MOST_LOGIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the logits of two models for the same tokens."""

    largest: float
    mean: float
    agreeing: float
    """The share of the tokens for which both find the same one likeliest."""
    tokens: int

    def __str__(self) -> str:
        return (
            f"max {self.largest:.2g}, mean {self.mean:.2g}, top-1 agrees on {self.agreeing:.1%} "
            f"of {self.tokens:,} tokens"
        )


def difference(result: Result, merged: Path, size_bytes: int, device: str | None, hear: Hear) -> Difference | str:
    """Compare the model in a folder with the run's own. Returns why not where that cannot be done here.

    One model is in memory at a time.
    """
    try:
        return _difference(result, merged, size_bytes, device, hear)
    except SftuiError as error:
        return f"not measured: {error.title}"
    except (torch.OutOfMemoryError, MemoryError):
        return "not measured: there is not enough memory for it"


def _difference(result: Result, merged: Path, size_bytes: int, device: str | None, hear: Hear) -> Difference | str:
    loaded = load_result(
        (result,),
        lambda name, done, total: hear(ExportProgress(f"comparing: {name}", done, total)),
        lambda: None,
        lambda *_: None,
        device,
    )
    rows = _rows(loaded, hear)
    if not rows:
        return "not measured: the run's rows are not there"
    with loaded.answering(result.name) as model:
        before = list(_logits(model, rows, hear, "the adapter on its base"))
    request = loaded.request
    spec = loaded.spec.model_copy(update={"load_in_4bit": False, "load_in_8bit": False})
    del loaded, model
    _free()
    lacking = lack_of_room(size_bytes, request.device)
    if lacking:
        return f"not measured: the merged model {lacking}"
    own = loading.LoadRequest(
        merged, detect(merged, spec.sftui.preference), _own_dtype(merged), request.attention, request.device
    )
    model = loading.load_model(spec, own, lambda *_: None)
    model.eval()
    return _compared(zip(before, _logits(model, rows, hear, "the merged model"), strict=True))


def _compared(pairs: Any) -> Difference:
    largest, total, agreeing, tokens, numbers = 0.0, 0.0, 0, 0, 0
    for before, after in pairs:
        width = min(before.shape[-1], after.shape[-1])
        apart = (before[:, :width] - after[:, :width]).abs()
        largest = max(largest, float(apart.max()))
        total += float(apart.sum(dtype=torch.float64))
        numbers += apart.numel()
        agreeing += int((before.argmax(-1) == after.argmax(-1)).sum())
        tokens += len(before)
    return Difference(largest, total / max(1, numbers), agreeing / max(1, tokens), tokens)


def _logits(model: Any, rows: Sequence[list[int]], hear: Hear, who: str) -> Any:
    for number, row in enumerate(rows):
        hear(ExportProgress(f"comparing: {who} reads", number, len(rows)))
        with torch.no_grad():
            ids = torch.tensor([row], device=model.device)
            yield model(input_ids=ids, use_cache=False).logits[0].float().cpu()


def _rows(loaded: Any, hear: Hear) -> list[list[int]]:
    """Held-out rows, else those that were trained on, as far as their logits fit into a quarter of a gigabyte."""
    trusted = loading.trusts_own_code(loaded.request)
    own = load_tokenizer(
        loaded.request.folder, lambda *_: None, trusted=trusted, chat_template_path=loaded.spec.chat_template_path
    )
    try:
        data: PreparedData = held_out_data(
            loaded.spec,
            loaded.request,
            own,
            lambda name, done, total: hear(ExportProgress(f"comparing: {name}", done, total)),
            lambda: False,
        )
    except (SftuiError, StoppedError):
        return []
    vocabulary = loaded.models[next(iter(loaded.models))].get_input_embeddings().weight.shape[0]
    left = max(16, min(_MOST_TOKENS, _MOST_LOGIT_BYTES // (4 * vocabulary)))
    found: list[list[int]] = []
    for rows in (data.held_out, data.train) if data.held_out is not None else (data.train,):
        for number in range(len(rows)):
            ids = [int(token) for token in rows[number]["input_ids"]][:left]
            found.append(ids)
            left -= len(ids)
            if left <= 0:
                data.close()
                return found
    data.close()
    return found


def _own_dtype(folder: Path) -> str:
    return "float16" if detect(folder).stored_dtype == "float16" else "bfloat16"


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
