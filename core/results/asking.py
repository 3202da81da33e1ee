"""Asking what a run has made: loading it, its answers and its measures come from a process that has torch. Light."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from core.errors import SftuiError
from core.runs.folder import RunFolder

BASE = "base"
"""The side that the model was before; the others are the names of results: "result", "checkpoint-40".

Those of another run have its id for a name, and that of the checkpoint behind it.
"""

Turns = Sequence[Mapping[str, Any]] | str
"""A conversation up to the answer, or a plain text to go on from."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn."""

    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is all tokens."""
    max_new_tokens: int = 512
    seed: int = 42

    def problem(self) -> str:
        """What is wrong with it, in words; empty if nothing is."""
        if not 0 <= self.temperature <= 100:
            return "The temperature is a number from 0, which takes the likeliest token, to 100."
        if not 0 < self.top_p <= 1:
            return "top-p is a share: above 0, at most 1."
        if self.top_k < 0 or self.max_new_tokens < 1 or not 0 <= self.seed < 2**32:
            return "top-k is 0 or more, an answer has 1 token or more, and a seed is from 0 to 4,294,967,295."
        return ""

    def __str__(self) -> str:
        if self.temperature == 0:
            return f"likeliest tokens, at most {self.max_new_tokens}"
        parts = [f"temperature {self.temperature:g}"]
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        return ", ".join([*parts, f"seed {self.seed}", f"at most {self.max_new_tokens} tokens"])


@dataclass(frozen=True, slots=True)
class Phase:
    """What is being done until the result can answer."""

    name: str
    done: int = 0
    total: int = 0
    """Bytes or rows; 0 where nobody knows."""


@dataclass(frozen=True, slots=True)
class HeldOutPrompt:
    """A prompt of the rows that were held out, and what the row has for an answer."""

    turns: Turns
    shown: str
    expected: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A result that answers."""

    sides: tuple[str, ...]
    """Who can be asked: the base first."""
    device: str
    quantization: str
    dtype: str
    speaks_turns: bool
    """Whether it was trained on conversations; otherwise on plain text."""
    prompts: tuple[HeldOutPrompt, ...]
    held_out_rows: int
    notices: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Opened":
        """What `to_json` told."""
        return cls(
            **{
                **told,
                "sides": tuple(told["sides"]),
                "prompts": tuple(HeldOutPrompt(**prompt) for prompt in told["prompts"]),
                "notices": tuple((title, message) for title, message in told["notices"]),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, for another process."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    text: str
    tokens: int
    seconds: float
    end: str
    """Why it ends there: "ended", "length" or "stopped"."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How one side does on held-out rows."""

    rows: int
    trained_tokens: int
    loss: float | None
    """The mean of the trained tokens, in nats; None where there are none."""
    perplexity: float | None
    token_accuracy: float | None
    prompts: int
    exact: int
    """Answers that are the row's own, but for space around them."""
    whole: bool = True
    """Whether all that was asked for was measured; False after a cancel."""


@dataclass(frozen=True, slots=True)
class MeasureProgress:
    """How far a measurement is."""

    side: str
    what: str
    """"perplexity" or "answers"."""
    done: int
    total: int


class Runner(Protocol):
    """What a WarmRunner does for us."""

    def ask(
        self,
        question: Mapping[str, Any],
        timeout: float | None = None,
        hear: Callable[[dict[str, Any]], object] | None = None,
    ) -> dict[str, Any]:
        """Answer a question."""
        ...

    def cancel(self) -> None:
        """End long answers."""
        ...

    def close(self) -> None:
        """End the process."""
        ...


class ResultDesk:
    """Asks a process of its own, which holds the model in memory until it is closed.

    `open`, `chat` and `measure` block, and raise SftuiError.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def open(
        self,
        run: RunFolder,
        step: int | None,
        hear: Callable[[Phase], object],
        *,
        device: str | None = None,
        every: bool = False,
    ) -> Opened:
        """Load the run's base model and its result, or its checkpoint of a step.

        With `every`, all adapters it has; its last checkpoint stands in for a result that was never made.
        """
        question = {"ask": "open_result", "of": str(run.path), "step": step, "device": device, "all": every}
        hear(Phase("importing torch, transformers, peft"))
        return Opened.from_json(self._runner.ask(question, None, lambda part: hear(Phase(**part))))

    def add(self, run: RunFolder, step: int | None, hear: Callable[[Phase], object]) -> Opened:
        """Load another run's result, or its checkpoint of a step, beside what is open; it is the last of the sides.

        It shares the base model where it started from the same one. The notices are those of this run alone.
        """
        question = {"ask": "add_result", "of": str(run.path), "step": step}
        return Opened.from_json(self._runner.ask(question, None, lambda part: hear(Phase(**part))))

    def chat(self, side: str, turns: Turns, sampling: Sampling, hear: Callable[[str], object]) -> Said:
        """One side's answer; `hear` gets each new piece of its text."""
        problem = sampling.problem()
        if problem:
            raise SftuiError("No such sampling", problem)
        question = {"ask": "chat", "side": side, "turns": turns, "sampling": asdict(sampling)}
        return Said(**self._runner.ask(question, None, lambda part: hear(part["text"])))

    def measure(
        self, sides: Sequence[str], rows: int, hear: Callable[[MeasureProgress], object]
    ) -> dict[str, Measured]:
        """How these sides do on so many held-out rows, and their exact answers to the prompts among them."""
        question = {"ask": "measure", "sides": list(sides), "rows": rows}
        told = self._runner.ask(question, None, lambda part: hear(MeasureProgress(**part)))
        return {side: Measured(**figures) for side, figures in told.items()}

    def cancel(self) -> None:
        """End the answer or the measurement that is under way; it is returned as far as it got."""
        self._runner.cancel()

    def close(self) -> None:
        """End the process: all its memory is free then."""
        self._runner.close()


def with_value(sampling: Sampling, name: str, text: str) -> Sampling:
    """The sampling with one value changed to what was typed. Raises SftuiError for what is no such value."""
    try:
        number = float(text.replace(",", "")) if name in ("temperature", "top_p") else int(text.replace(",", ""))
        changed = replace(sampling, **{name: number})  # type: ignore[arg-type]  # by its name
    except ValueError as error:
        raise SftuiError("No such sampling", f"{text!r} is no number.") from error
    if problem := changed.problem():
        raise SftuiError("No such sampling", problem)
    return changed
