"""What the held-out file holds: read beside the draft, which knows the training rows only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.data.data_problems import HELD_OUT_FIELD, BadRows, held_out_problems
from core.errors import SftuiError
from core.spec.problems import Problem
from core.text import human_count
from tui_app.background import in_thread

if TYPE_CHECKING:
    from core.data.facts import DataFacts
    from core.data.request import CheckRequest
    from core.data.rows import Form

FIELD = HELD_OUT_FIELD


@dataclass(frozen=True, slots=True)
class HeldOutKey:
    """What the words about a held-out file depend on."""

    request: CheckRequest
    form: Form | None
    """Of the training rows; None while they are not read."""
    bad_rows: BadRows


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out file, read; without words and problem, there is none."""

    words: str = ""
    """How many rows it holds."""
    problem: Problem | None = None


async def read_held_out(key: HeldOutKey) -> HeldOut:
    """Read a held-out file whose rows are to be in the same form as the training rows."""
    try:
        facts = await _read(key.request)
    except SftuiError as error:
        return HeldOut(problem=Problem(FIELD, "error", f"{error.title}: {error.message}", error.hint))
    problem = next(iter(held_out_problems(facts, key.form, key.bad_rows)), None)
    rows = "1 row" if facts.rows == 1 else f"{human_count(facts.rows)} rows"
    return HeldOut(f"{rows} to evaluate on." if facts.rows else "", problem)


async def _read(request: CheckRequest) -> DataFacts:
    from core.data.check_process import CheckProcess

    process = await in_thread(lambda: CheckProcess(request))
    try:
        return await in_thread(process.facts)
    except asyncio.CancelledError:
        process.cancel()
        raise
