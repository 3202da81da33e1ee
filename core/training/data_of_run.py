"""The rows that a run began with: one that goes on from a checkpoint must see the very same."""

import json
from typing import Any

from core.data.rendering import PreparedData
from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.folder import RunFolder

_FILE = "data.json"


def keep_to_data(folder: RunFolder, data: PreparedData, *, resumes: bool) -> None:
    """Put down what the run is trained on. Raises SftuiError if it goes on and the rows are others than then."""
    file = folder.path / _FILE
    facts: dict[str, Any] = {
        "content_hashes": list(data.content_hashes),
        "sequences": len(data.train),
        "tokens": data.told.tokens,
        "trained_tokens": data.told.trained_tokens,
    }
    if resumes and file.exists():
        began = json.loads(file.read_text(encoding="utf-8"))
        if began != facts:
            what = "The rows" if began["content_hashes"] != facts["content_hashes"] else "The tokens of the rows"
            raise SftuiError(
                "The data is not what the run began with",
                f"{what} changed since: {began['sequences']:,} sequences of {began['tokens']:,} tokens then, "
                f"{facts['sequences']:,} of {facts['tokens']:,} now.",
                "Bring back the files and the tokenizer as they were, or start a new run.",
            )
    write_atomically(file, json.dumps(facts, indent=1))
