"""Rows of known lengths, for the tokenizer that spells a byte a token."""

import json
import random
import string
from pathlib import Path

from tests.gpu.configurations import Configuration

# Shares of the longest row. Four of the packed ones fill a sequence.
_SHORTEST, _PACKED = 4, 4
# More than are trained on, so that batches are drawn as in a real run.
_SPARE = 2


def lengths_of(configuration: Configuration, seed: int = 0) -> list[int]:
    """How many tokens each row has."""
    tokens = configuration.tokens
    sequences = _SPARE * configuration.steps * configuration.batch * configuration.accumulation
    match configuration.rows:
        case "even":
            return [tokens] * sequences
        case "odd":
            return [tokens - number % 2 for number in range(sequences)]
        case "mixed":
            draw = random.Random(seed)
            return [tokens, *(draw.randint(tokens // _SHORTEST, tokens) for _ in range(sequences - 1))]
        case "packed":
            return [tokens // _PACKED] * (_PACKED * sequences)


def write_rows_of(configuration: Configuration, path: Path) -> Path:
    """Write the rows as plain texts, of which every token is learnt, as JSONL; returns the path."""
    draw = random.Random(1)
    # The tokenizer's end of text is a token too.
    texts = ("".join(draw.choices(string.ascii_letters, k=length - 1)) for length in lengths_of(configuration))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
