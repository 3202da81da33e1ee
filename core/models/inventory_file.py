"""The exact parameters of a model, as its class builds them, kept on disk: from then on, planning is arithmetic."""

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from core.errors import SftuiError
from core.models.architecture import AutoClass
from core.models.checkpoint_files import read_config
from core.models.precision import DTYPE_BYTES
from core.models.remote_code import find_remote_code
from core.models.tower_names import Part
from core.paths import cache_home, write_atomically

Kind = Literal["linear", "experts", "embedding", "head", "norm", "other", "buffer"]

# Part of every file's name: what an older sftui wrote is never read.
_FORMAT = 3
_PACKAGES = ("transformers", "peft", "bitsandbytes")
_OTHER_BYTES = {"float64": 8, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


@dataclass(frozen=True, slots=True)
class InventoryParameter:
    """One parameter, or one buffer, of a model."""

    name: str
    shape: tuple[int, ...]
    fixed_dtype: str | None
    """"float32": whatever the model is loaded in; None: as it is loaded."""
    float32_in: tuple[str, ...]
    """The dtypes to load in under which transformers keeps it in float32."""
    module_class: str
    """Of the module that holds it: "Linear", "MixtralExperts"."""
    tied_to: str | None
    """The parameter whose storage it shares; it takes no memory of its own."""
    quantizable: bool
    """Whether bitsandbytes quantizes it."""
    lora_elements: tuple[int, int] | None
    """Weights of the A and B that "all-linear", with the towers, adds at rank 1; None when it is not adapted."""
    kind: Kind
    part: Part
    by_weight: bool = False
    """A linear layer whose name PEFT takes for the fused experts': it is adapted by its weight, or not at all."""

    @property
    def adaptable(self) -> bool:
        """Whether "all-linear" adapts it, where its part is trained."""
        return self.lora_elements is not None

    @property
    def module(self) -> str:
        """The name of the module that holds it."""
        return self.name.rpartition(".")[0]

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


def element_bytes(dtype: str, fixed_dtype: str | None, float32_in: tuple[str, ...]) -> int:
    """Bytes of one element, not quantized, of a parameter whose model is loaded in `dtype`."""
    own = fixed_dtype or ("float32" if dtype in float32_in else dtype)
    return DTYPE_BYTES.get(own) or _OTHER_BYTES[own]


@dataclass(frozen=True)
class Inventory:
    """All parameters and buffers of a model, in the order of its modules."""

    model_type: str
    auto_class: AutoClass
    versions: Mapping[str, str]
    """Of the libraries that built it."""
    parameters: tuple[InventoryParameter, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        rows = [
            [p.name, p.shape, p.fixed_dtype, p.float32_in, p.module_class, p.tied_to, p.quantizable, p.lora_elements,
             p.kind, p.part, p.by_weight]
            for p in self.parameters
        ]  # fmt: skip
        return {
            "model_type": self.model_type,
            "auto_class": self.auto_class,
            "versions": dict(self.versions),
            "parameters": rows,
        }

    @classmethod
    def from_json(cls, value: Any) -> "Inventory":
        """The inventory in a JSON object. Raises ValueError for anything else."""
        try:
            parameters = tuple(_parameter(*row) for row in value["parameters"])
            if value["auto_class"] not in get_args(AutoClass) or not parameters:
                raise ValueError("no inventory")
            versions = {str(name): str(version) for name, version in value["versions"].items()}
            return cls(str(value["model_type"]), value["auto_class"], versions, parameters)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no inventory: {error}") from error


def _parameter(
    name: str, shape: list[int], fixed: str | None, float32_in: list[str], module_class: str, tied_to: str | None,
    quantizable: bool, lora: list[int] | None, kind: Kind, part: Part, by_weight: bool,
) -> InventoryParameter:  # fmt: skip
    known = (fixed is None or fixed in DTYPE_BYTES or fixed in _OTHER_BYTES) and kind in get_args(Kind)
    if not known or part not in get_args(Part) or not isinstance(name, str):
        raise ValueError(f"no parameter: {name}")
    sizes = tuple(int(size) for size in shape)
    per_rank = None if lora is None else (int(lora[0]), int(lora[1]))
    return InventoryParameter(
        name, sizes, fixed, tuple(float32_in), str(module_class), tied_to, bool(quantizable), per_rank, kind, part,
        bool(by_weight),
    )  # fmt: skip


@functools.cache
def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that an inventory depends on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def inventory_path(folder: Path, auto_class: AutoClass) -> Path:
    """Where the inventory of a model is kept. Raises SftuiError or OSError when config.json cannot be read."""
    code = find_remote_code(folder, read_config(folder))
    what = [_FORMAT, auto_class, sorted(library_versions().items()), code.revision if code else None]
    digest = hashlib.sha256((folder / "config.json").read_bytes() + json.dumps(what).encode())
    return cache_home() / "inventory" / f"{digest.hexdigest()}.json"


def cached_inventory(folder: Path, auto_class: AutoClass) -> Inventory | None:
    """The inventory that was built for this configuration and these libraries; None if there is none."""
    # A damaged file costs building it again, nothing else.
    with contextlib.suppress(SftuiError, OSError, ValueError, RecursionError, metadata.PackageNotFoundError):
        return Inventory.from_json(json.loads(inventory_path(folder, auto_class).read_text(encoding="utf-8")))
    return None


def keep_inventory(folder: Path, inventory: Inventory) -> None:
    """Keep an inventory for the next time; a cache that cannot be written is no failure."""
    with contextlib.suppress(SftuiError, OSError):
        path = inventory_path(folder, inventory.auto_class)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(inventory.to_json(), separators=(",", ":")))
