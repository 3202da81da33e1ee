"""What the arithmetic says of a step, for tests that hold it to something else."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.memory.batch_shape import BatchShape
from core.memory.estimate import MemoryEstimate
from core.memory.layer_traces import AttentionKind, LayerTraces, ModelTrace, Trained
from core.memory.plan import ModelFacts
from core.memory.step_parts import HeldInStep, held_in_step, with_step
from core.models.adapter_files import start_of
from core.models.architecture import AutoClass, detect
from core.models.checkpoint_files import read_tensors
from core.spec.run_spec import RunSpec


@dataclass(frozen=True)
class Estimated:
    """Bytes of a step."""

    kept: int
    """Between the forward and the backward pass."""
    peak: int
    """With weights and training state, and without what an allocator takes."""
    step: int
    """As much of that as is neither."""
    traced: bool
    """By what the model's layers were seen to hold."""
    basis: str
    """What a plan says of that."""


_MORE: dict[str, dict[str, Any]] = {"": {}, "offloaded": {"offloads": True}, "one row": {"rows": 1}}


class TracesOnDemand(Mapping[str, ModelTrace]):
    """The traces of a model, each made when it is asked for: a test needs one or two of a dozen."""

    def __init__(self, config: Any, auto_class: AutoClass) -> None:
        self._of = config, auto_class
        self._made: dict[str, ModelTrace] = {}

    def __getitem__(self, name: str) -> ModelTrace:
        import transformers.masking_utils

        from core.memory.layer_pass import ExampleLayers
        from core.memory.layer_tracing import DTYPES, trace
        from core.memory.simulated_gpu import replaced

        if name not in self._made:
            attention, trained, bits, device, *more = name.split(", ")
            kind, how = cast(AttentionKind, attention), cast(Trained, trained)
            with replaced(transformers.masking_utils, "is_tracing", lambda _tensor=None: False):
                layers = ExampleLayers(*self._of, DTYPES[int(bits)], "eager" if kind == "eager" else "sdpa", False)
                self._made[name] = trace(layers, kind, how, on_gpu=device == "gpu", **_MORE[" ".join(more)])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@functools.lru_cache(maxsize=32)
def facts_of(folder: Path) -> ModelFacts:
    """What is known of the model whose configuration is there, its layers traced on demand."""
    from transformers import AutoConfig

    from core.models.inventory import inventory_of

    config, known = AutoConfig.from_pretrained(folder), detect(folder)
    traces = LayerTraces(TracesOnDemand(config, known.auto_class), frozenset(("cpu", "gpu")))
    tensors = read_tensors(folder) if known.stored_quantization else ()
    return ModelFacts(folder, known, tensors, inventory_of(config, known.auto_class), traces=traces)


def estimate_for(spec: RunSpec, shape: BatchShape, *, on_gpu: bool, traced: bool) -> tuple[MemoryEstimate, HeldInStep]:
    """What a plan of this spec is made of, but for what an allocator takes; and what a step holds of that."""
    from core.memory.spec_estimate import adapted_by, as_started, estimate_of

    facts, dtype = facts_of(Path(spec.model_name_or_path)), str(spec.dtype)
    start = None if spec.sftui.start_from_adapter is None else start_of(spec.sftui.start_from_adapter)
    memory = estimate_of(spec, facts.weights, dtype, start)
    assert memory is not None
    adapted = adapted_by(spec, facts.weights, start)
    found = held_in_step(
        memory, as_started(spec, start), facts.weights, facts.architecture, adapted, dtype=dtype,
        attention=str(spec.attn_implementation), shape=shape, on_gpu=on_gpu, traces=facts.traces if traced else None,
    )  # fmt: skip
    assert found is not None
    return with_step(memory, spec, shape, found), found


def estimated(spec: RunSpec, shape: BatchShape, *, on_gpu: bool, traced: bool = True) -> Estimated:
    """What a plan of this spec is made of, where the layers were traced or were not."""
    memory, found = estimate_for(spec, shape, on_gpu=on_gpu, traced=traced)
    parts = {part.name: part for part in memory.parts}
    step = sum(parts[name].bytes or 0 for name in ("activations", "logits"))
    return Estimated(found.bytes.kept, memory.known_bytes, step, found.traced, parts["activations"].basis)
