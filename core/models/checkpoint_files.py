"""A read-only look at a checkpoint's files: config.json, the headers of safetensors, the Hugging Face cache.

No tensor is read and nothing is unpickled, so a folder from anywhere can be looked at in milliseconds.
"""

import json
import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.paths import expand
from core.text import safe

# The format's own limit: a longer header is a damaged or hostile file.
_MAX_HEADER_BYTES = 100_000_000
DTYPE_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "BF16": 2,
    "F16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
}
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
# The largest tokenizer.json known has 33 MB; reading more than this at once is not harmless any more.
_MAX_JSON_BYTES = 100_000_000


class ModelNotHereError(SftuiError):
    """A hub id, or a revision of one, that is not in the cache: a download may bring it."""


class NotSafetensorsError(SftuiError):
    """The weights are there, but only in a form that has to be converted first."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as a safetensors header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """In the format's words: "BF16", "F32", "U8"."""
    byte_count: int

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def is_parameter(self) -> bool:
        """Whether it is a float weight; masks, rotary frequencies and statistics of the router are buffers."""
        if self.name.endswith(("inv_freq", "e_score_correction_bias")):
            return False
        mask = self.name.endswith(".masked_bias") or (self.name.endswith(".bias") and len(self.shape) > 2)
        return self.dtype[0] in "FB" and self.dtype != "BOOL" and not mask


def read_config(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json. Raises SftuiError when it is missing, or not a JSON object."""
    path = folder / "config.json"
    if not path.is_file():
        raise _no_config(folder)
    return read_json_object(path, "The model's configuration cannot be read")


def read_json_object(path: Path, title: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises SftuiError with the file and the line when there is none."""
    name = safe(str(path))
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise SftuiError(title, f"{name} has {path.stat().st_size:,} bytes: that is no configuration.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SftuiError(title, f"{name}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise SftuiError(title, f"{name}:{error.lineno}: {error.msg}, column {error.colno}.") from error
    except (ValueError, RecursionError) as error:
        raise SftuiError(title, f"{name} is not JSON in UTF-8: {safe(str(error))}.") from error
    if not isinstance(value, dict):
        raise SftuiError(title, f"{name}:1: a JSON object is needed, and this is a {type(value).__name__}.")
    return value


def _no_config(folder: Path) -> SftuiError:
    name = safe(str(folder))
    if (folder / "model_index.json").is_file():
        return SftuiError(
            "Not a language model",
            f"{name} is a diffusion pipeline (model_index.json): it makes images, video or sound out of noise.",
            "Choose a language model: a folder with config.json and *.safetensors.",
        )
    if (folder / _ADAPTER).is_file():
        base = adapter_base(folder)
        of = f"an adapter for {safe(base)}" if base else "an adapter, of a base model that it does not name"
        return SftuiError(
            "An adapter, not a model",
            f"{name} holds a PEFT adapter ({_ADAPTER}), {of}, without a base model.",
            f"Choose the base model{f' {safe(base)}' if base else ''}, or merge the adapter into it first.",
        )
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs:
        return _only_gguf(ggufs[0], f"{name} holds a GGUF file and no config.json")
    return SftuiError(
        "Not a model folder",
        f"{name} has no config.json.",
        "Choose the folder that from_pretrained would load: config.json, *.safetensors and the tokenizer.",
    )


def adapter_base(folder: Path) -> str | None:
    """Return the base model that the PEFT adapter in `folder` names; None without an adapter, or without a name.

    Raises SftuiError when the adapter's configuration cannot be read.
    """
    if not (folder / _ADAPTER).is_file():
        return None
    adapter = read_json_object(folder / _ADAPTER, "The adapter's configuration cannot be read")
    base = adapter.get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def read_tensors(folder: Path) -> tuple[TensorInfo, ...]:
    """Return the tensors of a checkpoint, from the headers of its one file or of all shards, sorted by name.

    Raises SftuiError when weights or shards are missing, cut short or damaged; NotSafetensorsError when they are only
    there as pickle or GGUF.
    """
    if (folder / _WEIGHTS).is_file():
        return tuple(sorted(read_header(folder / _WEIGHTS), key=lambda tensor: tensor.name))
    if not (folder / _INDEX).is_file():
        raise _no_weights(folder)
    index = read_json_object(folder / _INDEX, "The index of the weights cannot be read")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise SftuiError("The index of the weights cannot be read", f"{_INDEX} has no weight_map.")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise SftuiError(
                "The index of the weights is unsafe", f"{_INDEX} names a file outside of its folder: {safe(shard)}."
            )
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise SftuiError(
            "The checkpoint is incomplete",
            f"{len(missing)} of {len(shards)} weight files are missing: {safe(', '.join(missing[:3]))}"
            + (", …" if len(missing) > 3 else "."),
            "Download the model again; finished files are kept.",
        )
    tensors = {tensor.name: tensor for shard in shards for tensor in read_header(folder / shard)}
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise SftuiError(
            "The checkpoint is damaged",
            f"{len(absent)} tensors of {_INDEX} are in none of its files: {safe(absent[0])}, …",
            "Download the model again.",
        )
    return tuple(tensors[name] for name in sorted(tensors))


def _no_weights(folder: Path) -> SftuiError:
    pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")) + sorted(folder.glob("*.pth"))
    if pickles:
        return NotSafetensorsError(
            "Weights only as pickle",
            f"{safe(pickles[0].name)} is a pickle file, which can run any code when it is loaded.",
            "Take a safetensors version of this model, or, if you trust it, convert it once: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder).",
        )
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs:
        return _only_gguf(ggufs[0], f"{safe(ggufs[0].name)} is the only weight file")
    return SftuiError(
        "No weights", f"{safe(str(folder))} has neither {_WEIGHTS} nor {_INDEX}.", "Download the model again."
    )


def _only_gguf(file: Path, found: str) -> SftuiError:
    return NotSafetensorsError(
        "A GGUF file, not a checkpoint",
        f"{found}: its weights are quantized for inference already.",
        "Take the original checkpoint, or convert the file once (pip install gguf): "
        f"AutoModelForCausalLM.from_pretrained(folder, gguf_file={safe(file.name)!r}).save_pretrained(new_folder), "
        "and the same with AutoTokenizer.",
    )


def read_header(path: Path) -> list[TensorInfo]:
    """Return the tensors of one safetensors file. Raises SftuiError for a damaged one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _damaged(path, f"it has {size} bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            raise _damaged(path, f"its header claims {length} bytes")
        if 8 + length > size:
            raise _damaged(path, f"its header of {length} bytes is longer than the file of {size} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = [_tensor(path, name, entry, size - 8 - length) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is not readable") from error
    return tensors


def _tensor(path: Path, name: str, entry: dict[str, Any], data_bytes: int) -> TensorInfo:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if not 0 <= begin <= end or min(shape, default=0) < 0:
        raise _damaged(path, f"tensor {safe(name)} has an impossible place")
    if end > data_bytes:
        raise _damaged(path, f"it is cut short: {end - data_bytes:,} bytes are missing at its end")
    if dtype in DTYPE_BYTES and math.prod(shape) * DTYPE_BYTES[dtype] != end - begin:
        raise _damaged(path, f"the size of tensor {safe(name)} does not match its shape")
    return TensorInfo(name, shape, dtype, end - begin)


def _damaged(path: Path, reason: str) -> SftuiError:
    return SftuiError(
        "A weight file is damaged", f"{safe(str(path))}: {reason}.", "Delete this file and download it again."
    )


def hub_cache() -> Path:
    """Return the Hugging Face cache: $HF_HUB_CACHE, $HF_HOME/hub, or ~/.cache/huggingface/hub."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def resolve_model_folder(path_or_id: str, revision: str | None) -> Path:
    """Return the folder of a model: a local one, or the snapshot of a hub id (`revision`: main) in the cache.

    Nothing is downloaded. Raises SftuiError when it is neither a folder nor in the cache.
    """
    folder = expand(path_or_id)
    try:
        if path_or_id and folder.is_dir():
            return folder
    except OSError as error:
        # A name that is longer than names may be, or a folder that is closed to us.
        raise SftuiError("No such model", f"“{safe(path_or_id[:200])}”: {error.strerror}.") from error
    name, wanted = safe(path_or_id), revision or "main"
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path_or_id) is None:
        raise SftuiError("No such model", f"“{name}” is not a folder.", "Check the path, or give a hub id: org/name.")
    repository = hub_cache() / f"models--{path_or_id.replace('/', '--')}"
    if not repository.is_dir():
        raise ModelNotHereError(
            "No such model here",
            f"“{name}” is neither a folder nor in the Hugging Face cache ({safe(str(hub_cache()))}).",
            f"Download it first: hf download {name}",
        )
    if ".." not in Path(wanted).parts:
        reference = repository / "refs" / wanted
        commit = reference.read_text().strip() if reference.is_file() else wanted
        snapshot = repository / "snapshots" / commit
        if re.fullmatch(r"[0-9A-Za-z]+", commit) and snapshot.is_dir():
            return snapshot
    raise ModelNotHereError(
        "No such revision here",
        f"“{name}” is in the Hugging Face cache, but not its revision “{safe(wanted)}”.",
        f"Download it first: hf download {name} --revision {safe(wanted)}",
    )
