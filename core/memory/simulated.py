"""What a simulation of training steps found, kept on disk; and what is not simulated."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.memory.batch_shape import BatchShape
from core.memory.optimizer_state import optimizer_state
from core.models.adapter_files import start_of
from core.models.architecture import Architecture
from core.models.checkpoint_files import read_config
from core.models.prequantized import only_bitsandbytes
from core.models.remote_code import find_remote_code
from core.paths import cache_home, write_atomically
from core.spec.run_spec import RunSpec
from core.spec.trl_arguments import OFFLOADING
from core.text import safe

_FORMAT = 3
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
_OF_NO_WEIGHT = (
    "logging_", "log_", "save_", "eval_", "hub_", "adam_", "dataloader_", "report_", "run_name", "lr_", "warmup_",
    "router_aux_loss_coef", "data_seed", "push_to_hub", "load_best", "metric_for", "greater_is", "full_determinism",
    "disable_tqdm", "shuffle_dataset", "pad_token", "eos_token", "dataset_", "chat_template", "project", "trackio",
)  # fmt: skip
"""How arguments begin that change nothing in how much a step holds."""
_OF_WEIGHT = {
    "attn_implementation", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "use_peft",
    "lora_r", "lora_dropout", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save", "use_dora",
    "activation_checkpointing", "optim", "extra_arguments",
}  # fmt: skip
"""The options that change it."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What two training steps hold at their worst, in bytes."""

    activations: int
    """At the peak, beyond weights, adapters, gradients, optimizer state and the logits' part."""
    logits: int
    """What the output head and the loss hold at the peak."""
    allocator: int
    """What the caching allocator reserves at most beyond what is allocated at most."""
    peak: int
    """Of all that is allocated."""
    kept: int
    """What autograd keeps between the forward and the backward pass."""
    seconds: float
    """That the simulation took."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Simulation":
        """The simulation in a JSON object. Raises ValueError for anything else."""
        try:
            sizes = {name: int(value[name]) for name in ("activations", "logits", "allocator", "peak", "kept")}
            return cls(**sizes, seconds=float(value["seconds"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no simulation: {error}") from error


def why_not_simulated(spec: RunSpec, architecture: Architecture, shape: BatchShape) -> str | None:
    """Why a simulation of this spec would not be right, in words; None where it is."""
    attention = spec.attn_implementation or ""
    padded = not shape.packed and shape.real_tokens != shape.rows * shape.tokens
    stored = architecture.stored_quantization
    if not only_bitsandbytes(stored):
        return f"checkpoints that are stored in {safe(str(stored))} are not simulated"
    if spec.use_peft and spec.sftui.start_from_adapter is not None:
        try:
            start_of(spec.sftui.start_from_adapter)
        except SftuiError:
            return "the adapter to start from cannot be read"
    if "flash" in attention and padded and shape.rows > 1:
        return f"{attention} takes the padding out of a batch first, which is not simulated"
    if attention not in ("", "eager", "sdpa") and "flash" not in attention:
        return f"{attention} is not simulated"
    if optimizer_state(spec.optim, [])[0] is None:
        return f"the state of {spec.optim} is not known here"
    for name in spec.extra_arguments:
        if name != OFFLOADING and not name.startswith(_OF_NO_WEIGHT):
            return f"what {name} does to memory is not simulated"
    return None


def refuse(spec: RunSpec, architecture: Architecture, shape: BatchShape) -> None:
    """Raise SftuiError for what is not simulated."""
    why = why_not_simulated(spec, architecture, shape)
    if why is not None:
        raise SftuiError("Not simulated", f"{why[0].upper()}{why[1:]}.", "The estimate stands.")


@dataclass(frozen=True)
class SimulationTask:
    """What is to be simulated."""

    spec: RunSpec
    folder: Path
    """The model's."""
    auto_class: str
    dtype: str
    on_gpu: bool
    """As on a GPU, or as on the CPU."""
    shape: BatchShape
    segments_grow: bool = True
    """Those of the GPU's allocator."""

    @functools.cached_property
    def what(self) -> dict[str, Any]:
        """All of it that changes the answer, but for the model's own files."""
        values = self.spec.model_dump(mode="json", include=_OF_WEIGHT)
        return values | {
            "auto_class": self.auto_class,
            "dtype": self.dtype,
            "on_gpu": self.on_gpu,
            "shape": asdict(self.shape),
            "segments_grow": self.segments_grow,
            "skip_modules": self.spec.sftui.skip_modules,
            "train_vision": self.spec.sftui.train_vision,
            "start": self._start,
            "accumulates": self.spec.gradient_accumulation_steps > 1,
        }

    @property
    def _start(self) -> list[Any] | None:
        named = self.spec.sftui.start_from_adapter
        if not self.spec.use_peft or named is None:
            return None
        # Nothing is simulated with one that cannot be read.
        with contextlib.suppress(SftuiError):
            start = start_of(named)
            return [start.dropout, start.modules_to_save, sorted(start.shapes.items())]
        return [named]

    def asks_the_same(self, other: "SimulationTask | None") -> bool:
        """Whether the answer to the other task is the answer to this one, as long as the model's files are the same."""
        return other is not None and self.folder == other.folder and self.what == other.what

    @functools.cached_property
    def key(self) -> str:
        """All that the answer depends on, as a name. Raises SftuiError or OSError when config.json cannot be read."""
        code = find_remote_code(self.folder, read_config(self.folder))
        versions = {name: metadata.version(name) for name in _PACKAGES}
        what = [_FORMAT, self.what, versions, code.revision if code else None]
        text = (self.folder / "config.json").read_bytes() + json.dumps(what, sort_keys=True).encode()
        return hashlib.sha256(text).hexdigest()

    def question(self) -> dict[str, Any]:
        """What the warm runner is asked; its answer is a Simulation."""
        return {"ask": "simulate", "task": self.to_json()}

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "folder": str(self.folder),
            "auto_class": self.auto_class,
            "dtype": self.dtype,
            "on_gpu": self.on_gpu,
            "shape": asdict(self.shape),
            "segments_grow": self.segments_grow,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SimulationTask":
        """The task in a JSON object."""
        return cls(
            spec=RunSpec.model_validate(value["spec"]),
            folder=Path(value["folder"]),
            auto_class=value["auto_class"],
            dtype=value["dtype"],
            on_gpu=value["on_gpu"],
            shape=BatchShape(**value["shape"]),
            segments_grow=value["segments_grow"],
        )


def cached_simulation(key: str) -> Simulation | None:
    """The simulation that was kept under this key; None if there is none."""
    # A damaged file costs simulating again, nothing else.
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return Simulation.from_json(json.loads(_file(key).read_text(encoding="utf-8")))
    return None


def keep_simulation(key: str, simulation: Simulation) -> None:
    """Keep a simulation for the next time; a cache that cannot be written is no failure."""
    with contextlib.suppress(OSError):
        _file(key).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(key), json.dumps(simulation.to_json()))


def _file(key: str) -> Path:
    return cache_home() / "simulation" / f"{key}.json"
