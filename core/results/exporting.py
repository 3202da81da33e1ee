"""What an export is asked for, how far it is, and what came of it. Light: the work is done in a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from core.errors import SftuiError
from core.runs.folder import RunFolder
from core.runs.launch import runner_environment

Kind = Literal["adapter", "merged", "gguf", "trl", "push"]
KINDS: Mapping[Kind, str] = {
    "adapter": "The adapter as PEFT writes it, with a model card",
    "merged": "The whole model in 16 bits, with the adapter merged into it",
    "gguf": "One file for llama.cpp and Ollama, with a Modelfile",
    "trl": "The run as TRL alone does it: a YAML for `trl sft --config`, and the rows",
    "push": "The adapter, or the whole model, to a repository of the hub",
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is wanted."""

    kind: Kind
    target: str
    """A folder; a file for GGUF; a repository's id for a push."""
    step: int | None = None
    """Of a checkpoint; None for the result."""
    force: bool = False
    """Whether an earlier export there is replaced."""
    base_id: str | None = None
    """What the base model is called on the hub, where the run had it from a folder."""
    compare: bool = True
    """Whether the merged model is held against the adapter on the base as it was trained."""
    llama_cpp: str | None = None
    """The folder of llama.cpp."""
    gguf_type: str = "bf16"
    public: bool = False
    """Whether everybody may see a repository that is made by a push."""
    device: str | None = None


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far it is."""

    step: str
    """In words."""
    done: int = 0
    total: int = 0
    """Bytes, rows or tokens; 0 where nobody knows."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was made."""

    kind: Kind
    path: str
    """Or the address of a repository."""
    size_bytes: int
    facts: tuple[tuple[str, str], ...] = ()
    """What else there is to know, a name and words each."""


Outcome = ExportProgress | Exported | SftuiError


def told(line: str | bytes) -> Outcome | None:
    """What a line of the process says; None for one that is not its own."""
    try:
        values = json.loads(line)
        if "progress" in values:
            return ExportProgress(**values["progress"])
        if "exported" in values:
            made = values["exported"]
            return Exported(**{**made, "facts": tuple((name, words) for name, words in made["facts"])})
        if "error" in values:
            return SftuiError(**values["error"])
    except (ValueError, TypeError, KeyError):
        return None
    return None


def line_of(outcome: Outcome) -> str:
    """The line that says it."""
    match outcome:
        case ExportProgress():
            values: dict[str, Any] = {"progress": asdict(outcome)}
        case Exported():
            values = {"exported": asdict(outcome)}
        case SftuiError():
            values = {"error": {"title": outcome.title, "message": outcome.message, "hint": outcome.hint}}
    return json.dumps(values)


def start_export(run: RunFolder, request: ExportRequest, output: int | IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start the process and return at once. It has a session of its own, and writes its lines to `output`."""
    return subprocess.Popen(
        [sys.executable, "-m", "core.results.export_process", str(run.path), json.dumps(asdict(request))],
        env=runner_environment(),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL if output == subprocess.PIPE else output,
    )


def export(run: RunFolder, request: ExportRequest, hear: Callable[[ExportProgress], object]) -> Exported:
    """Export and wait for it; blocks. Ctrl-C ends it. Raises SftuiError."""
    with start_export(run, request, subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            return _last(process.stdout, hear)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _last(lines: Iterator[bytes] | IO[bytes], hear: Callable[[ExportProgress], object]) -> Exported:
    for line in lines:
        match told(line):
            case ExportProgress() as progress:
                hear(progress)
            case Exported() as made:
                return made
            case SftuiError() as error:
                raise error
    raise SftuiError("The export ended without a word", "Its process was killed, or the machine went down.", "Again?")


def request_from(values: str) -> ExportRequest:
    """The request that the process was started with."""
    return ExportRequest(**json.loads(values))


def where(target: str) -> Path:
    """The place of a target, with what leads to it."""
    from core.paths import expand

    return expand(target).absolute()
