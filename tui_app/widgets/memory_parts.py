"""The parts of the memory as the screen shows them: a letter and a colour for the bar, words for the list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.text import human_bytes, safe, shorten

if TYPE_CHECKING:
    from core.devices.gpu import GpuProcess, GpuSnapshot
    from core.memory.estimate import MemoryEstimate

_EMBEDDINGS = "embeddings"
# Letter, words for the legend, words for the list, colour. No two letters are alike, so that none needs its colour.
_PARTS: dict[str, tuple[str, str, str, str]] = {
    "base_weights": ("W", "weights", "Base weights", "$primary"),
    "quantization_constants": ("Q", "constants", "Quantization constants", "$primary"),
    _EMBEDDINGS: ("E", "embedding", "Embedding and head", "$primary"),
    "adapter_weights": ("a", "adapters", "Adapter weights", "$accent"),
    "gradients": ("g", "gradients", "Gradients", "$accent"),
    "optimizer_state": ("o", "optimizer", "Optimizer state", "$accent"),
    "activations": ("A", "activations", "Activations", "$success"),
    "logits": ("h", "head", "Loss head", "$success"),
    "allocator_and_context": ("c", "context", "Allocator and context", "$secondary"),
}
STYLES = {letter: style for letter, _, _, style in _PARTS.values()}
_SHOWN_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class ShownPart:
    """One part as it is shown."""

    letter: str
    words: str
    """For the legend."""
    title: str
    """For the list."""
    bytes: int | None
    level: str
    basis: str


def shown_parts(memory: MemoryEstimate) -> list[ShownPart]:
    """The parts in the order of the bar; what is not quantized stands apart from what is."""
    found: list[ShownPart] = []
    for part in memory.parts:
        letter, words, title, _ = _PARTS.get(
            part.name, (part.name[:1].upper(), part.name.replace("_", " "), part.name.capitalize(), "")
        )
        apart = memory.embeddings_bytes if part.name == "base_weights" and memory.quantized_parameters else 0
        size = part.bytes - apart if part.bytes is not None else None
        found.append(ShownPart(letter, words, title, size, part.level, part.basis))
        if part.name == "quantization_constants" and memory.quantized_parameters and memory.embeddings_bytes:
            letter, words, title, _ = _PARTS[_EMBEDDINGS]
            level = next(one.level for one in memory.parts if one.name == "base_weights")
            found.append(ShownPart(letter, words, title, memory.embeddings_bytes, level, "not quantized"))
    return found


def holders(gpu: GpuSnapshot | None) -> str:
    """Who else holds memory of a GPU, where NVML tells: "vllm (user ml, pid 4121)"; empty where nobody is known."""
    processes = (gpu.processes or ()) if gpu is not None else ()
    named = [_holder(process, sized=len(processes) > 1) for process in processes[:_SHOWN_PROCESSES]]
    more = len(processes) - len(named)
    return ", ".join([*named, f"{more} more"] if more else named)


def _holder(process: GpuProcess, *, sized: bool) -> str:
    user = f"user {safe(process.user)}, " if process.user else ""
    size = f" {human_bytes(process.used_bytes)}" if sized and process.used_bytes is not None else ""
    return f"{shorten(safe(process.command or 'a process'), 24)}{size} ({user}pid {process.pid})"
