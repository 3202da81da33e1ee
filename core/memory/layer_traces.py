"""What the layers of a model hold in a training step, as its own code was seen to hold it; kept on disk.

One layer of each kind was gone through with fake tensors, its weights frozen or trained, without adapters: what those
add is arithmetic over what goes into the layers that they adapt. Sizes are bytes of a row of T tokens, as three
numbers: whatever its length, for each token, and for each pair of tokens.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from core.errors import SftuiError
from core.models.architecture import AutoClass
from core.models.inventory_file import inventory_path
from core.paths import write_atomically

AttentionKind = Literal["eager", "fused", "masked"]
"""Scores written out, a fused kernel, or a fused kernel that is given a mask."""
Trained = Literal["adapters", "adapters on 4 bit", "adapters on 8 bit", "adapters on experts", "all"]

# What an older sftui wrote is never read.
_FORMAT = 3


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes of a row of tokens."""

    fixed: float
    by_token: float
    by_pair: float

    def of(self, rows: int, tokens: int) -> float:
        """Bytes of so many rows of so many tokens."""
        return self.fixed + rows * tokens * (self.by_token + tokens * self.by_pair)


@dataclass(frozen=True, slots=True)
class Input:
    """What goes into a linear layer."""

    name: str
    """Of its weight, with a star for each number."""
    width: float
    """Elements for each token of the row."""
    element_bytes: int
    tensor: int
    """Layers with the same number are given the same tensor."""
    is_kept: bool
    """Whether that is kept for the backward pass anyway."""
    wants_gradient: bool
    """Whether there is anything to train before it."""


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Layers of a model that are alike."""

    count: int
    weights: int
    """Number of elements in all its parameters."""
    kept: Growth
    """For the backward pass, without what adapters add."""
    beyond: Growth
    """What it holds beyond all that is kept, at most, while it is computed again and gone through backwards."""
    least: float
    """The same for few tokens, where weights weigh more: bytes."""
    inputs: tuple[Input, ...]

    def beyond_of(self, rows: int, tokens: int) -> float:
        """What it holds beyond all that is kept for so many rows of so many tokens."""
        return max(self.beyond.of(rows, tokens), self.least)


@dataclass(frozen=True, slots=True)
class ModelTrace:
    """A step of a model under one set of conditions."""

    around: Growth
    """Kept outside the layers, but for the head: positions, a mask, the last norm."""
    inside: Growth
    """As much of that as is left when the backward pass reaches the layers."""
    passed: Growth
    """What layers are given beside, and only they keep for being computed again."""
    stream: float
    """Bytes of what goes from layer to layer, for each token."""
    entry: float
    """Bytes of what goes into the first layer, for each token."""
    embedded: float
    """Bytes of what comes out of the embedding, for each token, where that is something else."""
    answer: float
    """Bytes of what goes into the output head, for each token."""
    first: LayerKind | None
    """The first layer where nothing before it is trained: it keeps less. It is counted among the kinds too."""
    kinds: tuple[LayerKind, ...]


@dataclass(frozen=True)
class LayerTraces:
    """All that was traced of a model."""

    by_condition: Mapping[str, ModelTrace]
    devices: frozenset[str]
    """For which it was tried: "cpu", "gpu"."""

    @classmethod
    def none(cls, *, on_gpu: bool) -> "LayerTraces":
        """That there is nothing to be found out for this kind of device."""
        return cls({}, frozenset({_device(on_gpu)}))

    def tried_on(self, *, on_gpu: bool) -> bool:
        """Whether nothing more is to be found out for this kind of device."""
        return _device(on_gpu) in self.devices

    def find(
        self, attention: AttentionKind, trained: Trained, *, bits: int, on_gpu: bool, offloads: bool = False,
        one_row: bool = False,
    ) -> ModelTrace | None:  # fmt: skip
        """The step under these conditions."""
        # Those of a special kind are traced only where they differ.
        alike = {"adapters on 8 bit": ("adapters on 4 bit", "adapters"), "all": ()}.get(trained, ("adapters",))
        for kind in (trained, *alike):
            for alone in (True, False) if one_row else (False,):
                name = condition(attention, kind, bits=bits, on_gpu=on_gpu, offloads=offloads, one_row=alone)
                if (found := self.by_condition.get(name)) is not None:
                    return found
        return None

    def joined(self, other: "LayerTraces") -> "LayerTraces":
        """What either was traced for."""
        return LayerTraces({**self.by_condition, **other.by_condition}, self.devices | other.devices)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        rows = {name: _model_row(trace) for name, trace in self.by_condition.items()}
        return {"devices": sorted(self.devices), "steps": rows}

    @classmethod
    def from_json(cls, value: Any) -> "LayerTraces":
        """The traces in a JSON object. Raises ValueError for anything else."""
        try:
            steps = {str(name): _model(row) for name, row in value["steps"].items()}
            return cls(steps, frozenset(str(name) for name in value["devices"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"no traces: {error}") from error


def condition(
    attention: AttentionKind, trained: str, *, bits: int, on_gpu: bool, offloads: bool = False, one_row: bool = False
) -> str:
    """The name of a set of conditions; `bits` are those of what is computed in, 16 or 32.

    With `offloads`, what the backward pass needs is on the host meanwhile.
    """
    more = f"{', offloaded' if offloads else ''}{', one row' if one_row else ''}"
    return f"{attention}, {trained}, {bits}, {_device(on_gpu)}{more}"


def cached_traces(folder: Path, auto_class: AutoClass) -> LayerTraces | None:
    """What was traced of the model in `folder` with these libraries; None if nothing was."""
    found = None
    for on_gpu in (False, True):
        # A damaged file costs tracing again, nothing else.
        with contextlib.suppress(SftuiError, OSError, ValueError, RecursionError, metadata.PackageNotFoundError):
            kept = LayerTraces.from_json(json.loads(_file(folder, auto_class, on_gpu).read_text(encoding="utf-8")))
            found = kept if found is None else found.joined(kept)
    return found


def keep_traces(folder: Path, auto_class: AutoClass, traces: LayerTraces, *, on_gpu: bool) -> None:
    """Keep what was traced for one kind of device; a cache that cannot be written is no failure."""
    with contextlib.suppress(SftuiError, OSError):
        file = _file(folder, auto_class, on_gpu)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(traces.to_json(), separators=(",", ":")))


def _file(folder: Path, auto_class: AutoClass, on_gpu: bool) -> Path:
    torch = metadata.version("torch")
    return inventory_path(folder, auto_class).with_suffix(f".{_device(on_gpu)}-{torch}-{_FORMAT}.json")


def _device(on_gpu: bool) -> str:
    return "gpu" if on_gpu else "cpu"


def _growth_row(growth: Growth) -> list[float]:
    return [growth.fixed, growth.by_token, growth.by_pair]


def _kind_row(kind: LayerKind) -> list[Any]:
    inputs = [
        [one.name, one.width, one.element_bytes, one.tensor, one.is_kept, one.wants_gradient] for one in kind.inputs
    ]
    return [kind.count, kind.weights, _growth_row(kind.kept), _growth_row(kind.beyond), kind.least, inputs]


def _model_row(trace: ModelTrace) -> list[Any]:
    first = None if trace.first is None else _kind_row(trace.first)
    return [
        _growth_row(trace.around),
        _growth_row(trace.inside),
        _growth_row(trace.passed),
        trace.stream,
        trace.entry,
        trace.embedded,
        trace.answer,
        first,
        [_kind_row(kind) for kind in trace.kinds],
    ]


def _growth(row: Any) -> Growth:
    fixed, by_token, by_pair = row
    return Growth(float(fixed), float(by_token), float(by_pair))


def _kind(row: Any) -> LayerKind:
    count, weights, kept, beyond, least, rows = row
    inputs = tuple(
        Input(str(name), float(width), int(element), int(tensor), bool(is_kept), bool(wants_gradient))
        for name, width, element, tensor, is_kept, wants_gradient in rows
    )
    return LayerKind(int(count), int(weights), _growth(kept), _growth(beyond), float(least), inputs)


def _model(row: Any) -> ModelTrace:
    around, inside, passed, stream, entry, embedded, answer, first, kinds = row
    return ModelTrace(
        around=_growth(around),
        inside=_growth(inside),
        passed=_growth(passed),
        stream=float(stream),
        entry=float(entry),
        embedded=float(embedded),
        answer=float(answer),
        first=None if first is None else _kind(first),
        kinds=tuple(_kind(kind) for kind in kinds),
    )
