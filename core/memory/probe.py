"""Two real steps on the longest rows, on the real device, before training; afterwards everything is as it was."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.devices.host import read_host
from core.errors import SftuiError
from core.runs.events import MemoryProbed
from core.text import human_bytes
from core.training.peak import PeakMeter
from core.training.randomness import Randomness

# The first step makes the optimizer's state; only the second one holds everything at once.
_STEPS = 2
# From the second batch on, the gradients of those before lie beside what the next one keeps.
_MOST_ACCUMULATED = 2


def probe(trainer: Any, meter: PeakMeter, total_bytes: int | None, check: Callable[[], object]) -> MemoryProbed:
    """Try two steps of a trainer that has not begun, and return the peak of memory that they reached.

    They are those of training itself: its collator, loss, precision, clipping and optimizer, its micro-batch filled
    with the longest sequences, and as much accumulation as makes a difference. Weights, buffers, random numbers and the
    trainer's counts are put back then, and the optimizer is dropped; of a paged one the pages stay. `check` is called
    before each batch and may raise. Raises what training would, and leaves things as they are then; SftuiError if the
    host has no room for a copy of the trained weights.
    """
    began = time.monotonic()
    batch = _longest_batch(trainer)
    before = _Before(trainer)
    meter.restart()
    _train(trainer, batch, check)
    peak = meter.look(0)
    # On a CPU the copies lie where the peak is measured.
    held = peak.bytes if peak.device == "gpu" else max(0, peak.bytes - before.copied_bytes)
    before.restore(trainer)
    meter.restart()
    ids = batch["input_ids"]
    seconds = time.monotonic() - began
    return MemoryProbed(peak.device, held, total_bytes, ids.shape[0], ids.numel(), seconds)


def _longest_batch(trainer: Any) -> dict[str, Any]:
    rows = trainer.train_dataset
    longest = np.argsort(-rows.lengths, kind="stable")[: trainer.args.per_device_train_batch_size]
    batch: dict[str, Any] = trainer.data_collator([rows[int(number)] for number in longest])
    return batch


def _train(trainer: Any, batch: dict[str, Any], check: Callable[[], object]) -> None:
    count = min(_MOST_ACCUMULATED, trainer.args.gradient_accumulation_steps)
    trainer.current_gradient_accumulation_steps = count
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.optimizer = optimizer
    for _ in range(_STEPS):
        batches, items = trainer.get_batch_samples(
            iter([dict(batch) for _ in range(count)]), count, trainer.args.device
        )
        for inputs in batches:
            check()
            trainer.training_step(model, inputs, items)
        if trainer.args.max_grad_norm > 0:
            trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        model.zero_grad()


class _Before:
    """What two steps change, as it was before them."""

    def __init__(self, trainer: Any) -> None:
        model = trainer.model
        self._randomness = Randomness.now()
        self._was_training = model.training
        self._scaler = trainer.accelerator.scaler.state_dict() if trainer.accelerator.scaler is not None else None
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.copied_bytes = needed = sum(parameter.numel() * parameter.element_size() for parameter in trained)
        available = read_host(Path("/")).memory_available_bytes
        if needed > available:
            message = (
                f"The trained weights take {human_bytes(needed)} beside, and the host has {human_bytes(available)}."
            )
            raise SftuiError("The probe needs a copy", message, "Run without it: sftui.probe: false.")
        # On the host: on the device they would be part of what is measured.
        self._weights = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in trained]
        self._buffers = [
            (module, name, buffer, buffer.detach().to("cpu", copy=True))
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def restore(self, trainer: Any) -> None:
        """Put it back, and drop what training makes anew."""
        model = trainer.model
        trainer.optimizer = None
        trainer.accelerator.free_memory()
        with torch.no_grad():
            for parameter, weights in self._weights:
                parameter.grad = None
                parameter.copy_(weights)
            for module, name, buffer, values in self._buffers:
                # Rotary embeddings that follow the length of the sequence put others in their place.
                setattr(module, name, buffer.copy_(values))
        model.train(self._was_training)
        # TRL counts tokens and keeps figures until the next step is logged.
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0
        if self._scaler is not None:
            trainer.accelerator.scaler.load_state_dict(self._scaler)
        self._randomness.restore()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
