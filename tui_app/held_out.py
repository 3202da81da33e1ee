"""What the held-out file holds: read beside the draft, which knows the training rows only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.data.formats import read_facts
from core.errors import SftuiError
from core.spec.problems import Problem
from core.text import human_count
from tui_app.background import in_thread

FIELD = "sftui.held_out_file"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out file, read; without a path, there is none."""

    path: str = ""
    words: str = ""
    """How many rows it holds."""
    problem: Problem | None = None


async def read_held_out(path: str, form: str | None) -> HeldOut:
    """Read a held-out file whose rows are to be in the same form as the training rows."""
    file = Path(path).expanduser()
    try:
        facts = await in_thread(lambda: read_facts([file]))
    except SftuiError as error:
        return HeldOut(path, problem=Problem(FIELD, "error", f"{error.title}: {error.message}", error.hint))
    if facts.problems:
        first = facts.problems[0]
        message = f"{first.file.name}:{first.line}: {first.message}"
        return HeldOut(path, problem=Problem(FIELD, "error", message, first.fix))
    if not facts.rows:
        return HeldOut(path, problem=Problem(FIELD, "error", "has no rows.", "Name a file with rows."))
    if form not in (None, "unknown", facts.form):
        message = f"is in {facts.form} form, and the training rows are in {form} form."
        return HeldOut(path, problem=Problem(FIELD, "error", message, "Both must be in the same form."))
    return HeldOut(path, f"{human_count(facts.rows)} rows to evaluate on.")
