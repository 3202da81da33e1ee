"""A look at a model's tokenizer files before anything heavy is imported."""

import json
from dataclasses import dataclass
from pathlib import Path

from core.errors import SftuiError
from core.text import safe

# What transformers builds a tokenizer from; without any of these it would make an empty one, and say nothing.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_PATTERNS = ("*.tiktoken", "*.model", "tokenization_*.py", "vocab*", "merges.txt")


def check_tokenizer_files(folder: Path) -> None:
    """Raise SftuiError when the folder holds no vocabulary."""
    if any((folder / name).is_file() for name in _VOCABULARIES):
        return
    if any(next(folder.glob(pattern), None) for pattern in _PATTERNS):
        return
    raise SftuiError(
        "The tokenizer is missing",
        f"{safe(str(folder))} has none of {', '.join(_VOCABULARIES)}.",
        "Download the model again, or copy the tokenizer's files there from the model that the weights come from.",
    )


@dataclass(frozen=True, slots=True)
class TokenNames:
    """What a tokenizer's files name."""

    names: frozenset[str]
    count: int
    """One more than the highest number of a token."""


def token_names(folder: Path) -> TokenNames | None:
    """The vocabulary as tokenizer.json has it, in a fraction of a second; None where there is no such file."""
    try:
        stored = json.loads((folder / "tokenizer.json").read_bytes())
        vocabulary = stored["model"]["vocab"]
        # Of unigram models it is a list of pairs.
        numbers = (
            dict(vocabulary) if isinstance(vocabulary, dict) else {entry[0]: at for at, entry in enumerate(vocabulary)}
        )
        numbers.update({token["content"]: token["id"] for token in stored.get("added_tokens", ())})
        return TokenNames(frozenset(numbers), max(numbers.values(), default=-1) + 1)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
