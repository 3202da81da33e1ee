"""The adapter as PEFT writes it, with its tokenizer and a card; nothing in it tells of this machine."""

import json
import shutil
from pathlib import Path
from typing import Any

from core.errors import SftuiError
from core.models.checkpoint_files import read_json_object
from core.results.cards import base_name, write_card
from core.results.exporting import ExportRequest
from core.results.result import Result
from core.spec.run_spec import RunSpec

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER = (
    "*.jinja",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "tokenizer*.json",
    "*token*.json",
    "vocab.json",
    "merges.txt",
)
_TOKENIZER_FOLDERS = ("additional_chat_templates",)
_OF_THIS_MACHINE = ("name_or_path", "_name_or_path", "is_local", "local_files_only")


def adapter_bytes(result: Result) -> int:
    """What an export of it takes."""
    return sum(path.stat().st_size for path in result.path.iterdir() if path.is_file())


def write_adapter(
    target: Path, result: Result, spec: RunSpec, base_folder: Path, request: ExportRequest
) -> tuple[tuple[str, str], ...]:
    """Write it to a folder. Returns what there is to say. Raises SftuiError where the result is no adapter."""
    if result.kind != "adapter":
        raise SftuiError("There is no adapter", "The run trained every weight.", "Export the whole model: --merged DIR")
    name = base_name(spec, base_folder, request.base_id)
    config = read_json_object(result.path / _CONFIG, "The adapter's configuration cannot be read")
    config["base_model_name_or_path"] = name
    config["revision"] = None if spec.model_revision == "main" else spec.model_revision
    _write_json(target / _CONFIG, config)
    shutil.copyfile(result.path / _WEIGHTS, target / _WEIGHTS)
    copy_tokenizer(result.path, target)
    copy_generation_config(result.path, base_folder, target)
    write_card(target, result, spec, "adapter", base_folder, request.base_id)
    facts = [("base model", name)]
    if "/" not in name:
        facts.append(("to share it", "say what the base model is called on the hub (--base-id OWNER/NAME)"))
    return tuple(facts)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer with its chat template. Raises SftuiError where there is none."""
    if not (source / "tokenizer_config.json").is_file():
        raise SftuiError(
            "There is no tokenizer", f"{source.name} was saved without one.", "Take another checkpoint, or the result."
        )
    for file in {file for pattern in _TOKENIZER for file in source.glob(pattern) if file.is_file()}:
        if file.suffix == ".json":
            config = read_json_object(file, "The tokenizer cannot be read")
            if any(key in config for key in _OF_THIS_MACHINE):
                _write_json(target / file.name, {k: v for k, v in config.items() if k not in _OF_THIS_MACHINE})
                continue
        shutil.copyfile(file, target / file.name)
    for name in _TOKENIZER_FOLDERS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)


def copy_generation_config(source: Path, base_folder: Path, target: Path) -> None:
    """Copy how answers are drawn and what they end with: the result's own, or the base's with the end of its turns."""
    own = source / "generation_config.json"
    if own.is_file():
        shutil.copyfile(own, target / own.name)
        return
    of_base = base_folder / own.name
    config = read_json_object(of_base, "generation_config.json cannot be read") if of_base.is_file() else {}
    known = config.get("eos_token_id")
    ends = [*known] if isinstance(known, list) else [] if known is None else [known]
    end = _end_token(source)
    if end is not None and end not in ends:
        config["eos_token_id"] = [*ends, end]
    if config:
        _write_json(target / own.name, config)


def _end_token(folder: Path) -> int | None:
    """The number of the tokenizer's end token, read from its files."""
    named = read_json_object(folder / "tokenizer_config.json", "The tokenizer cannot be read").get("eos_token")
    token = named.get("content") if isinstance(named, dict) else named
    if not (folder / "tokenizer.json").is_file():
        return None
    told = read_json_object(folder / "tokenizer.json", "The tokenizer cannot be read")
    added = {entry.get("content"): entry.get("id") for entry in told.get("added_tokens") or []}
    vocabulary = (told.get("model") or {}).get("vocab")
    found = added.get(token, vocabulary.get(token) if isinstance(vocabulary, dict) else None)
    return found if type(found) is int else None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
