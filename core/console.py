"""A run on a plain terminal or in a pipe: a progress bar with what is left, or lines, or the journal's JSON."""

import sys
from typing import Never

from tqdm import tqdm

from core.runs import events
from core.runs.data_words import data_lines, left_out_lines
from core.runs.events import Entry, encode
from core.runs.memory_words import out_of_memory_lines, peak_words, probe_words
from core.runs.state import RunState
from core.text import human_bytes, human_count, human_duration, safe, shorten


class JsonReporter:
    """The journal's lines as they come."""

    def tell(self, entry: Entry, state: RunState) -> None:
        """Print the entry's JSON line."""
        print(encode(entry), flush=True)

    def close(self) -> None:
        """Nothing to end."""


class TextReporter:
    """Lines for what happens, and on a terminal a bar for the steps."""

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None
        self._quarters_loaded = 0
        self._data_step, self._quarters_of_data = "", 0
        self._on_terminal = sys.stderr.isatty()

    def tell(self, entry: Entry, state: RunState) -> None:
        """Say what the entry tells a person; memory samples and the like say nothing."""
        match entry.event:
            case events.TrainingStarted(max_steps=steps) if self._on_terminal:
                self._bar = tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True, mininterval=0.2)
            case events.StepCompleted() as step:
                self._step(step, state)
            case events.LoadProgressed() as progress:
                self._load(progress)
            case events.DataProgressed() as progress:
                self._read(progress)
            case events.RunFinished() | events.RunStopped() | events.RunFailed():
                self.close()
                if state.peak is not None:
                    self._print(peak_words(state.peak))
                self._say(entry.event)
            case event:
                self._say(event)

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _step(self, step: events.StepCompleted, state: RunState) -> None:
        if self._bar is not None:
            self._bar.n = step.step
            self._bar.set_postfix_str(f"loss {step.loss:.4f}, {step.tokens_per_second:,.0f} tokens/s")
            return
        of = "?" if state.max_steps is None else f"{state.max_steps:,}"
        every = max(1, (state.max_steps or 1) // 20)
        if step.step % every == 0:
            self._print(
                f"step {step.step:,} of {of}  loss {step.loss:.4f}  "
                f"lr {step.learning_rate:.2e}  {step.tokens_per_second:,.0f} tokens/s"
            )

    def _load(self, progress: events.LoadProgressed) -> None:
        """Say a quarter, a half and three quarters; the whole is said with what was loaded."""
        quarters = 4 * progress.done_bytes // max(1, progress.total_bytes)
        if self._quarters_loaded < quarters < 4:
            self._say(progress)
        self._quarters_loaded = quarters

    def _read(self, progress: events.DataProgressed) -> None:
        """Say each quarter of a long look at the data."""
        if progress.step != self._data_step:
            self._data_step, self._quarters_of_data = progress.step, 0
        quarters = 4 * progress.done // max(1, progress.total)
        if self._quarters_of_data < quarters < 4:
            self._say(progress)
        self._quarters_of_data = quarters

    def _say(self, event: events.Event) -> None:
        line = describe(event)
        if line:
            self._print(line)

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)


def describe(event: events.Event) -> str:
    """One event in words, safe to print; empty for those that a log of a run does not need."""
    # A run's folder may come from anywhere: every text in its journal is foreign, also those of few known words.
    return safe(_describe(event), keep_newlines=True)


def _describe(event: events.Event) -> str:
    match event:
        case events.RunQueued():
            return f"place {event.place} in the queue: waits for {safe(event.waits_for)}"
        case events.RunStarted():
            return f"run {safe(event.run_id)}: {event.method} of {safe(event.model)}"
        case events.PhaseStarted():
            return f"{event.phase}: {safe(event.detail)}" if event.detail else event.phase
        case events.ChoiceMade():
            return f"  {event.name} = {safe(event.value)} ({safe(event.reason)})"
        case events.DataProgressed():
            share = event.done / max(1, event.total)
            return f"  {event.step} the rows: {share:.0%}"
        case events.DataPrepared():
            lines = [f"{event.train_rows:,} rows to train on, {event.held_out_rows:,} held out ({event.form})"]
            return "\n".join(f"  {line}" for line in [*lines, *data_lines(event), *left_out_lines(event)])
        case events.LoadProgressed():
            files = "1 file" if event.total_files == 1 else f"{event.done_files} of {event.total_files} files"
            return f"  {human_bytes(event.done_bytes)} of {human_bytes(event.total_bytes)} loaded, {files}"
        case events.ModelLoaded():
            size = human_bytes(event.weight_bytes)
            return f"  {human_count(event.parameters)} parameters in {size} on {event.device}, {event.dtype}"
        case events.ModelAdapted():
            share = event.trainable_parameters / max(1, event.total_parameters)
            return f"  {human_count(event.trainable_parameters)} parameters to train ({share:.2%})"
        case events.EvaluationCompleted():
            return f"held-out loss at step {event.step:,}: {event.loss:.4f}"
        case events.MemoryProbed():
            return probe_words(event)
        case events.CheckpointCommitted():
            return f"checkpoint at step {event.step:,}: {safe(event.path)}, {human_bytes(event.size_bytes)}"
        case events.CheckpointDeleted():
            return f"checkpoint deleted: {safe(event.path)}"
        case events.RunPaused():
            return f"paused at step {event.step:,}: {safe(event.reason)}. {safe(event.message)}".rstrip()
        case events.RunContinued():
            return f"goes on at step {event.step:,} after {human_duration(event.seconds)}"
        case events.LengthChanged():
            until = f"{event.max_steps:,} steps" if event.max_steps is not None else f"{event.epochs:g} epochs"
            return f"at step {event.step:,} the run is set to {until}"
        case events.CommandAccepted():
            return f"{event.command}: accepted"
        case events.ProblemNoticed():
            return f"{safe(event.title)}: {safe(event.message)}"
        case events.TroubleNoticed():
            done = events.ACTION_WORDS.get(event.action, "")
            return f"trouble: {safe(event.title)}. {safe(event.message)} {done}".rstrip()
        case events.RunFinished():
            return f"finished after {human_duration(event.seconds)}"
        case events.RunStopped():
            saved = f"saved in {safe(event.checkpoint)}" if event.checkpoint else "nothing was saved"
            return f"stopped at step {event.step:,} ({safe(event.reason)}); {saved}"
        case events.RunFailed():
            lines = [f"failed: {safe(event.title)}", safe(event.message, keep_newlines=True), safe(event.hint)]
            if event.memory is not None:
                known = out_of_memory_lines(event.memory, event.step)
                lines += [f"  {name:8} {words}" for name, words in known]
            return "\n".join(line for line in lines if line)
        case _:
            return ""


def side_by_side(state: RunState, width: int = 100) -> str:
    """Base and tuned answers to the same prompts, and how many are exactly what the dataset says."""
    if state.base_samples is None or state.tuned_samples is None:
        return ""
    lines: list[str] = []
    for base, tuned in zip(state.base_samples.answers, state.tuned_samples.answers, strict=False):
        mark = "" if tuned.expected is None else ("  ✓ exact" if is_exact(tuned) else "  ✗ not as expected")
        lines += [
            f"\n  {shorten(safe(tuned.prompt), width)}",
            f"    base   {shorten(safe(base.answer), width)}",
            f"    tuned  {shorten(safe(tuned.answer), width)}{mark}",
        ]
    expected = [answer for answer in state.tuned_samples.answers if answer.expected is not None]
    if expected:
        before = sum(map(is_exact, state.base_samples.answers))
        after = sum(map(is_exact, expected))
        lines.append(f"\n  exactly right: base {before} of {len(expected)}, tuned {after} of {len(expected)}")
    return "\n".join(lines)


def is_exact(answer: events.Answer) -> bool:
    """Whether the answer is the dataset's own, letter by letter."""
    return answer.expected is not None and answer.answer.strip() == answer.expected.strip()
