"""The parts of a model: its output head, and the towers for images and sound beside the language model."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from core.models.tower_names import AUDIO_NAME, HEAD_NAME, VISION_NAME


@dataclass(frozen=True, slots=True)
class Towers:
    """The parts of a model that do not read text."""

    vision: frozenset[str]
    """Modules of the vision tower and of what projects into the language model."""
    audio: frozenset[str]


def find_towers(model: Any) -> Towers:
    """Tell the language model from the towers beside it, by transformers' own accessor and by names within it."""
    decoder, embeddings = model.get_decoder(), model.get_input_embeddings()
    names = [name for name, _ in model.named_modules() if name]
    found = {name for name in names if VISION_NAME.search(name) or AUDIO_NAME.search(name)}
    whole = decoder is model or decoder is model.base_model
    if not whole and any(module is embeddings for module in decoder.modules()):
        inside = next(name for name, module in model.named_modules() if module is decoder)
        language = output_head(model) | {inside}
        found |= {name for name in names if not within(name, language) and not inside.startswith(f"{name}.")}
    audio = {name for name in found if AUDIO_NAME.search(name)}
    return Towers(frozenset(found - audio), frozenset(audio))


def output_head(model: Any) -> frozenset[str]:
    """Names of the modules between the last hidden state and the logits, each of which stands for all within it."""
    names = {name for name, _ in model.named_modules() if HEAD_NAME.search(name)}
    head = model.get_output_embeddings()
    at = next((name for name, module in model.named_modules() if head is not None and module is head), None)
    if at is None:
        return frozenset(names)
    embeddings = model.get_input_embeddings()
    parts = at.split(".")
    for depth in range(1, len(parts) + 1):
        above = model.get_submodule(".".join(parts[:depth]))
        if above is head or not any(module is embeddings for module in above.modules()):
            return frozenset(names | {".".join(parts[:depth])})
    return frozenset(names)


def within(name: str, above: Collection[str]) -> bool:
    """Whether a module is one of these, or lies in one of them."""
    return any(part in above for part in _upwards(name))


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
