"""Words that people give to runs, to find them by."""

import json

from core.errors import SftuiError
from core.paths import write_atomically
from core.runs.folder import RunFolder

_LONGEST = 40
_MOST = 20


def parse_tags(text: str) -> tuple[str, ...]:
    """The tags in a line, between commas or spaces, each once. Raises SftuiError for too long or too many."""
    found = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if len(found) > _MOST or any(len(tag) > _LONGEST for tag in found):
        raise SftuiError("Too much for tags", f"A run has at most {_MOST} tags of {_LONGEST} characters each.")
    return found


def write_tags(folder: RunFolder, tags: tuple[str, ...]) -> None:
    """Give a run these tags instead of those it has. Raises OSError."""
    folder.refuse_links()
    write_atomically(folder.tags_file, json.dumps(list(tags)))


def read_tags(folder: RunFolder) -> tuple[str, ...]:
    """The tags of a run; none where its file cannot be read."""
    try:
        found = json.loads(folder.tags_file.read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(tag for tag in found if isinstance(tag, str)) if isinstance(found, list) else ()
