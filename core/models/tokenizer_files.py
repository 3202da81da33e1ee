"""A look at a model's tokenizer files before anything heavy is imported."""

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
