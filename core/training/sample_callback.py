"""Has the model answer the sample prompts while it is trained, so that one sees it learn."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.data.rendering import SamplePrompt
from core.results.answers import answer_prompts
from core.runs import events
from core.runs.events import Event
from core.training.control import RunControl
from core.training.randomness import Randomness


class Asking:
    """The sample prompts of a run, answered by its base and by what it has become.

    Nothing of the run changes by it: no random number is drawn, and no weight touched.
    """

    def __init__(
        self, tokenizer: Any, prompts: list[SamplePrompt], control: RunControl, emit: Callable[[Event], object]
    ) -> None:
        self.prompts = prompts
        self._tokenizer = tokenizer
        self._control = control
        self._emit = emit
        self._base_answered = False

    def base(self, model: Any, *, adapted: bool, phase: bool = True) -> None:
        """Let the base answer, once; the adapters of an `adapted` model are off meanwhile."""
        if not self._base_answered:
            self._base_answered = True
            self._answer(model, "base", 0, off=adapted, phase=phase)

    def tuned(self, model: Any, step: int, *, phase: bool = True) -> None:
        """Let the model answer as it is after this step. `phase` is whether the run does nothing else meanwhile."""
        self._answer(model, "tuned", step, off=False, phase=phase)

    def _answer(self, model: Any, who: Literal["base", "tuned"], step: int, *, off: bool, phase: bool) -> None:
        if not self.prompts:
            return
        if phase:
            self._emit(events.PhaseStarted("sampling", f"{who} answers to {len(self.prompts)} prompts"))
        began, before = time.monotonic(), Randomness.now()
        with model.disable_adapter() if off else nullcontext():
            answers = answer_prompts(model, self._tokenizer, self.prompts, stop=lambda: self._control.stop_requested)
        before.restore()
        self._emit(events.SamplesAnswered(who, step, answers, time.monotonic() - began))


class SampleCallback(TrainerCallback):  # type: ignore[misc]
    """Has the prompts answered after every so many steps, and whenever somebody wants it."""

    def __init__(
        self, asking: Asking, model: Any, every: int | None, control: RunControl, emit: Callable[[Event], object]
    ) -> None:
        self._asking = asking
        self._model = model
        self._every = every
        self._requests = control
        self._emit = emit

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """A step is done, and its figures are told."""
        step = state.global_step
        if "loss" not in (logs or {}) or self._requests.stop_requested:
            return
        wanted = self._requests.take_sample_request()
        if wanted and not self._asking.prompts:
            message = "The run has no sftui.sample_prompts, and no sftui.sample_rows of held-out rows."
            self._emit(events.ProblemNoticed("There is nothing to answer", message))
            return
        # After the last step they are answered anyway.
        due = self._every is not None and step % self._every == 0 and step < state.max_steps
        if wanted or due:
            self._requests.pulse.pause()
            self._asking.base(self._model, adapted=True, phase=False)
            self._asking.tuned(self._model, step, phase=False)
            self._requests.pulse.beat()
