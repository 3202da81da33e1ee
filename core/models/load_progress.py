"""How far the weights of a model are loaded: counted in the bytes and files of the checkpoint. No torch in here."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from core.models.checkpoint_files import TensorInfo, read_json_object

Tell = Callable[[int, int, int, int], object]
"""Told the bytes that are done and all bytes, the files that are done and all files."""

_SECONDS_BETWEEN = 0.2
_INDEX = "model.safetensors.index.json"


class LoadMeter:
    """Counts what transformers has put into the model, and lets a stop through between two weights."""

    def __init__(
        self,
        folder: Path,
        tensors: Iterable[TensorInfo],
        tell: Tell,
        check: Callable[[], object],
    ) -> None:
        self._bytes = {tensor.name: tensor.byte_count for tensor in tensors}
        self._shards = _files(folder)
        self._tell = tell
        self._check = check

    def watch(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield the pairs of (name, where it comes from) that transformers loads, and count each when it is done.

        Raises what `check` raises, between two weights. Tensors that the model has no place for are not counted.
        """
        items = [(pair, [name for names in pair[1].layer_targets.values() for name in names]) for pair in weights]
        left = Counter(self._shards.get(name, "") for _, names in items for name in names)
        total_bytes, total_files = sum(self._bytes.get(name, 0) for _, names in items for name in names), len(left)
        done = 0
        told = time.monotonic()
        self._tell(0, total_bytes, 0, total_files)
        for pair, names in items:
            self._check()
            yield pair
            done += sum(self._bytes.get(name, 0) for name in names)
            left.subtract(self._shards.get(name, "") for name in names)
            if time.monotonic() - told >= _SECONDS_BETWEEN:
                told = time.monotonic()
                self._tell(done, total_bytes, total_files - _unfinished(left), total_files)
        self._tell(done, total_bytes, total_files - _unfinished(left), total_files)


def _files(folder: Path) -> dict[str, str]:
    """Return which file each tensor is in; nothing where there is one file for all."""
    if not (folder / _INDEX).is_file() or (folder / "model.safetensors").is_file():
        return {}
    weight_map = read_json_object(folder / _INDEX, "The index of the weights cannot be read").get("weight_map")
    return weight_map if isinstance(weight_map, dict) else {}


def _unfinished(left: Counter[str]) -> int:
    return sum(count > 0 for count in left.values())
