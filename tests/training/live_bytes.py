"""What a real run of two steps holds in memory: every storage from the operation that makes it until it dies."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.memory.batch_shape import BatchShape
from core.memory.simulated_memory import MemoryCount
from core.models.adapters import attach_adapters, freeze_towers
from core.models.architecture import detect
from core.models.loading import LoadRequest, load_model
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.training.control import RunControl
from core.training.saving import CheckpointSaver
from core.training.sft import make_trainer, training_arguments
from core.training.whereabouts import Whereabouts

Batch = str
"""How the rows of a batch lie: plain, padded or packed."""
TOKENS = 96


@dataclass(frozen=True)
class Held:
    """Bytes of a real run."""

    kept: int
    """Between the last forward pass and its backward pass."""
    peak: int
    """With weights and optimizer state."""
    losses: tuple[float, ...]


class _RealCount(MemoryCount):
    """Counts real storages."""

    def _do(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        return function(*arguments, **keywords)


def shape_of(batch: Batch, tokens: int = TOKENS) -> BatchShape:
    """The shape of the batch that `run_for_real` trains on."""
    match batch:
        case "plain":
            return BatchShape(2, tokens, 2 * tokens, packed=False)
        case "padded":
            return BatchShape(2, tokens, tokens + tokens // 2, packed=False)
        case _:
            return BatchShape(1, tokens, None, packed=True)


def request_for(spec: RunSpec) -> LoadRequest:
    """How the model of a spec is loaded on the CPU."""
    folder = Path(spec.model_name_or_path)
    return LoadRequest(folder, detect(folder), str(spec.dtype), spec.attn_implementation, "cpu")


def run_for_real(spec: RunSpec, batch: Batch, folder: Path, tokens: int = TOKENS, *, offloads: bool = False) -> Held:
    """Load, attach, and train two steps with the run's own trainer, from the same seed each time.

    With `offloads`, TRL's offloading is on, which refuses a CPU where nobody helps it.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer

    from core.memory.simulated_model import used_twice
    from core.memory.simulated_offloading import offloading

    torch.manual_seed(0)
    request = request_for(spec)
    model = load_model(spec, request, lambda title, message: None)
    if spec.use_peft:
        model = attach_adapters(model, spec)
    else:
        freeze_towers(model, spec)
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    trainer = make_trainer(
        model,
        AutoTokenizer.from_pretrained(request.folder),
        SimpleNamespace(train=Dataset.from_list(_rows(spec, batch, tokens)), held_out=None),  # type: ignore[arg-type]
        training_arguments(spec, run, request.dtype, "cpu"),
        [],
        CheckpointSaver(run, None, lambda event: None, RunControl()),
        Whereabouts(),
    )
    count = _RealCount(1, masks_are_plain=True, on_gpu=False)
    count.used_twice = used_twice(model)
    for tensor in (*model.parameters(), *model.buffers(), *_constants(model)):
        count.take(tensor)
    count.part = "body"
    kept: list[int] = []
    losses: list[float] = []
    compute_loss = trainer.compute_loss

    def watched(*arguments: Any, **keywords: Any) -> Any:
        before = count.exact("body")
        loss = compute_loss(*arguments, **keywords)
        kept.append(count.exact("body") - before)
        losses.append(float(loss.detach()))
        return loss

    trainer.compute_loss = watched  # type: ignore[method-assign]
    with contextlib.ExitStack() as stack:
        if offloads:
            trainer.maybe_activation_offload_context = stack.enter_context(offloading(model, count))
        stack.enter_context(count)
        trainer.train()
    return Held(kept[-1], count.allocator.allocated_peak, tuple(losses))


def _constants(model: Any) -> list[Any]:
    from core.memory.simulated_model import constants

    return constants(model)


def _rows(spec: RunSpec, batch: Batch, tokens: int) -> list[dict[str, Any]]:
    rows = 2 * spec.per_device_train_batch_size * spec.gradient_accumulation_steps
    lengths = [tokens // 2 if batch == "padded" and number % 2 else tokens for number in range(rows)]
    found: list[dict[str, Any]] = [{"input_ids": [5] * length, "labels": [5] * length} for length in lengths]
    if batch == "packed":
        for row in found:
            row["seq_lengths"] = [tokens // 3, tokens - tokens // 3]
    return found
