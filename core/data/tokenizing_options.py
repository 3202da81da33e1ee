"""What decides, beside the rows, which tokens they become; and the name under which these are kept."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from core.data.facts import DataFacts
from core.data.learn_from import LearnFrom, learn_from
from core.data.rows import Form
from core.paths import cache_home, expand
from core.spec.run_spec import RunSpec
from core.version import version

_FORMAT = 1
_MAKERS = ("transformers", "tokenizers", "trl")
_TOKENIZER_FILES = (
    "*.json",
    "*.jinja",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.py",
    "chat_templates/*",
    "additional_chat_templates/*",
)
_OF_THE_WEIGHTS = (".index.json", "config.json")


@dataclass(frozen=True, slots=True)
class TokenizingOptions:
    """Hashable, so that what was made with it can be told apart."""

    learn_from: LearnFrom
    chat_template_path: str | None = None
    load_as: Literal["auto", "text", "vision"] = "auto"
    turns: bool = True
    """Whether the rows can hold turns; plain texts need no chat template."""

    def to_json(self) -> dict[str, Any]:
        """The "options" of a question to the warm runner."""
        return asdict(self)


def tokenizing_options(spec: RunSpec, form: Form) -> TokenizingOptions:
    """What the spec says, for rows in this form."""
    learned = learn_from(spec, form)
    return TokenizingOptions(learned, spec.chat_template_path, spec.sftui.load_as, turns=form != "text")


def tokens_key(facts: DataFacts, folder: Path, options: TokenizingOptions) -> str:
    """A name for the tokens of these rows, which no other rows, tokenizer, template or library have.

    `folder` is the model's. Raises OSError if its files cannot be read.
    """
    told = {
        "format": _FORMAT,
        "rows": [facts.content_hash, facts.rows, facts.form, facts.mapping.to_dict()],
        "options": options.to_json(),
        "tokenizer": tokenizer_state(folder, options),
        "versions": _versions(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def counts_file(facts: DataFacts, folder: Path, options: TokenizingOptions) -> Path:
    """Where the counts of these tokens are kept. Raises OSError like `tokens_key`."""
    return cache_home() / "tokens" / f"{tokens_key(facts, folder, options)}.counts"


def tokenizer_state(folder: Path, options: TokenizingOptions) -> list[list[str]]:
    """Names and hashes of the files that tokenizer and chat template are made from. Raises OSError."""
    files = _tokenizer_files(folder)
    if options.chat_template_path is not None:
        chosen = expand(options.chat_template_path)
        files += _tokenizer_files(chosen) if chosen.is_dir() else [chosen] if chosen.exists() else []
    return _hash_files(files)


def _tokenizer_files(folder: Path) -> list[Path]:
    found = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    # tokenizer_config.json ends like config.json, and belongs to the tokenizer.
    return sorted(
        file for file in found if file.name.startswith("tokenizer") or not file.name.endswith(_OF_THE_WEIGHTS)
    )


def _hash_files(files: Iterable[Path]) -> list[list[str]]:
    return [[file.name, _hash_file(file, file.stat().st_mtime_ns, file.stat().st_size)] for file in files]


@cache
def _hash_file(file: Path, _changed: int, _size: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _MAKERS} | {"sftui": version()}
