"""What screens and background threads tell the app; every message that crosses a module is here."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from core.data.facts import DataFacts, Progress
    from core.devices.gpu import GpuReading
    from core.devices.host import HostSnapshot
    from core.errors import SftuiError
    from core.memory.plan import ModelFacts, Plan
    from core.runs.folder import RunFolder, RunSummary
    from core.runs.notes import Note
    from core.runs.state import RunState
    from core.spec.run_spec import RunSpec
    from tui_app.downloads import DownloadState
    from tui_app.token_passes import TokenState


class Removed(enum.Enum):
    """The type of REMOVED."""

    REMOVED = "removed"


REMOVED: Final = Removed.REMOVED
"""As the value of an option in DraftChanged: the option is no longer set and falls back to its default."""


class DraftChanged(Message):
    """The user set or unset options; dotted names for those under `sftui`."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        super().__init__()
        self.changes = dict(changes)


class ModelRead(Message):
    """The app has read the model that the draft names (`key` is Draft.model_key at that time), or could not."""

    def __init__(self, key: object, model: ModelFacts | None, problem: SftuiError | None = None) -> None:
        super().__init__()
        self.key = key
        self.model = model
        self.problem = problem


class ModelBuilt(Message):
    """What was read of a model (`before`) is known more exactly now (`after`)."""

    def __init__(self, before: ModelFacts, after: ModelFacts) -> None:
        super().__init__()
        self.before = before
        self.after = after


class DataRead(Message):
    """The app has read the files that the draft names (`key` is Draft.data_key at that time), or could not."""

    def __init__(self, key: object, data: DataFacts | None, problem: SftuiError | None = None) -> None:
        super().__init__()
        self.key = key
        self.data = data
        self.problem = problem


class DataMoved(Message):
    """The pass over the rows is further; `key` is Draft.data_key."""

    def __init__(self, key: object, progress: Progress) -> None:
        super().__init__()
        self.key = key
        self.progress = progress

    def can_replace(self, message: Message) -> bool:
        """Only the latest progress matters."""
        return isinstance(message, DataMoved)


class TokensCounted(Message):
    """More rows are counted in tokens, or why none are."""

    def __init__(self, state: TokenState) -> None:
        super().__init__()
        self.state = state

    def can_replace(self, message: Message) -> bool:
        """A later state holds all of an earlier one."""
        return isinstance(message, TokensCounted)


class ModelChanged(Message):
    """What lies under a model's name on this machine has changed: it was downloaded, or its code was allowed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class DownloadMoved(Message):
    """The download is further, or has ended."""

    def __init__(self, state: DownloadState) -> None:
        super().__init__()
        self.state = state

    def can_replace(self, message: Message) -> bool:
        """A later state holds all of an earlier one."""
        return isinstance(message, DownloadMoved) and message.state.model_id == self.state.model_id


class StartRequested(Message):
    """The user wants this run to start."""

    def __init__(self, spec: RunSpec, plan: Plan | None = None, *, queue: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.plan = plan
        self.queue = queue
        """Whether it waits until its device is free."""


class StepRequested(Message):
    """Go to a step of the set-up, by its name: model, data, precision, training or review."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step


class HomeRequested(Message):
    """Go to the list of runs."""


class StarterRequested(Message):
    """The user wants to try the built-in model."""


class MonitorRequested(Message):
    """The user wants to watch this run."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder


class CloneRequested(Message):
    """The user wants to set up a run with the settings of the one in this folder."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


class ComparisonRequested(Message):
    """The user wants to see these runs beside each other."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        super().__init__()
        self.paths = paths


class ResultWanted(Message):
    """The user wants to use what a run has made: ask it, or export it."""

    def __init__(self, folder: RunFolder, use: Literal["ask", "export"]) -> None:
        super().__init__()
        self.folder = folder
        self.use = use


class ErrorRaised(Message):
    """Something went wrong that the user should read; shown in the error dialog."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class MachineRead(Message):
    """GPUs and host were read; at most once a second."""

    def __init__(self, gpus: GpuReading, host: HostSnapshot) -> None:
        super().__init__()
        self.gpus = gpus
        self.host = host

    def can_replace(self, message: Message) -> bool:
        """Only the latest reading matters."""
        return isinstance(message, MachineRead)


class RunUpdated(Message):
    """A followed run has something new: its state and whether its runner is alive."""

    def __init__(self, folder: RunFolder, state: RunState, *, alive: bool, notes: tuple[Note, ...] = ()) -> None:
        super().__init__()
        self.folder = folder
        self.state = state
        self.alive = alive
        self.notes = notes

    def can_replace(self, message: Message) -> bool:
        """A later state holds all of an earlier one."""
        return isinstance(message, RunUpdated) and message.folder.path == self.folder.path


class AttentionWanted(Message):
    """A run has ended, or rests until somebody comes; `words` say which and why."""

    def __init__(self, run: tuple[str, str, int], words: str) -> None:
        super().__init__()
        self.run = run
        """Its id, state and step: the same from whoever noticed it."""
        self.words = words


class RunsListed(Message):
    """The runs there are, newest first."""

    def __init__(self, runs: tuple[RunSummary, ...]) -> None:
        super().__init__()
        self.runs = runs

    def can_replace(self, message: Message) -> bool:
        """Only the latest list matters."""
        return isinstance(message, RunsListed)


class LogRead(Message):
    """New lines of a run's log, oldest first."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__()
        self.lines = lines
