"""What the layers of a model hold in a training step, as its own code was seen to hold it; kept on disk.

One layer of each kind was gone through with fake tensors, its weights frozen or trained, without adapters: what those
add is arithmetic over what goes into the layers that they adapt. Sizes are bytes of a row of T tokens, as three
numbers: whatever its length, for each token, and for each pair of tokens.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.errors import SftuiError
from core.models.architecture import AutoClass
from core.models.inventory_file import inventory_path
from core.paths import write_atomically

AttentionKind = Literal["eager", "fused", "masked"]
"""Scores written out, a fused kernel, or a fused kernel that is given a mask."""

# What an older sftui wrote is never read.
_FORMAT = 1


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


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Layers of a model that are alike."""

    count: int
    kept: Growth
    """For the backward pass."""
    working: Growth
    """At most, while it is computed again and gone through backwards: with what it keeps then."""
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class ModelTrace:
    """A step of a model under one set of conditions."""

    around: Growth
    """Kept outside the layers, but for the head: positions, a mask, the last norm."""
    passed: Growth
    """What layers are given beside, and only they keep for being computed again."""
    stream: float
    """Bytes of what goes from layer to layer, for each token."""
    answer: float
    """Bytes of what goes into the output head, for each token."""
    first: LayerKind | None
    """The first layer where nothing before it is trained: it keeps less. It is counted among the kinds too."""
    kinds: tuple[LayerKind, ...]


@dataclass(frozen=True)
class LayerTraces:
    """All that was traced of a model."""

    by_condition: Mapping[str, ModelTrace]

    def find(self, attention: AttentionKind, *, trains_all: bool, bits: int, on_gpu: bool) -> ModelTrace | None:
        """The step under these conditions."""
        return self.by_condition.get(condition(attention, trains_all=trains_all, bits=bits, on_gpu=on_gpu))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {name: _model_row(trace) for name, trace in self.by_condition.items()}

    @classmethod
    def from_json(cls, value: Any) -> "LayerTraces":
        """The traces in a JSON object. Raises ValueError for anything else."""
        try:
            return cls({str(name): _model(row) for name, row in value.items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no traces: {error}") from error


def condition(attention: AttentionKind, *, trains_all: bool, bits: int, on_gpu: bool) -> str:
    """The name of a set of conditions; `bits` are those of what is computed in, 16 or 32."""
    return f"{attention} {'all' if trains_all else 'adapters'} {bits} {'gpu' if on_gpu else 'cpu'}"


def cached_traces(folder: Path, auto_class: AutoClass) -> LayerTraces | None:
    """What was traced of the model in `folder` with these libraries; None if nothing was."""
    with contextlib.suppress(SftuiError, OSError, ValueError, RecursionError):
        return LayerTraces.from_json(json.loads(_file(folder, auto_class).read_text(encoding="utf-8")))
    return None


def keep_traces(folder: Path, auto_class: AutoClass, traces: LayerTraces) -> None:
    """Keep them for the next time; a cache that cannot be written is no failure."""
    with contextlib.suppress(SftuiError, OSError):
        file = _file(folder, auto_class)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(traces.to_json(), separators=(",", ":")))


def _file(folder: Path, auto_class: AutoClass) -> Path:
    return inventory_path(folder, auto_class).with_suffix(f".layers{_FORMAT}.json")


def _growth_row(growth: Growth) -> list[float]:
    return [growth.fixed, growth.by_token, growth.by_pair]


def _kind_row(kind: LayerKind) -> list[Any]:
    inputs = [[one.name, one.width, one.element_bytes, one.tensor, one.is_kept] for one in kind.inputs]
    return [kind.count, _growth_row(kind.kept), _growth_row(kind.working), inputs]


def _model_row(trace: ModelTrace) -> list[Any]:
    first = None if trace.first is None else _kind_row(trace.first)
    return [
        _growth_row(trace.around),
        _growth_row(trace.passed),
        trace.stream,
        trace.answer,
        first,
        [_kind_row(kind) for kind in trace.kinds],
    ]


def _growth(row: Any) -> Growth:
    fixed, by_token, by_pair = row
    return Growth(float(fixed), float(by_token), float(by_pair))


def _kind(row: Any) -> LayerKind:
    count, kept, working, rows = row
    inputs = tuple(
        Input(str(name), float(width), int(element), int(tensor), bool(is_kept))
        for name, width, element, tensor, is_kept in rows
    )
    return LayerKind(int(count), _growth(kept), _growth(working), inputs)


def _model(row: Any) -> ModelTrace:
    around, passed, stream, answer, first, kinds = row
    found = tuple(_kind(kind) for kind in kinds)
    return ModelTrace(
        _growth(around), _growth(passed), float(stream), float(answer), None if first is None else _kind(first), found
    )
