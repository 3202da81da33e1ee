"""Between the trainer and the run: steps out as events, commands in."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.runs import events
from core.runs.events import Event
from core.training.control import RunControl
from core.training.randomness import Randomness
from core.training.saving import CheckpointSaver
from core.training.step_clock import StepClock
from core.training.troubles import TroubleDesk
from core.training.watch import Pulse, StepWatch


class JournalCallback(TrainerCallback):  # type: ignore[misc]
    """Turns what the trainer tells into events."""

    def __init__(self, emit: Callable[[Event], object], clock: StepClock, sample_every: int | None = None) -> None:
        self._emit = emit
        self._clock = clock
        self._sample_every = sample_every
        self._tokens_seen = 0
        self._tokens_before = 0
        self._tokens_at_last_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell how far there is to go."""
        self._tokens_before = self._tokens_at_last_step = _tokens_counted(state)
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._emit(
            events.TrainingStarted(
                max_steps=state.max_steps,
                epochs=float(state.num_train_epochs),
                first_step=state.global_step,
                rows_per_step=rows,
                evaluate_every=_every(args.eval_strategy, state.eval_steps, state),
                save_every=_every(args.save_strategy, state.save_steps, state),
                sample_every=self._sample_every,
                recomputes=bool(args.activation_checkpointing),
            )
        )

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the step's clock."""
        self._clock.begin()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The gradients are there."""
        self._clock.begin_optimizer()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The weights are new."""
        self._clock.end_optimizer()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop the step's clock; what evaluating and saving take is not the step's."""
        self._clock.end()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """A step or an evaluation is done: TRL has put its own figures into the logs by now."""
        logs = logs or {}
        if "loss" in logs:
            self._emit(self._step(state, logs))
        if "eval_loss" in logs:
            self._emit(
                events.EvaluationCompleted(
                    step=state.global_step,
                    loss=float(logs["eval_loss"]),
                    seconds=float(logs.get("eval_runtime", 0.0)),
                    token_accuracy=_optional(logs, "eval_mean_token_accuracy"),
                )
            )

    def _step(self, state: TrainerState, logs: dict[str, float]) -> events.StepCompleted:
        self._tokens_seen = self._tokens_before + int(logs["num_tokens"])
        tokens = self._tokens_seen - self._tokens_at_last_step
        self._tokens_at_last_step = self._tokens_seen
        times = self._clock.times
        return events.StepCompleted(
            step=state.global_step,
            epoch=float(state.epoch or 0.0),
            loss=float(logs["loss"]),
            learning_rate=float(logs["learning_rate"]),
            grad_norm=_optional(logs, "grad_norm"),
            tokens_seen=self._tokens_seen,
            tokens_per_second=tokens / times.total if times.total else 0.0,
            seconds=times.total,
            token_accuracy=_optional(logs, "mean_token_accuracy"),
            entropy=_optional(logs, "entropy"),
            data_seconds=times.data,
            optimizer_seconds=times.optimizer,
        )


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Looks at each step's numbers as soon as they are known."""

    def __init__(self, desk: TroubleDesk) -> None:
        self._desk = desk
        self._watch = StepWatch()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin with no history: this may be another run of steps."""
        self._watch = StepWatch(args.max_grad_norm, scales_loss=args.fp16)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """A step or an evaluation is done."""
        logs = logs or {}
        if "loss" in logs:
            found = self._watch.see(state.global_step, float(logs["loss"]), _optional(logs, "grad_norm"))
            self._desk.take(found, state.global_step)
        if "eval_loss" in logs and (found := self._watch.see_held_out(state.global_step, float(logs["eval_loss"]))):
            self._desk.take(found, state.global_step)


class PulseCallback(TrainerCallback):  # type: ignore[misc]
    """Shows the runner's main thread that the worker gets on. The last of the callbacks: it sees what others ask for.

    A save takes longer than a step; an evaluation shows itself by its batches.
    """

    def __init__(self, pulse: Pulse, clock: StepClock) -> None:
        self._pulse = pulse
        self._clock = clock

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step begins."""
        self._pulse.begin_step()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A batch is done."""
        self._pulse.beat()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is done."""
        self._pulse.end_step()
        self._go_on(control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch is done."""
        self._go_on(control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A batch is evaluated."""
        self._pulse.beat()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All held-out rows are evaluated."""
        self._go_on(control)
        self._clock.wait()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All the others have seen the step's figures, and have rested if they were to."""
        self._clock.wait()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint is written."""
        self._pulse.beat()
        self._clock.wait()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What comes now is no step."""
        self._pulse.pause()

    def _go_on(self, control: TrainerControl) -> None:
        if control.should_save or control.should_training_stop:
            self._pulse.pause()
        else:
            self._pulse.beat()


class CommandCallback(TrainerCallback):  # type: ignore[misc]
    """Obeys requests within a step."""

    def __init__(self, emit: Callable[[Event], object], control: RunControl, saver: CheckpointSaver) -> None:
        self._emit = emit
        self._requests = control
        self._saver = saver
        self._after_step: Randomness | None = None

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A stop need not wait for the rest of the accumulation, which is done anew when the run goes on."""
        if self._requests.stop_requested and self._after_step is not None:
            # What half a step has drawn must not be in the checkpoint: it is one of the step before.
            self._after_step.restore()
            self._stop(state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Obey after a whole step."""
        if args.gradient_accumulation_steps > 1:
            self._after_step = Randomness.now()
        self._obey(state, control)
        if self._requests.take_checkpoint_request() and not self._saver.has(state.global_step):
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Obey what the figures asked for, before the step is evaluated or saved."""
        if {"loss", "eval_loss"} & (logs or {}).keys():
            self._obey(state, control)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Weights that are worth nothing are not evaluated because an epoch is over."""
        if self._requests.stop_requested and not self._requests.may_save:
            self._stop(state, control)

    def _obey(self, state: TrainerState, control: TrainerControl) -> None:
        if self._requests.pause_requested:
            self._rest(state.global_step)
        if self._requests.stop_requested or self._requests.length_requested:
            # Another length needs another schedule: the pipeline goes on from here with it.
            self._stop(state, control)

    def _rest(self, step: int) -> None:
        began = time.monotonic()
        self._emit(events.RunPaused(step, *self._requests.pause_reason))
        self._requests.rest()
        self._emit(events.RunContinued(step, time.monotonic() - began))

    def _stop(self, state: TrainerState, control: TrainerControl) -> None:
        control.should_training_stop = True
        control.should_evaluate &= self._requests.may_save
        control.should_save = state.global_step > 0 and self._saver.wants(state.global_step)


def _tokens_counted(state: TrainerState) -> int:
    """Tokens of all steps so far; TRL's own count begins anew at each resume."""
    total = last = 0
    for entry in state.log_history:
        count = int(entry.get("num_tokens", last))
        total, last = (total + last if count < last else total), count
    return total + last


def settle_device() -> None:
    """Wait until a GPU has done what it was told: it works on after a call has returned."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _every(strategy: str, steps: float | None, state: TrainerState) -> int | None:
    """Steps between two of what is done by a strategy; None where it is never done."""
    if strategy == "epoch":
        return max(1, round(int(state.max_steps) / max(1, int(state.num_train_epochs))))
    return max(1, int(steps)) if strategy == "steps" and steps else None


def _optional(logs: dict[str, float], name: str) -> float | None:
    return float(logs[name]) if name in logs else None
