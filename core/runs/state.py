"""What is known of a run, reduced from its journal: the one source of every screen."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, overload

from core.runs import events
from core.runs.events import Entry, Phase, TerminalEvent

Item = TypeVar("Item")
Done = TypeVar("Done", events.StepCompleted, events.EvaluationCompleted)
Status = Literal[
    "queued", "starting", "preparing", "loading", "adapting", "training", "saving", "sampling",
    "paused", "released", "finished", "stopped", "failed", "interrupted",
]  # fmt: skip


class Series(Sequence[Item], Generic[Item]):
    """An append-only sequence that shares its storage with its predecessors, so that appending costs no copy."""

    __slots__ = ("_items", "_length")

    def __init__(self, items: list[Item] | None = None, length: int | None = None) -> None:
        self._items: list[Item] = [] if items is None else items
        self._length = len(self._items) if length is None else length

    def append(self, item: Item) -> "Series[Item]":
        """A series one longer; this one stays as it is."""
        # Two successors of one series must not see each other's items: the second one to append takes a copy.
        items = self._items if len(self._items) == self._length else self._items[: self._length]
        items.append(item)
        return Series(items, self._length + 1)

    def extend(self, items: list[Item]) -> "Series[Item]":
        """A series longer by all of these; this one stays as it is."""
        if not items:
            return self
        longer = self.append(items[0])
        longer._items.extend(items[1:])
        return Series(longer._items, self._length + len(items))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        return (self._items[index] for index in range(self._length))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self._items[position] for position in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._items[index % self._length]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Series) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Series({list(self)!r})"


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What was held at one moment."""

    time: float
    use: events.MemorySampled
    step: int = 0
    """The last completed optimizer step by then."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as its journal tells it."""

    run_id: str = ""
    model: str = ""
    method: str = ""
    warm: bool = False
    queued: events.RunQueued | None = None
    """Where the run stands in the queue, while it waits for its turn."""
    started_at: float | None = None
    phase: Phase | None = None
    phase_detail: str = ""
    phase_started_at: float | None = None
    last_time: float | None = None
    last_seq: int = 0
    choices: tuple[events.ChoiceMade, ...] = ()
    data_progress: events.DataProgressed | None = None
    """How far the data is read or tokenized; None before, and once it is prepared."""
    data_step_began: float | None = None
    """When the step of the data that is at work was begun."""
    data: events.DataPrepared | None = None
    load_progress: events.LoadProgressed | None = None
    """How far the weights are loaded; None before, and in journals of versions that did not tell."""
    loaded: events.ModelLoaded | None = None
    adapted: events.ModelAdapted | None = None
    training_started_at: float | None = None
    first_step: int = 0
    max_steps: int | None = None
    epochs: float | None = None
    training: events.TrainingStarted | None = None
    """How training goes on, as it was last begun."""
    steps: Series[events.StepCompleted] = field(default_factory=Series)
    evaluations: Series[events.EvaluationCompleted] = field(default_factory=Series)
    memory: Series[MemorySample] = field(default_factory=Series)
    peak: events.PeakMeasured | None = None
    """The most that was held, since the run was last started."""
    probed: events.MemoryProbed | None = None
    checkpoints: tuple[events.CheckpointCommitted, ...] = ()
    base_samples: events.SamplesAnswered | None = None
    tuned_samples: events.SamplesAnswered | None = None
    """The last of them."""
    samples: tuple[events.SamplesAnswered, ...] = ()
    """All answers in training, the oldest first."""
    rests: tuple[events.RunPaused | events.RunContinued | events.TrainingStarted, ...] = ()
    """Where the run rested, went on, and was resumed, in order."""
    commands: tuple[events.CommandAccepted, ...] = ()
    problems: tuple[events.ProblemNoticed, ...] = ()
    troubles: Series[events.TroubleNoticed] = field(default_factory=Series)
    present_troubles: tuple[events.TroubleNoticed, ...] = ()
    """Those that are not over, the newest last."""
    paused: events.RunPaused | None = None
    """What the run rests for, while it does."""
    outcome: TerminalEvent | None = None
    gone: events.RunFailed | None = None
    """Why a runner is gone that left no outcome, where whoever reads the journal has found that out (killed.py)."""

    @property
    def step(self) -> int:
        """The last completed optimizer step; 0 before the first."""
        return self.steps[-1].step if self.steps else self.first_step

    @property
    def last(self) -> events.StepCompleted | None:
        """The last completed step's figures."""
        return self.steps[-1] if self.steps else None

    @property
    def stop_requested(self) -> bool:
        """Whether the runner has accepted a request to stop."""
        return any(accepted.command in ("stop", "stop_now", "release") for accepted in self.commands)


def reduce(state: RunState, entry: Entry) -> RunState:
    """The state after one more entry. Pure: the same entries give the same state, for every viewer."""
    return replace(state, last_time=entry.time, last_seq=entry.seq, **_changes(state, entry))


def reduce_all(state: RunState, entries: Sequence[Entry]) -> RunState:
    """The state after all of these: what `reduce` makes of one after the other, and many times as fast.

    Nearly every entry of a long journal is a step or a sample of the memory: those in between others are added at once.
    """
    steps: list[events.StepCompleted] = []
    memory: list[MemorySample] = []
    for entry in entries:
        event = entry.event
        if type(event) is events.StepCompleted:
            steps.append(event)
        elif type(event) is events.MemorySampled:
            memory.append(MemorySample(entry.time, event, steps[-1].step if steps else state.step))
        else:
            state = reduce(_extended(state, steps, memory), entry)
            steps, memory = [], []
    if not entries:
        return state
    return replace(_extended(state, steps, memory), last_time=entries[-1].time, last_seq=entries[-1].seq)


def _extended(state: RunState, steps: list[events.StepCompleted], memory: list[MemorySample]) -> RunState:
    return replace(state, steps=state.steps.extend(steps), memory=state.memory.extend(memory))


def _changes(state: RunState, entry: Entry) -> dict[str, Any]:
    """What an entry changes beside the time. The frequent ones first: a long run has a million of them."""
    event = entry.event
    match event:
        case events.StepCompleted():
            return {"steps": state.steps.append(event)}
        case events.MemorySampled():
            return {"memory": state.memory.append(MemorySample(entry.time, event, state.step))}
        case events.EvaluationCompleted():
            return {"evaluations": state.evaluations.append(event)}
        case events.RunQueued():
            # What was asked of an earlier runner is past; what was asked while this one waits is not.
            return {
                "run_id": event.run_id,
                "model": event.model,
                "method": event.method,
                "queued": event,
                "commands": state.commands if state.queued else (),
                "paused": None,
                "outcome": None,
                "gone": None,
            }
        case events.RunStarted():
            return {
                "run_id": event.run_id,
                "model": event.model,
                "method": event.method,
                "warm": event.warm,
                "queued": None,
                "started_at": entry.time if state.started_at is None else state.started_at,
                "phase": None,
                "phase_detail": "",
                "data_progress": None,
                "load_progress": None,
                "commands": (),
                "present_troubles": (),
                "peak": None,
                "probed": None,
                "paused": None,
                "outcome": None,
                "gone": None,
            }
        case events.PhaseStarted():
            return {"phase": event.phase, "phase_detail": event.detail, "phase_started_at": entry.time}
        case events.ChoiceMade():
            return {"choices": (*(one for one in state.choices if one.name != event.name), event)}
        case events.DataProgressed():
            goes_on = state.data_progress is not None and state.data_progress.step == event.step
            return {"data_progress": event, "data_step_began": state.data_step_began if goes_on else entry.time}
        case events.DataPrepared():
            return {"data": event, "data_progress": None}
        case events.LoadProgressed():
            return {"load_progress": event}
        case events.ModelLoaded():
            return {"loaded": event}
        case events.ModelAdapted():
            return {"adapted": event}
        case events.TrainingStarted():
            return {
                "training_started_at": entry.time,
                "max_steps": event.max_steps,
                "epochs": event.epochs,
                "first_step": event.first_step,
                "training": event,
                # What came after the checkpoint that is gone on from is done anew.
                "rests": (*state.rests, event) if event.first_step else (),
                "samples": tuple(one for one in state.samples if one.step <= event.first_step),
                "steps": _up_to(state.steps, event.first_step),
                "evaluations": _up_to(state.evaluations, event.first_step),
            }
        case events.PeakMeasured():
            return {"peak": event}
        case events.MemoryProbed():
            return {"probed": event}
        case events.CheckpointCommitted():
            # A step that is done anew after a resume may be saved anew too.
            others = tuple(one for one in state.checkpoints if one.path != event.path)
            return {"checkpoints": (*others, event)}
        case events.CheckpointDeleted():
            return {"checkpoints": tuple(one for one in state.checkpoints if one.path != event.path)}
        case events.RunPaused():
            return {"paused": event, "rests": (*state.rests, event)}
        case events.RunContinued():
            return {"paused": None, "rests": (*state.rests, event)}
        case events.LengthChanged():
            # TrainingStarted, which follows, tells what it comes to.
            return {}
        case events.SamplesAnswered():
            if event.who == "base":
                return {"base_samples": event}
            return {"tuned_samples": event, "samples": (*state.samples, event)}
        case events.CommandAccepted():
            return {"commands": (*state.commands, event)}
        case events.ProblemNoticed():
            return {"problems": (*state.problems, event)}
        case events.TroubleNoticed():
            still = tuple(one for one in state.present_troubles if one.kind != event.kind)
            return {"troubles": state.troubles.append(event), "present_troubles": (*still, event)}
        case events.TroubleEnded():
            return {"present_troubles": tuple(one for one in state.present_troubles if one.kind != event.kind)}
        case events.RunFinished() | events.RunStopped() | events.RunFailed():
            return {"outcome": event, "queued": None}


def _up_to(done: Series[Done], step: int) -> Series[Done]:
    return done if not done or done[-1].step <= step else Series([one for one in done if one.step <= step])


def status(state: RunState, *, alive: bool) -> Status:
    """One word for the run. The end comes from its terminal event; without one, a dead runner means interrupted."""
    match state.outcome:
        case events.RunFinished():
            return "finished"
        case events.RunStopped():
            return "released" if state.outcome.released else "stopped"
        case events.RunFailed():
            return "failed"
    if not alive:
        return "interrupted" if state.started_at is not None or state.queued else "starting"
    if state.queued:
        return "queued"
    return "paused" if state.paused else state.phase or "starting"


def seconds_per_step(state: RunState, window: int = 20) -> float | None:
    """The median duration of the last `window` steps: one slow step does not move it."""
    recent = state.steps[-window:]
    return statistics.median(step.seconds for step in recent) if recent else None
