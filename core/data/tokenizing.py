"""Rows into the tokens that are trained on: the very same for the inspector, the statistics and the run."""

from collections.abc import Mapping
from typing import Any, Literal

from core.choice import Choice
from core.data.learn_from import LearnFrom
from core.data.tokenized_row import RowError, TokenizedRow
from core.spec.problems import Problem

__all__ = ["MaskWay", "RowError", "RowTokenizer", "TokenizedRow"]

MaskWay = Literal["markers", "training-template", "computed", "completion", "all"]


class RowTokenizer:
    """Makes tokens of canonical rows, one at a time."""

    way: MaskWay
    """How it is known what to train on."""
    choices: tuple[Choice, ...]
    """What was decided about template and tokenizer."""
    problems: tuple[Problem, ...]
    """What a person should know about template and tokenizer before the start."""

    def __init__(self, tokenizer: Any, learn_from: LearnFrom, chat_template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._learn_from = learn_from
        self.way = "all"
        self.choices = ()
        self.problems = ()

    def tokenize(self, row: Mapping[str, Any]) -> TokenizedRow:
        """The row's tokens, uncut. Raises RowError when the template refuses it or its mask cannot be proven."""
        raise RowError("no_template", "Rows cannot be tokenized yet.", "")
