"""The commands that have to do with runs that are there: list, watch, ask, resume."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import SftuiError
from core.text import human_duration, safe

if TYPE_CHECKING:
    from core.runs.events import Command
    from core.runs.folder import RunFolder, RunSummary
    from core.runs.state import RunState

DONE, FAILED = 0, 1


class _Request(NamedTuple):
    """A command that asks a run for something."""

    help: str
    command: "Command"
    flag: str = ""
    flag_help: str = ""
    flag_command: "Command" = "stop"

    def request(self, options: argparse.Namespace) -> "Command":
        """What the runner is asked."""
        return self.flag_command if self.flag and getattr(options, self.flag) else self.command


_REQUESTS = {
    "stop": _Request("Ask a run to stop and save.", "stop", "now", "end it at once, without saving", "stop_now"),
    "pause": _Request(
        "Ask a run to rest; it keeps its device.", "pause", "free", "save and end: the device is free", "release"
    ),
    "continue": _Request("Ask a run that rests to go on, also one that freed its device.", "continue"),
    "checkpoint": _Request("Ask a run to save a checkpoint now.", "checkpoint"),
    "sample": _Request("Ask a run to answer its sample prompts now, as far as it is trained.", "sample"),
}


def add_run_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add these commands; `command` makes a parser of a name, an action and a help."""
    command("runs", _runs, "All runs, the newest first.")
    attach = command("attach", _attach, "Open the app on a run; with --json, or no terminal, print its events.")
    attach.add_argument("run")
    resume = command("resume", _resume, "Go on with a run that was stopped or killed, from its last whole checkpoint.")
    resume.add_argument("run")
    resume.add_argument("--from", dest="step", type=int, metavar="STEP", help="from this checkpoint; 0 begins anew")
    resume.add_argument(
        "--mend", nargs="?", type=int, const=1, metavar="N",
        help="where memory ran out: make the first change that was offered, or the Nth, and go on",
    )  # fmt: skip
    resume.add_argument("--queue", action="store_true", help="wait until its device is free")
    resume.add_argument("--detach", action="store_true", help="start it and leave")
    change = command("set", _set, "Make a run that trains longer or shorter.")
    change.add_argument("run")
    change.add_argument("length", metavar="max_steps=N|num_train_epochs=N")
    note = command("note", _note, "Write a note to a run; without a text, print its notes.")
    note.add_argument("run")
    note.add_argument("text", nargs="*")
    for name, request in _REQUESTS.items():
        added = command(name, _send, request.help)
        added.set_defaults(command=name, detach=True, queue=False)
        added.add_argument("run")
        if request.flag:
            added.add_argument(f"--{request.flag}", action="store_true", help=request.flag_help)


def _resume(options: argparse.Namespace) -> int:
    from core.runs.checkpoints import checkpoint_to_resume
    from core.runs.events import RunFinished
    from core.runs.folder import find_run

    folder = find_run(options.run)
    state = folder.read_state()
    if folder.is_alive():
        raise SftuiError("The run is running", f"A runner holds {folder.id}.", f"`sftui attach {folder.id}` shows it.")
    if isinstance(state.outcome, RunFinished):
        raise SftuiError("The run is finished", f"{folder.id} has its result already: {state.outcome.result}.")
    step = options.step
    if options.mend is not None:
        _mend(folder, state, options)
    if checkpoint_to_resume(folder, step) is None and not options.json:
        print("the run begins anew" if step == 0 else "no checkpoint was saved: the run begins anew")
    return start(folder, options, past=state.last_seq, resume_step=step)


def _mend(folder: "RunFolder", state: "RunState", options: argparse.Namespace) -> None:
    """Change the run's spec by a mend that its end offers. Raises SftuiError."""
    from core.runs.checkpoints import checkpoint_to_resume, committed_checkpoints
    from core.runs.killed import why_gone
    from core.runs.memory_words import mend_words
    from core.runs.mending import apply_mend, chosen_mend

    if state.outcome is None:
        state = dataclasses.replace(state, gone=why_gone(folder, state))
    mend = chosen_mend(folder, state, options.mend)
    if mend.begins_anew and options.step != 0 and committed_checkpoints(folder):
        message = f"{mend.title}: the checkpoints of {folder.id} do not go together with it, and would be deleted."
        hint = f"`sftui resume {folder.id} --mend {options.mend} --from 0` begins anew."
        raise SftuiError("This begins anew", message, hint)
    # What is damaged is said before anything is changed.
    checkpoint_to_resume(folder, options.step)
    apply_mend(folder, mend)
    if not options.json:
        print(f"{mend_words(mend)} ({safe(', '.join(mend.sets))})")


def start(folder: Any, options: argparse.Namespace, past: int = 0, resume_step: int | None = None) -> int:
    """Start a runner on a folder and follow it to its end, unless it is to be left alone. Returns the exit status.

    `past` is the last entry of an earlier runner; `resume_step` the checkpoint to go on from, if not the newest.
    """
    from core.console import JsonReporter, TextReporter, side_by_side
    from core.runs.follow import exit_status, follow, interruptible
    from core.runs.launch import start_run

    if options.detach:
        start_run(folder, resume_step, queue=options.queue)
        print(json.dumps({"id": folder.id, "path": str(folder.path)}) if options.json else safe(folder.id))
        return DONE
    reporter = JsonReporter() if options.json else TextReporter()
    try:
        with interruptible() as interruption:
            start_run(folder, resume_step, queue=options.queue)
            state = follow(folder, reporter.tell, interruption, past=past)
    except SftuiError as error:
        complain(error, options)
        return FAILED
    finally:
        reporter.close()
    if not options.json:
        print(side_by_side(state))
        _say_where(folder.path, state)
    if state.outcome is None:
        _say_why_gone(folder, state)
    return exit_status(state, interruption)


def _say_why_gone(folder: "RunFolder", state: "RunState") -> None:
    from core.console import describe
    from core.runs.killed import why_gone

    if (found := why_gone(folder, state)) is not None:
        sys.stderr.write(f"{describe(found)}\n")


def _say_where(path: Path, state: Any) -> None:
    from core.runs.events import RunFinished

    if isinstance(state.outcome, RunFinished):
        print(f"\nresult: {safe(str(path / state.outcome.result))}")
    elif state.outcome is None:
        sys.stderr.write(f"interrupted: the runner is gone without a word; see {safe(str(path / 'runner.log'))}\n")
    else:
        print(f"run: {safe(str(path))}")


def _runs(options: argparse.Namespace) -> int:
    from core.runs.events import finite
    from core.runs.table import list_runs

    summaries = list_runs()
    if options.json:
        fields = ("id", "path", "state", "step", "max_steps", "loss", "model", "started")
        listed = [{name: finite(getattr(s, name)) for name in fields} | _memory(s) for s in summaries]
        print(json.dumps(listed, default=str, indent=2))
        return DONE
    if not summaries:
        print("no runs yet: `sftui demo` makes one")
    for s in summaries:
        loss = f"loss {s.loss:.4f}" if s.loss is not None else ""
        steps = f"{s.step:,}/{s.max_steps:,}" if s.max_steps else "-"
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.started)) if s.started else "-"
        took = human_duration(s.seconds) if s.seconds is not None else ""
        print(f"{safe(s.id):44} {s.state:12} {steps:>15}  {loss:12} {began:16}  {took}")
    return DONE


def _memory(summary: "RunSummary") -> dict[str, Any]:
    """What a run held at most and what was predicted; on a CPU the growth of its process ("host")."""
    peak = summary.peak
    if peak is None:
        return {"peak_bytes": None, "peak_device": None, "predicted_bytes": None}
    return {"peak_bytes": peak.bytes, "peak_device": peak.device, "predicted_bytes": peak.predicted_bytes}


def _attach(options: argparse.Namespace) -> int:
    from core.console import JsonReporter, TextReporter
    from core.runs.folder import find_run
    from core.runs.follow import Interruption, exit_status, follow

    folder = find_run(options.run)
    if options.open_app is not None and not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        return int(options.open_app(open_screen="monitor", run=folder))
    reporter = JsonReporter() if options.json else TextReporter()
    try:
        state = follow(folder, reporter.tell, Interruption())
    finally:
        reporter.close()
    if state.outcome is None:
        _say_why_gone(folder, state)
    return exit_status(state, Interruption())


def _send(options: argparse.Namespace) -> int:
    from core.runs.commands import send
    from core.runs.events import RunStopped
    from core.runs.folder import find_run

    folder = find_run(options.run)
    if options.command == "continue" and not folder.is_alive():
        outcome = folder.read_state().outcome
        if isinstance(outcome, RunStopped) and outcome.released:
            options.step = options.mend = None
            return _resume(options)
    request_id = send(folder, _REQUESTS[options.command].request(options))
    words = f"{folder.id}: asked to {options.command}"
    print(json.dumps({"id": request_id, "run": folder.id}) if options.json else safe(words))
    return DONE


def _set(options: argparse.Namespace) -> int:
    from core.runs.commands import parse_length, send
    from core.runs.folder import find_run

    length = parse_length(options.length)
    if length is None:
        hint = "Write max_steps=600, or num_train_epochs=2."
        raise SftuiError("Wrong use", f"{options.length} is no length of a run.", hint)
    folder = find_run(options.run)
    request_id = send(folder, *length)
    words = f"{folder.id}: asked for {options.length}"
    print(json.dumps({"id": request_id, "run": folder.id}) if options.json else words)
    return DONE


def _note(options: argparse.Namespace) -> int:
    from core.runs.folder import find_run
    from core.runs.notes import add_note, read_notes

    folder = find_run(options.run)
    if options.text:
        add_note(folder, " ".join(options.text))
    notes = read_notes(folder)
    if options.json:
        print(json.dumps([dataclasses.asdict(note) for note in notes], indent=2))
    for note in () if options.json else notes:
        print(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(note.time))}  {safe(note.text)}")
    return DONE


def complain(error: SftuiError, options: argparse.Namespace) -> None:
    """Tell of an error: on standard error for people, and on standard output where JSON is wanted."""
    from core.spec.problems import SpecError

    if vars(options).get("json"):
        told: dict[str, Any] = {"title": error.title, "message": error.message, "hint": error.hint}
        if isinstance(error, SpecError):
            told["problems"] = [dataclasses.asdict(problem) for problem in error.problems]
        print(json.dumps({"error": told}))
    lines = [safe(error.title), safe(error.message, keep_newlines=True), safe(error.hint)]
    sys.stderr.write("\n".join(line for line in lines if line) + "\n")
