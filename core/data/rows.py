"""A row of a dataset and where it stands, and what can be wrong with one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Form = Literal["messages", "prompt-completion", "text", "unknown"]
"""What a row becomes: a conversation, what is given and what is learnt, a plain text, or nothing we know."""

ProblemKind = Literal[
    # the file
    "invalid_json",
    "wrong_encoding",
    "unreadable",
    "too_large",
    "too_deep",
    "bad_header",
    "ragged_row",
    # the row
    "not_an_object",
    "unknown_form",
    "other_form",
    "missing_column",
    "null_value",
    "wrong_type",
    "empty_value",
    "lone_surrogate",
    # its conversation
    "unknown_role",
    "no_answer",
    "empty_answer",
    "bad_answer",
    "bad_tools",
    "bad_images",
    "turn_order",
    # rows beside each other
    "column_changes_type",
    "duplicate",
    # what the model is shown
    "template_refuses",
    "mask_unproven",
    "nothing_trained",
    "images",
]
Level = Literal["error", "warning"]

KIND_TITLES: Mapping[ProblemKind, str] = {
    "invalid_json": "not JSON",
    "wrong_encoding": "not UTF-8",
    "unreadable": "damaged file",
    "too_large": "too large",
    "too_deep": "nested too deeply",
    "bad_header": "header of a table",
    "ragged_row": "wrong number of fields",
    "not_an_object": "not an object",
    "unknown_form": "no known columns",
    "other_form": "another form than the first rows",
    "missing_column": "missing column",
    "null_value": "null",
    "wrong_type": "wrong type",
    "empty_value": "empty",
    "lone_surrogate": "half a character",
    "unknown_role": "unknown role",
    "no_answer": "no assistant turn",
    "empty_answer": "empty answer",
    "bad_answer": "answer marked as bad",
    "bad_tools": "tools or tool calls",
    "bad_images": "images",
    "turn_order": "order of turns",
    "column_changes_type": "column changes its type",
    "duplicate": "duplicate",
    "template_refuses": "refused by the chat template",
    "mask_unproven": "what is learnt cannot be proven",
    "nothing_trained": "nothing to learn from",
    "images": "images, which are not trained on",
}
"""Each kind in a few words, for a count of problems."""


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One thing wrong with one row."""

    file: Path
    line: int
    """From 1; the number of the row in Parquet and Arrow files."""
    column: int | None
    """The character of the line, from 1, where that can be told."""
    kind: ProblemKind
    message: str
    fix: str
    level: Level = "error"
    """A row with a warning is kept."""

    def __str__(self) -> str:
        place = f"{self.line}" if self.column is None else f"{self.line}:{self.column}"
        return f"{self.file}:{place}: {self.message} {self.fix}"


@dataclass(slots=True)
class Row:
    """One value read from a file, or why there is none."""

    file: Path
    line: int
    value: Any
    problem: DataProblem | None = None
    offset: int | None = None
    """Where its bytes begin in a plain JSONL file, so that the row can be read again; None elsewhere."""
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row, whatever file it stands in."""

    kind: ProblemKind
    column: str
    """The dataset's column that is at fault; empty when it is the whole row."""
    message: str
    fix: str
    level: Level = "error"

    def at(self, file: Path, line: int) -> DataProblem:
        """The same as a problem of this line."""
        return DataProblem(file, line, None, self.kind, self.message, self.fix, self.level)
