"""How a run ended, in large: what there is now, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from core.runs import events
from core.runs.data_words import left_out_lines
from core.runs.memory_words import out_of_memory_lines, peak_words
from core.text import human_duration, safe
from tui_app.format import ENDED, number

if TYPE_CHECKING:
    from core.runs.folder import RunFolder
    from core.runs.state import RunState, Status

_MENDS_SHOWN = 4


class OutcomePanel(Static):
    """Shown when the run has ended."""

    DEFAULT_CSS = """
    OutcomePanel { display: none; height: auto; max-height: 12; overflow-y: auto; padding: 0 1; margin: 0 0; }
    OutcomePanel.-shown { display: block; }
    OutcomePanel.-finished { border: round $success; border-title-color: $success; }
    OutcomePanel.-stopped { border: round $warning; border-title-color: $warning; }
    OutcomePanel.-failed { border: round $error; border-title-color: $error; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._shown: Content | None = None

    def show(self, folder: RunFolder, state: RunState, current: Status) -> None:
        """Show the end, if this is one."""
        ended = current in ENDED
        self.set_class(ended, "-shown")
        if not ended:
            self._shown = None
            return
        title, lines = outcome_lines(folder, state, current)
        content = Content("\n").join(lines)
        if content == self._shown:
            return
        self._shown = content
        self.border_title = Content(title)
        looks = {"interrupted": "failed", "released": "stopped"}.get(current, current)
        for name in ("finished", "stopped", "failed"):
            self.set_class(name == looks, f"-{name}")
        self.update(content)


def outcome_lines(folder: RunFolder, state: RunState, current: Status) -> tuple[str, list[Content]]:
    """The title and the lines that tell how a run ended."""
    outcome = state.outcome
    match outcome:
        case events.RunFinished():
            return "✓ Finished", _finished(folder, state, outcome)
        case events.RunStopped():
            title = "‖ Paused, its device is free" if outcome.released else "■ Stopped"
            return title, _stopped(folder, outcome)
        case events.RunFailed():
            return f"✗ Failed: {safe(outcome.title)}", _failed(folder, state, outcome)
    if state.gone is not None:
        known = state.gone
        lines = [Content(f"The runner is gone without a last word. {safe(known.title)}. {safe(known.message)}")]
        lines += _about_memory(state, known)
    else:
        lines = [Content("The runner is gone without a last word: it was killed, or the machine went down.")]
    lines.append(_pair("last step", number(state.step)))
    if state.checkpoints:
        kept = state.checkpoints[-1]
        lines.append(_pair("checkpoint", safe(str(folder.path / kept.path))))
    else:
        lines.append(Content("No checkpoint was written before."))
    lines.append(_pair("its log", safe(str(folder.log_file))))
    return f"! {current.capitalize()}", lines


def _finished(folder: RunFolder, state: RunState, outcome: events.RunFinished) -> list[Content]:
    result = safe(str(folder.path / outcome.result))
    full = state.method == "full"
    loader = "transformers AutoModelForCausalLM" if full else "peft AutoPeftModelForCausalLM"
    return [
        Content(f"{number(outcome.step)} steps in {human_duration(outcome.seconds)}."),
        *_left_out(state),
        *([Content(_sentence(peak_words(state.peak)))] if state.peak is not None else []),
        _pair("the model" if full else "the adapter", result),
        _pair("load it with", f"{loader}.from_pretrained(that folder)"),
        _pair("next", "a ask it, E export it, h all runs, N set up another run"),
    ]


def _stopped(folder: RunFolder, outcome: events.RunStopped) -> list[Content]:
    lines = [
        Content(
            f"{_sentence(safe(outcome.reason)) or 'By request'}, after step {number(outcome.step)} "
            f"and {human_duration(outcome.seconds)}."
        )
    ]
    if outcome.checkpoint is None:
        lines.append(Content("Nothing was saved."))
    else:
        lines.append(_pair("saved", safe(str(folder.path / outcome.checkpoint))))
    return lines


def _about_memory(state: RunState, failed: events.RunFailed) -> list[Content]:
    """What was known when memory ran out, and what to do; of another failure the hint alone."""
    known = failed.memory
    lines = []
    if known is not None:
        lines += [_pair(name, words) for name, words in out_of_memory_lines(known, failed.step, _MENDS_SHOWN)]
    if known is not None and known.mends:
        lines.append(_pair("f", "makes the first of them, and goes on" + _from_where(state, known.mends[0])))
    elif failed.hint:
        lines.append(_pair("what to do", safe(failed.hint, keep_newlines=True)))
    return lines


def _from_where(state: RunState, mend: events.Mend) -> str:
    if mend.begins_anew or not state.checkpoints:
        return " from the beginning"
    return f" from step {number(state.checkpoints[-1].step)}"


def _failed(folder: RunFolder, state: RunState, outcome: events.RunFailed) -> list[Content]:
    lines = [Content(safe(outcome.message, keep_newlines=True))] if outcome.message else []
    lines += _about_memory(state, outcome)
    lines.append(_pair("ended", f"after step {number(outcome.step)} and {human_duration(outcome.seconds)}"))
    if outcome.traceback_file is not None:
        lines.append(_pair("traceback", safe(str(folder.path / outcome.traceback_file))))
    return lines


def _left_out(state: RunState) -> list[Content]:
    """What of the data the run never saw; nothing where it saw all."""
    if state.data is None or not left_out_lines(state.data):
        return []
    return [_pair("data", "; ".join(left_out_lines(state.data)))]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pair(name: str, value: str) -> Content:
    return Content.assemble((f"{name}  ", "$secondary"), value)
