"""Everything that is wrong with a dataset: all of it in a file, counted by kind, and the first of it at hand."""

import json
from collections import Counter
from typing import Any, BinaryIO

import orjson

from core.data.rows import DataProblem, ProblemKind

SHOWN_PROBLEMS = 200


class ProblemReport:
    """Takes problems one by one; bounded in memory."""

    def __init__(self, opened: BinaryIO) -> None:
        self._opened = opened
        self._errors: list[DataProblem] = []
        self._warnings: list[DataProblem] = []
        self.by_kind: Counter[ProblemKind] = Counter()
        self.count = 0

    def add(self, problem: DataProblem) -> None:
        """Write it down."""
        self.count += 1
        self.by_kind[problem.kind] += 1
        kept = self._errors if problem.level == "error" else self._warnings
        if len(kept) < SHOWN_PROBLEMS:
            kept.append(problem)
        told = {name: getattr(problem, name) for name in ("line", "column", "kind", "level", "message", "fix")}
        self._opened.write(_line({"file": str(problem.file), **told}))

    @property
    def first(self) -> tuple[DataProblem, ...]:
        """The first problems, errors before warnings."""
        return tuple((self._errors + self._warnings)[:SHOWN_PROBLEMS])


def _line(told: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(told) + b"\n"
    except TypeError:
        # Names of files, and what stands in them, may hold what is not Unicode.
        return json.dumps(told).encode() + b"\n"
