"""Models on the Hugging Face hub: searched by name, and looked at before anything is downloaded."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import parse_qs, quote

from core.errors import SftuiError
from core.models.auto_tables import auto_tables
from core.models.hub_client import get_json, understood
from core.text import safe

Gated = bool | Literal["auto", "manual"]

USES = ("text-generation", "image-text-to-text")
_FIELDS = ("downloads", "gated", "lastModified", "library_name", "likes", "pipeline_tag", "safetensors", "tags")
# Theirs are safetensors too, but an adapter or another runtime's weights.
_OTHER_LIBRARIES = {"peft", "mlx", "mlx-lm"}
_PAGE = 50
_MOST_PAGES = 10

_TEXT_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".bpe", ".spm"}
_TEMPLATES = "additional_chat_templates"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model as a search shows it."""

    id: str
    downloads: int
    """In the last 30 days."""
    likes: int
    size_bytes: int | None
    """Of the weights, from the numbers of parameters by type."""
    parameters: int | None
    license: str | None
    gated: Gated
    """Whether terms must be accepted first, and whether access then comes by itself ("auto") or not ("manual")."""
    pipeline_tag: str | None
    library: str | None
    last_modified: float | None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository on the hub."""

    name: str
    size_bytes: int
    digest: str
    """The name of its content in the cache: SHA-256 of a large file, git's blob id of a small one."""


@dataclass(frozen=True, slots=True)
class HubModelDetails:
    """A model at one commit, and what a download of it would fetch."""

    model: HubModel
    sha: str
    """The commit, 40 hexadecimal digits."""
    files: tuple[HubFile, ...]
    """What would be downloaded: weights as safetensors, configuration, tokenizer, chat template, card."""
    problem: str | None = None
    """Why it cannot be trained from; None when it can."""
    code: tuple[HubFile, ...] = ()
    """Python files beside config.json, of which a download takes only those that the user has allowed to run."""
    needs_code: bool = False
    """Whether the model, by what the hub says of it, is none of transformers' own, and is loaded by code it brings."""

    @property
    def total_bytes(self) -> int:
        """What would be downloaded, if nothing of it is here yet."""
        return sum({file.digest: file.size_bytes for file in self.files}.values())


def search_models(text: str, limit: int = 30, uses: Collection[str] = USES) -> Iterator[HubModel]:
    """Yield the models whose name holds `text`, in the hub's order, as its pages arrive.

    Only those with safetensors and one of the `uses`; of adapters and other runtimes' weights none.
    Raises SftuiError when the hub cannot be asked, at the first model or between two pages.
    """
    return islice(_found(text.strip(), uses), limit)


def _found(text: str, uses: Collection[str]) -> Iterator[HubModel]:
    query: dict[str, Any] = {"filter": "safetensors", "expand": list(_FIELDS), "limit": _PAGE}
    if text:
        query["search"] = text
    for _ in range(_MOST_PAGES):
        page, following = get_json("/api/models", query)
        models = understood(partial(_models, page))
        yield from (model for model in models if model.pipeline_tag in uses and model.library not in _OTHER_LIBRARIES)
        if following is None:
            return
        query = parse_qs(following)


def model_info(model_id: str, revision: str | None = None) -> HubModelDetails:
    """Return a model at the commit that `revision` (None: main) stands for now. Raises SftuiError."""
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model_id, re.ASCII) is None:
        raise SftuiError("No such model", f"“{safe(model_id)}” is not a hub id.", "A hub id looks like this: org/name")
    path = f"/api/models/{model_id}/revision/{quote(revision or 'main', safe='')}"
    answer, _ = get_json(path, {"blobs": "true"}, model_id)
    return understood(lambda: _details(answer))


def is_needed(name: str, names: Collection[str]) -> bool:
    """Whether training needs this one of a repository's files.

    Of weights, transformers' own safetensors; never pickles, GGUF, ONNX, `original/`, other folders, or code.
    """
    path = PurePosixPath(name)
    if "\\" in name or path.is_absolute() or str(path) != name or ".." in path.parts:
        return False
    if len(path.parts) > 1:
        return len(path.parts) == 2 and path.parts[0] == _TEMPLATES and path.suffix == ".jinja"
    if name.startswith("."):
        return False
    if path.suffix == ".safetensors":
        # Mistral's repositories hold the same weights twice, the second time as consolidated.safetensors.
        whole = "model.safetensors"
        return name == whole or (whole not in names and not name.startswith(("consolidated", "adapter_")))
    if name.endswith((".bin.index.json", ".onnx.json")) or name.startswith("consolidated"):
        return False
    return path.suffix in _TEXT_SUFFIXES or name.startswith(("tokenizer.model", "LICENSE")) or name == "README.md"


def _problem(names: Collection[str]) -> str | None:
    if "config.json" not in names:
        if "adapter_config.json" in names:
            return "It is an adapter, not a model: choose the base model."
        return "It has no config.json, so transformers cannot load it."
    if any(is_needed(name, names) and name.endswith(".safetensors") for name in names):
        return None
    if any(PurePosixPath(name).suffix in _PICKLES for name in names):
        return "Its weights are pickle files, which can run any code: choose a safetensors version."
    return "It has no weights as safetensors."


def _details(answer: dict[str, Any]) -> HubModelDetails:
    sha = answer["sha"]
    if re.fullmatch(r"[0-9a-f]{40}", sha) is None:
        raise ValueError(sha)
    names = {entry["rfilename"] for entry in answer["siblings"]}
    files = tuple(hub_file(entry) for entry in answer["siblings"] if is_needed(entry["rfilename"], names))
    code = tuple(hub_file(entry) for entry in answer["siblings"] if re.fullmatch(r"\w+\.py", entry["rfilename"]))
    return HubModelDetails(_model(answer), sha, files, _problem(names), code, _needs_code(answer))


def _needs_code(answer: dict[str, Any]) -> bool:
    config = answer.get("config") or {}
    brings = "auto_map" in config or "custom_code" in (answer.get("tags") or ())
    return brings and config.get("model_type") not in auto_tables().get("CONFIG_MAPPING_NAMES", {})


def hub_file(entry: dict[str, Any]) -> HubFile:
    """A file as the hub's answer tells of it. Raises ValueError, KeyError or TypeError for what is no such thing."""
    large = entry.get("lfs")
    digest = large["sha256"] if large else entry["blobId"]
    size = large["size"] if large else entry["size"]
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest) is None or not isinstance(size, int) or size < 0:
        raise ValueError(digest)
    return HubFile(entry["rfilename"], size, digest)


def _models(page: list[dict[str, Any]]) -> list[HubModel]:
    return [_model(entry) for entry in page]


def _model(entry: dict[str, Any]) -> HubModel:
    weights = entry.get("safetensors") or {}
    counts: dict[str, int] = weights.get("parameters") or {}
    tags = [tag for tag in entry.get("tags") or () if isinstance(tag, str)]
    gated = entry.get("gated")
    modified = entry.get("lastModified")
    return HubModel(
        id=str(entry["id"]),
        downloads=int(entry.get("downloads") or 0),
        likes=int(entry.get("likes") or 0),
        size_bytes=sum(count * _bits(dtype) for dtype, count in counts.items()) // 8 if counts else None,
        parameters=weights.get("total") or sum(counts.values()) or None,
        license=next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None),
        gated=gated if gated in ("auto", "manual") else bool(gated),
        pipeline_tag=entry.get("pipeline_tag"),
        library=entry.get("library_name"),
        last_modified=datetime.fromisoformat(modified).timestamp() if modified else None,
    )


def _bits(dtype: str) -> int:
    """Bits of one number in the format's words: BF16, F8_E4M3, I64, BOOL."""
    number = re.search(r"\d+", dtype)
    return int(number.group()) if number else 8
