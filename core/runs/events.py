"""Everything that can happen in a run, as frozen dataclasses, and their form as one JSON line each.

The journal of a run is a sequence of these. What a screen shows is reduced from them and from nothing else, so a fact
that no event carries cannot be shown. Sizes are in bytes, durations in seconds, `time` in seconds since the epoch.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import orjson

Restore = Callable[[Any], Any]
LATEST = 1e11
"""No time is later, in seconds: what a journal says must be a date that can be shown."""
Phase = Literal["preparing", "loading", "adapting", "training", "saving", "sampling"]
Command = Literal[
    "stop", "stop_now", "pause", "release", "continue", "checkpoint", "sample", "set_max_steps", "set_num_train_epochs"
]
TroubleKind = Literal[
    "not_finite", "loss_spike", "gradient_explosion", "no_progress",
    "gpu_slowed", "gpu_memory_error", "gpu_lost", "gpu_error", "host_memory", "disk",
]  # fmt: skip
TroubleAction = Literal["go_on", "pause", "stop"]
ACTION_WORDS: dict[TroubleAction, str] = {
    "go_on": "The run goes on.",
    "pause": "The run rests until it is told to go on.",
    "stop": "The run stops.",
}


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU at one moment; None where the driver does not tell."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int
    own_bytes: int | None
    """What the runner's own process holds."""
    utilization_percent: int | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None = None
    clock_mhz: int | None = None
    """Of its processors now; the next one is as high as it may go."""
    highest_clock_mhz: int | None = None
    slowed_by: tuple[str, ...] = ()
    """Why its clocks are held down, in words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one prompt, decoded greedily."""

    prompt: str
    answer: str
    expected: str | None
    """The dataset's own answer, where the prompt came from a held-out row."""


@dataclass(frozen=True, slots=True)
class GpuUser:
    """A process on a GPU; None where the driver or the system does not tell. Foreign."""

    pid: int
    user: str | None
    command: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Mend:
    """A change of the spec that makes a run smaller; every step still learns from as many rows."""

    title: str
    sets: tuple[str, ...]
    """What it sets, as "name=value"."""
    saved_bytes: int | None
    """By the plan; None where that does not tell."""
    begins_anew: bool = False
    """Whether checkpoints from before the change cannot be gone on from."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What was known when the memory ran out; None where nobody tells."""

    device: Literal["gpu", "host"]
    phase: str
    batch_rows: int | None = None
    """Of the batch that was worked on, as the model sees it: rows, and tokens of all of them with their padding."""
    batch_tokens: int | None = None
    wanted_bytes: int | None = None
    """The piece that could not be had."""
    held_bytes: int | None = None
    """By the run's process."""
    predicted_bytes: int | None = None
    """By the plan, for the whole run."""
    total_bytes: int | None = None
    others_bytes: int | None = None
    """By all other processes, now and when the run began."""
    others_bytes_at_start: int | None = None
    newcomers: tuple[GpuUser, ...] = ()
    """Processes that came onto the GPU since the run began."""
    mends: tuple[Mend, ...] = ()
    """The best first."""


@dataclass(frozen=True, slots=True)
class RunQueued:
    """The runner holds the run's lock and waits for its turn; told again whenever its place changes."""

    run_id: str
    model: str
    method: str
    pid: int
    place: int
    """1 for the next one on its device."""
    waits_for: str
    """In words: the run before it, or the memory that is not free yet."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The runner holds the run's lock, and its turn has come."""

    run_id: str
    model: str
    method: str
    pid: int
    version: str
    warm: bool
    """Whether the libraries were already loaded when the run was handed over."""


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """The worker entered a phase; `detail` says in words what it does there."""

    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ChoiceMade:
    """sftui decided something by itself."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class DataProgressed:
    """So much of the data is read (bytes) or turned into tokens (rows); a few a second at most."""

    step: Literal["checking", "tokenizing"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class KindCount:
    """How many rows have one kind of problem."""

    kind: str
    rows: int


@dataclass(frozen=True, slots=True)
class DataPrepared:
    """The rows are read, mapped, checked, tokenized, cut and packed. Rows of both parts where nothing else is said."""

    form: str
    train_rows: int
    held_out_rows: int
    skipped_rows: int = 0
    """Left out because they are wrong, or because the chat template refuses them."""
    skipped_kinds: tuple[KindCount, ...] = ()
    dropped_rows: int = 0
    """Left out because nothing within `max_length` is to be learned."""
    truncated_rows: int = 0
    """Cut at `max_length`."""
    sequences: int | None = None
    """What the training rows are packed into; None in journals of versions that did not tell, like the next two."""
    tokens: int | None = None
    """Of the training rows, once they are cut."""
    trained_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LoadProgressed:
    """So much of the base model is on the device, counted in the checkpoint's bytes; at most five a second."""

    done_bytes: int
    total_bytes: int
    done_files: int
    total_files: int


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The base model's weights are on the device."""

    auto_class: str
    model_type: str
    parameters: int
    weight_bytes: int
    dtype: str
    device: str
    attention: str


@dataclass(frozen=True, slots=True)
class ModelAdapted:
    """Adapters are attached, or the whole model is made trainable."""

    trainable_parameters: int
    total_parameters: int
    target_modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingStarted:
    """The trainer knows how far it has to go."""

    max_steps: int
    epochs: float
    first_step: int = 0
    """The last step of the checkpoint that training goes on from; 0 for a fresh start."""
    rows_per_step: int | None = None
    """Rows, or packed sequences, that one optimizer step learns from."""
    evaluate_every: int | None = None
    """Steps between two evaluations; None without any, like the next two."""
    save_every: int | None = None
    sample_every: int | None = None
    recomputes: bool | None = None
    """Whether activations are computed again in the backward pass instead of kept."""


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """One optimizer step."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens_seen: int
    tokens_per_second: float
    seconds: float
    """From its first forward pass to the end of its optimizer's work."""
    token_accuracy: float | None = None
    entropy: float | None = None
    """Of the predicted tokens, in nats."""
    data_seconds: float | None = None
    """Waited for its batches, before it began."""
    optimizer_seconds: float | None = None
    """The optimizer's share of `seconds`; the rest is forward and backward."""


@dataclass(frozen=True, slots=True)
class EvaluationCompleted:
    """The held-out rows were evaluated."""

    step: int
    loss: float
    seconds: float
    token_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class MemorySampled:
    """What host and GPUs hold; at most one a second."""

    process_bytes: int
    host_used_bytes: int
    host_total_bytes: int
    cpu_percent: float
    gpus: tuple[GpuUse, ...] = ()


@dataclass(frozen=True, slots=True)
class PeakMeasured:
    """The most that the run has held since it loads its model; told when it has grown, and at the end of training."""

    step: int
    device: Literal["gpu", "host"]
    """A GPU's memory, or on a CPU the growth of the process: the two are not to be compared."""
    bytes: int
    """In all; on a GPU with CUDA's context."""
    allocated_bytes: int | None = None
    """In tensors; None on a CPU, like the next one."""
    reserved_bytes: int | None = None
    """By PyTorch's allocator."""
    predicted_bytes: int | None = None
    """By the plan; None where it left something out."""


@dataclass(frozen=True, slots=True)
class MemoryProbed:
    """Two steps on the longest rows were tried before training, and everything was put back as it was."""

    device: Literal["gpu", "host"]
    bytes: int
    """The peak of them, as in PeakMeasured."""
    total_bytes: int | None
    rows: int
    """Of the largest batch, and its tokens with their padding."""
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointCommitted:
    """A checkpoint is whole on the disk. `path` is relative to the run's folder."""

    step: int
    path: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointDeleted:
    """A checkpoint made room for newer ones. `path` is relative to the run's folder."""

    path: str


@dataclass(frozen=True, slots=True)
class RunPaused:
    """The run rests: by request, or because it waits for something that `message` names."""

    step: int
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunContinued:
    """The rest is over, after so many seconds."""

    step: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LengthChanged:
    """The run is to be longer or shorter from now on; one of the two is None."""

    step: int
    max_steps: int | None
    epochs: float | None


@dataclass(frozen=True, slots=True)
class SamplesAnswered:
    """The model answered the sample prompts. `who` says whether it was trained by then."""

    who: Literal["base", "tuned"]
    step: int
    answers: tuple[Answer, ...]
    seconds: float | None = None
    """How long that took."""


@dataclass(frozen=True, slots=True)
class CommandAccepted:
    """The runner has read a command and will act on it."""

    command_id: str
    command: Command


@dataclass(frozen=True, slots=True)
class ProblemNoticed:
    """Something a person should know, though the run goes on."""

    title: str
    message: str


@dataclass(frozen=True, slots=True)
class TroubleNoticed:
    """Something is wrong with the numbers or the machine; told once, until it is over."""

    kind: TroubleKind
    title: str
    message: str
    step: int
    action: TroubleAction
    """What the run does about it."""


@dataclass(frozen=True, slots=True)
class TroubleEnded:
    """What was told by TroubleNoticed is over."""

    kind: TroubleKind
    step: int


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Trained to the end and saved. `result` is relative to the run's folder."""

    step: int
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunStopped:
    """Ended by request. `checkpoint` (relative) is None where there was nothing to save, or no time."""

    step: int
    checkpoint: str | None
    reason: str
    seconds: float
    released: bool = False
    """Whether it only frees its device for a while, to go on from here."""


@dataclass(frozen=True, slots=True)
class RunFailed:
    """Ended by an error. `traceback_file` is relative to the run's folder."""

    kind: str
    title: str
    message: str
    hint: str
    traceback_file: str | None
    step: int
    seconds: float
    memory: OutOfMemory | None = None
    """Where the memory ran out."""


Event = (
    RunQueued
    | RunStarted
    | PhaseStarted
    | ChoiceMade
    | DataProgressed
    | DataPrepared
    | LoadProgressed
    | ModelLoaded
    | ModelAdapted
    | TrainingStarted
    | StepCompleted
    | EvaluationCompleted
    | MemorySampled
    | PeakMeasured
    | MemoryProbed
    | CheckpointCommitted
    | CheckpointDeleted
    | RunPaused
    | RunContinued
    | LengthChanged
    | SamplesAnswered
    | CommandAccepted
    | ProblemNoticed
    | TroubleNoticed
    | TroubleEnded
    | RunFinished
    | RunStopped
    | RunFailed
)
TerminalEvent = RunFinished | RunStopped | RunFailed
TERMINAL = (RunFinished, RunStopped, RunFailed)
EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in typing.get_args(Event)}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal."""

    seq: int
    time: float
    event: Event


def encode(entry: Entry) -> str:
    """The JSON line of an entry, without its newline. NaN and infinities become strings, which JSON can carry."""
    fields = finite(dataclasses.asdict(entry.event))
    head = {"seq": entry.seq, "time": entry.time, "type": type(entry.event).__name__}
    return json.dumps({**head, **fields}, ensure_ascii=True, allow_nan=False)


def decode(line: str | bytes) -> Entry | None:
    """The entry of a JSON line; None for an event type this version does not know. Raises ValueError on a bad line."""
    try:
        fields = _loads(line)
    except RecursionError as error:
        raise ValueError("a journal line is nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("a journal line must be a JSON object")
    try:
        seq, time, name = int(fields.pop("seq")), float(fields.pop("time")), str(fields.pop("type"))
        if not 0 <= time < LATEST:
            raise ValueError(f"{time} is no time")
        kind = EVENT_TYPES.get(name)
        return None if kind is None else Entry(seq, time, typing.cast("Event", _build(kind, fields)))
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a journal entry: {error!r}") from error


def _loads(line: str | bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # It is ten times as fast, and does not read half characters, which the answer of a model may end in.
        return json.loads(line)


def finite(value: Any) -> Any:
    """A value that JSON can carry: NaN and infinities as "nan", "inf" and "-inf", tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _build(kind: Any, fields: dict[str, Any]) -> object:
    names, floats, plain, words, others = _fields(kind)
    if not fields.keys() <= names:
        # Of a later version.
        fields = {name: value for name, value in fields.items() if name in names}
    for name, allowed in plain:
        if name in fields and type(fields[name]) not in allowed:
            raise TypeError(f"{name} is no {allowed[0].__name__}")
    for name, known in words:
        if name in fields and fields[name] not in known:
            raise ValueError(f"{name} has an unknown value")
    for name in floats:
        value = fields.get(name)
        if type(value) is not float and value is not None:
            fields[name] = float(value)
    for name, restore in others:
        if fields.get(name) is not None:
            fields[name] = restore(fields[name])
    return kind(**fields)


@cache
def _fields(
    kind: Hashable,
) -> tuple[
    frozenset[str],
    tuple[str, ...],
    tuple[tuple[str, tuple[type, ...]], ...],
    tuple[tuple[str, tuple[str, ...]], ...],
    tuple[tuple[str, Restore], ...],
]:
    """A dataclass's fields: all names, floats, other plain values, words from a few, and what JSON gives otherwise.

    A long journal has a hundred thousand lines of the same few kinds: what is equal for all of them is found out once.
    """
    hints = typing.get_type_hints(kind)
    floats = tuple(name for name, hint in hints.items() if float in (hint, *typing.get_args(hint)))
    plain = tuple((name, allowed) for name, hint in hints.items() if (allowed := _plain_types(hint)))
    words = tuple((name, typing.get_args(hint)) for name, hint in hints.items() if typing.get_origin(hint) is Literal)
    others = [(name, _restorer(hint)) for name, hint in hints.items() if name not in floats]
    restored = tuple((name, restore) for name, restore in others if restore is not None)
    return frozenset(hints), floats, plain, words, restored


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The types of a text, a whole number or a yes; none for others. A journal from elsewhere may hold anything."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return allowed if set(allowed) <= {str, int, bool, types.NoneType} else ()


def _restorer(hint: Any) -> Restore | None:
    if isinstance(hint, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not types.NoneType]
        hint = others[0] if len(others) == 1 else hint
    if dataclasses.is_dataclass(hint):
        return lambda fields: _build(hint, _of(fields, (dict,)))
    if typing.get_origin(hint) is not tuple:
        return None
    kind = typing.get_args(hint)[0]
    allowed = _plain_types(kind)
    inner = _restorer(kind) or (lambda value: _of(value, allowed))
    return lambda values: tuple(inner(value) for value in _of(values, (list,)))


def _of(value: Any, allowed: tuple[type, ...]) -> Any:
    if type(value) not in allowed:
        raise TypeError(f"a {type(value).__name__} is no {allowed[0].__name__}")
    return value
