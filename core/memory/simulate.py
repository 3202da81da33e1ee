"""Two whole training steps of a spec without its weights: fake tensors go through the model's own code and TRL's loss.

Nothing is computed: only sizes are. As on a GPU, where every storage is a block in a model of the caching allocator,
from which the peak is read; or as on the CPU, on which it is held to what autograd really keeps.
"""

import contextlib
import functools
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MethodType, SimpleNamespace
from typing import Any

import torch
import transformers.masking_utils
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from core.errors import SftuiError
from core.memory.batch_shape import BatchShape
from core.memory.optimizer_state import Trained, optimizer_state
from core.memory.quick_fake import QuickFakeMode
from core.memory.simulated import Simulation, SimulationTask, cached_simulation, keep_simulation, refuse
from core.memory.simulated_gpu import AsOnGpu, bitsandbytes_as_on_gpu, replaced, trl_as_on_gpu
from core.memory.simulated_memory import MemoryCount
from core.memory.simulated_model import constants, materialize, meta_model, used_twice, weights_unpacked_by_size
from core.memory.simulated_offloading import offloading
from core.models.architecture import detect
from core.models.loading import LoadRequest
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING
from core.text import safe, shorten

_IGNORED = -100


def simulate_task(task: SimulationTask) -> Simulation:
    """The simulation, from the disk where it was kept. Raises SftuiError."""
    if (known := cached_simulation(task.key)) is not None:
        return known
    architecture = detect(task.folder, task.spec.sftui.preference)
    refuse(task.spec, architecture, task.shape)
    request = LoadRequest(task.folder, architecture, task.dtype, task.spec.attn_implementation, "cpu")
    try:
        simulation = simulate(task.spec, request, task.shape, on_gpu=task.on_gpu, grows=task.segments_grow)
    except SftuiError:
        raise
    except Exception as error:
        # The code of any model may ask fake tensors for what they do not have.
        traceback.print_exception(error)
        told = shorten(safe(" ".join(str(error).split())), 200)
        message = f"{architecture.model_type} cannot be simulated here: {type(error).__name__}: {told}."
        raise SftuiError("Not simulated", message, "The estimate stands.") from error
    keep_simulation(task.key, simulation)
    return simulation


def simulate(spec: RunSpec, request: LoadRequest, shape: BatchShape, *, on_gpu: bool, grows: bool = True) -> Simulation:
    """What two steps on batches of this shape hold. The request's device is of no weight.

    `grows` is whether the segments of the GPU's allocator do.

    Right only for what `why_not_simulated` finds nothing in. Raises whatever the model's code raises on fake tensors.
    """
    began = time.monotonic()
    # What compute_loss scores: every token that has one before it.
    selected = shape.real_tokens or shape.rows * shape.tokens
    selected -= 1 if shape.packed else shape.rows
    plain = not shape.packed if shape.real_tokens is None else shape.real_tokens == shape.rows * shape.tokens
    if "flash" in (request.attention or ""):
        # It keeps what the fused kernels of SDPA keep, and needs no mask.
        request, plain = replace(request, attention="sdpa"), True
    count = MemoryCount(max(selected, 1), masks_are_plain=plain, on_gpu=on_gpu, grows=grows)
    on_device: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    if on_gpu:
        on_device = functools.partial(AsOnGpu, count.pass_through)
    with contextlib.ExitStack() as stack:
        stack.enter_context(weights_unpacked_by_size())
        model = meta_model(spec, request, on_device)
        # Transformers takes fake tensors for a graph that is traced, which must hold for every mask.
        stack.enter_context(replaced(transformers.masking_utils, "is_tracing", lambda _tensor=None: False))
        if on_gpu:
            stack.enter_context(trl_as_on_gpu())
            stack.enter_context(bitsandbytes_as_on_gpu())
        stack.enter_context(QuickFakeMode())
        materialize(model)
        count.used_twice = used_twice(model)
        # So transformers loads on a GPU: it takes room for all weights, and gives it back to them.
        base = [one for one in model.parameters() if not (spec.use_peft and one.requires_grad)]
        count.pass_through(sum(one.numel() * one.element_size() for one in base))
        for tensor in (*model.parameters(), *model.buffers(), *constants(model)):
            count.take(tensor)
        around: AbstractContextManager[Any] = contextlib.nullcontext()
        if spec.extra_arguments.get(OFFLOADING):
            around = stack.enter_context(offloading(model, count))
        stack.enter_context(count)
        stack.enter_context(on_device())
        steps = _Steps(spec, model, request.dtype, shape, count, around, on_gpu=on_gpu)
        kept = steps.run()
    fixed, state = count.live["fixed"], count.live["optimizer"]
    peak = count.allocator.allocated_peak
    rest = max(0, peak - fixed - state - steps.gradients)
    logits = min(count.at_peak["head"], rest)
    return Simulation(
        activations=rest - logits,
        logits=logits,
        allocator=count.allocator.reserved_peak - peak,
        peak=peak,
        kept=kept,
        seconds=time.monotonic() - began,
    )


class _Loss(SFTTrainer):  # type: ignore[misc]
    """As much of a trainer as its compute_loss looks at."""

    def __init__(self, model: Any, coefficient: float | None) -> None:
        self.model = model
        self.accelerator = SimpleNamespace(parallelism_config=None, num_processes=1, gather_for_metrics=lambda one: one)
        self.args = SimpleNamespace(loss_type="nll", average_tokens_across_devices=True)
        self.compute_loss_func = self.label_smoother = None
        self.is_deepspeed_enabled = False
        self.current_gradient_accumulation_steps = 1
        self._metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens = 0
        self._tp_size = 1
        text = model.config.get_text_config()
        self.router_aux_loss_coef = getattr(text, "router_aux_loss_coef", 0.0) if coefficient is None else coefficient
        self.aux_loss_enabled = hasattr(text, "output_router_logits") and self.router_aux_loss_coef != 0.0
        if hasattr(text, "router_aux_loss_coef"):
            text.output_router_logits = self.aux_loss_enabled
            text.router_aux_loss_coef = self.router_aux_loss_coef


class _Steps:
    """The trainer's loop."""

    def __init__(
        self, spec: RunSpec, model: Any, dtype: str, shape: BatchShape, count: MemoryCount,
        around: AbstractContextManager[Any], *, on_gpu: bool,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._model = model
        self._shape = shape
        self._count = count
        self._around = around
        self._on_gpu = on_gpu
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.gradients = sum(parameter.numel() * parameter.element_size() for parameter in self._trained)
        base = model.get_base_model() if spec.use_peft else model
        add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
        getattr(base, base.base_model_prefix).register_forward_hook(self._after_backbone)
        self._trainer = _Loss(model, spec.extra_arguments.get("router_aux_loss_coef"))
        if dtype != "float32":
            # As accelerate's prepare_model does.
            cast = torch.autocast("cpu", dtype=getattr(torch, dtype))(model.forward.__func__)
            model.forward = MethodType(cast, model)

    def run(self) -> int:
        """Do two steps; returns the bytes that autograd keeps after the last forward pass."""
        # Whose state is told afterwards.
        self._step = optimizer = self._optimizer()
        self._count.part = "body"
        self._forward_and_backward()
        optimizer()
        # All further micro-batches of a step find the gradients of the first.
        for _ in range(min(2, self._spec.gradient_accumulation_steps)):
            kept = self._forward_and_backward()
        optimizer()
        return kept

    def _forward_and_backward(self) -> int:
        count = self._count
        before = count.exact("body", "head")
        count.part = "batch"
        batch = self._batch()
        count.part = "body"
        with self._around:
            loss = self._trainer.compute_loss(self._model, batch, num_items_in_batch=torch.ones((), dtype=torch.long))
            kept = count.exact("body", "head") - before
            loss.backward()
        count.part = "body"
        return kept

    def _after_backbone(self, module: Any, arguments: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        if hidden.requires_grad:
            self._count.part = "head"
            hidden.register_hook(self._before_backbone)

    def _before_backbone(self, gradient: torch.Tensor) -> None:
        self._count.part = "body"

    def _batch(self) -> dict[str, Any]:
        """What TRL's collator makes of so many tokens."""
        rows, tokens = self._shape.rows, self._shape.tokens
        if not self._shape.packed:
            ids = torch.empty((rows, tokens), dtype=torch.long)
            return {"input_ids": ids, "labels": torch.empty_like(ids), "attention_mask": torch.empty_like(ids)}
        ids = torch.empty((1, rows * tokens), dtype=torch.long)
        starts = torch.empty(rows + 1, dtype=torch.int32)
        return {
            "input_ids": ids,
            "labels": torch.empty_like(ids),
            "position_ids": torch.empty_like(ids),
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
            "max_length_q": tokens,
            "max_length_k": tokens,
            "seq_idx": torch.empty(ids.shape, dtype=torch.int32),
        }

    def _optimizer(self) -> Any:
        """What does the optimizer's step and forgets the gradients."""
        name = self._spec.optim
        makers = {
            "adamw_torch": lambda: torch.optim.AdamW(self._trained, foreach=self._on_gpu),
            "adamw_torch_fused": lambda: torch.optim.AdamW(self._trained, fused=True),
            "sgd": lambda: torch.optim.SGD(self._trained, foreach=self._on_gpu),
        }
        optimizer = makers[name]() if name in makers else None
        state: list[torch.Tensor] = []

        def step() -> None:
            self._count.part = "optimizer"
            if optimizer is not None:
                optimizer.step()
            elif not state:
                state.extend(self._state(name))
            for parameter in self._trained:
                parameter.grad = None
            self._count.part = "body"

        return step

    def _state(self, name: str) -> Iterator[torch.Tensor]:
        """The state of an optimizer of bitsandbytes, whose kernels take no fake tensors and need no other memory."""
        for parameter in self._trained:
            size, _ = optimizer_state(name, [Trained(1, parameter.numel(), parameter.element_size())])
            yield torch.empty(size or 0, dtype=torch.uint8)
