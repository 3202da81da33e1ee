"""What the Monitor says in words beside the figures: commands on their way, choices, problems."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.content import Content

from core.runs import events
from core.runs.memory_words import peak_words, probe_words
from core.text import human_bytes, human_count, human_duration, safe
from tui_app import format as words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.runs.events import Command
    from core.runs.notes import Note
    from core.runs.state import RunState

ASKED: dict[Command, str] = {
    "stop": "stop and save",
    "stop_now": "stop at once",
    "pause": "pause",
    "release": "save and free its device",
    "continue": "go on",
    "checkpoint": "write a checkpoint",
    "sample": "answer the sample prompts",
    "set_max_steps": "train to another step",
    "set_num_train_epochs": "train for another number of epochs",
}


LEAVE_QUEUE = (
    "Take this run out of the queue?",
    "It ends before it has begun; it can be resumed later.",
    "Take it out",
    "Let it wait",
)


# Of these the run, or what it has learned, does not come out whole.
GRAVE: frozenset[events.TroubleKind] = frozenset(
    {"not_finite", "gpu_memory_error", "gpu_lost", "gpu_error", "no_progress"}
)
_SHOWN_TROUBLES = 20


class Sent:
    """A command on its way: what was there before it, to tell when it has been obeyed."""

    def __init__(self, command: Command, checkpoints: int) -> None:
        self.command = command
        self.checkpoints = checkpoints
        self.id: str | None = None


def notice(state: RunState, sent: Sent | None, *, alive: bool) -> Content:
    """The line on commands and checkpoints: what was asked, what came of it."""
    if state.outcome is None and alive:
        accepted = {command.command_id: command.command for command in state.commands}
        if sent is not None and sent.id not in accepted:
            return Content.styled(f"Asked the runner: {ASKED[sent.command]}…", "$accent")
        if "stop_now" in accepted.values():
            return Content.styled("The runner stops at once.", "$warning")
        if state.stop_requested:
            return Content.styled("The runner ends its step, saves and stops. s again stops at once.", "$warning")
        if sent is not None and sent.command == "pause" and state.paused is None:
            return Content.styled("The runner has heard: it pauses after this step…", "$accent")
        if sent is not None and sent.command == "checkpoint" and len(state.checkpoints) <= sent.checkpoints:
            return Content.styled("The runner has heard: it writes a checkpoint after this step…", "$accent")
        if state.present_troubles:
            return _trouble_line(state.present_troubles[-1])
    if state.checkpoints:
        kept = state.checkpoints[-1]
        return Content.assemble(
            ("checkpoint ", "$secondary"),
            f"at step {words.number(kept.step)}, {human_bytes(kept.size_bytes)} in {human_duration(kept.seconds)}",
        )
    if state.problems:
        return Content.styled(f"! {safe(state.problems[-1].title)}", "$warning")
    return Content("")


def why_now(state: RunState) -> str:
    """Why a run ended or rests, where it was not asked to or that says more."""
    match state.outcome:
        case events.RunFailed():
            return state.outcome.title
        case events.RunStopped():
            return state.outcome.reason
    return state.paused.reason if state.paused and state.paused.reason != "by request" else ""


def _trouble_line(trouble: events.TroubleNoticed) -> Content:
    mark, colour = ("✗", "$error") if trouble.kind in GRAVE else ("!", "$warning")
    return Content.styled(f"{mark} {safe(trouble.title)}", colour)


def _trouble_lines(troubles: Sequence[events.TroubleNoticed]) -> list[Content]:
    """The newest first: a long run may have many."""
    lines = []
    for trouble in reversed(troubles[-_SHOWN_TROUBLES:]):
        message = f"{safe(trouble.message)} {events.ACTION_WORDS.get(trouble.action, '')}"
        lines.append(_trouble_line(trouble))
        lines.append(Content.styled(f"  step {words.number(trouble.step)}: {message}", "$secondary"))
    return lines


def note_lines(state: RunState, written: Sequence[Note] = ()) -> list[Content]:
    """What people wrote, and what was loaded, decided and noticed, with reasons."""
    lines = [
        Content.assemble(
            ("✎ ", "$accent"),
            (time.strftime("%m-%d %H:%M ", time.localtime(note.time)), "$secondary"),
            safe(note.text),
        )
        for note in reversed(written)
    ]
    lines += _trouble_lines(state.troubles) + [
        line
        for problem in state.problems
        for line in (
            Content.styled(f"! {safe(problem.title)}", "$warning"),
            Content.styled(f"  {safe(problem.message)}", "$secondary"),
        )
    ]
    if state.loaded is not None:
        loaded = state.loaded
        lines.append(
            Content.assemble(
                (safe(loaded.model_type), "bold"),
                f"  {human_count(loaded.parameters)} parameters, {human_bytes(loaded.weight_bytes)}, "
                f"{safe(loaded.dtype)} on {safe(loaded.device)}",
            )
        )
    if state.adapted is not None:
        trained, total = state.adapted.trainable_parameters, state.adapted.total_parameters
        lines.append(
            Content.assemble(("trains", "bold"), f"  {human_count(trained)} of {human_count(total)} parameters")
        )
    if state.data is not None:
        data = state.data
        held_out = f", {words.number(data.held_out_rows)} held out" if data.held_out_rows else ""
        lines.append(
            Content.assemble(("rows", "bold"), f"  {words.number(data.train_rows)}{held_out}, {safe(data.form)}")
        )
    if state.probed is not None:
        lines.append(Content(probe_words(state.probed)))
    if state.peak is not None:
        lines.append(Content(peak_words(state.peak)))
    for choice in state.choices:
        lines.append(
            Content.assemble(
                (safe(choice.name), "bold"), f"  {safe(choice.value)}  ", (safe(choice.reason), "$secondary")
            )
        )
    return lines
