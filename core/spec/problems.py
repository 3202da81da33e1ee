"""What is wrong with a spec, as data: shown beside the option it belongs to."""

from dataclasses import dataclass
from typing import Literal

from core.errors import SftuiError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one option."""

    field: str
    level: Literal["error", "warning"]
    message: str
    fix: str
    where: str = ""
    """`file:line` where the value was written, if it came from a file."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.field}: {self.message}" + (f" {self.fix}" if self.fix else "")


class SpecError(SftuiError):
    """A spec that cannot be run; carries every problem found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = len(problems)
        super().__init__(
            "The spec has a problem" if count == 1 else f"The spec has {count} problems",
            "\n".join(str(problem) for problem in problems),
        )
        self.problems = problems
