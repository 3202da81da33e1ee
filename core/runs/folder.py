"""A run is a folder: where its files are, whether its runner lives, and which runs there are."""

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core import paths
from core.errors import SftuiError
from core.runs.events import PeakMeasured, RunFailed
from core.runs.journal import JournalReader
from core.runs.state import RunState, Status, reduce_all, status

if TYPE_CHECKING:
    from core.spec.run_spec import RunSpec


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def spec_file(self) -> Path:
        """run.yaml, as the run was started."""
        return self.path / "run.yaml"

    @property
    def plan_file(self) -> Path:
        """What was predicted."""
        return self.path / "plan.json"

    @property
    def journal_file(self) -> Path:
        """The events."""
        return self.path / "events.jsonl"

    @property
    def commands_file(self) -> Path:
        """What viewers ask of the runner."""
        return self.path / "commands.jsonl"

    @property
    def notes_file(self) -> Path:
        """What people wrote to the run."""
        return self.path / "notes.jsonl"

    @property
    def tags_file(self) -> Path:
        """The words by which people find it."""
        return self.path / "tags.json"

    @property
    def lock_file(self) -> Path:
        """Held by the runner as long as it lives."""
        return self.path / "runner.lock"

    @property
    def reserve_file(self) -> Path:
        """Room that the journal gives up when the disk is full."""
        return self.path / ".reserve"

    @property
    def log_file(self) -> Path:
        """What the libraries print."""
        return self.path / "runner.log"

    @property
    def environment_file(self) -> Path:
        """Versions, device and host of the run."""
        return self.path / "environment.json"

    @property
    def traceback_file(self) -> Path:
        """Written when the run fails."""
        return self.path / "traceback.txt"

    @property
    def checkpoints(self) -> Path:
        """checkpoint-N folders."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The result of LoRA and QLoRA."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The result of full fine-tuning."""
        return self.path / "model"

    def is_alive(self) -> bool:
        """Whether a runner holds the lock."""
        try:
            with self.lock_file.open("rb") as file:
                try:
                    # A shared lock is free to all viewers at once, and refused only by the runner's exclusive one.
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                return False
        except FileNotFoundError:
            return False

    def refuse_links(self) -> None:
        """Raise SftuiError if anything in it is a link: in a folder from elsewhere, one leads to files of the user."""
        links = sorted(entry.name for entry in os.scandir(self.path) if entry.is_symlink())
        if links:
            raise SftuiError(
                "The run's folder has links",
                f"{self.path / links[0]} leads to another place, where the run would write.",
                "Put what it leads to in its place. To keep runs elsewhere, set XDG_DATA_HOME.",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock. Raises SftuiError if another runner has it."""
        with _take_lock(self):
            yield

    def spec_values(self) -> dict[str, Any]:
        """run.yaml as loose values."""
        from core.spec.yaml_file import read_values

        return read_values(self.spec_file)

    def read_state(self) -> RunState:
        """The journal reduced, from its beginning."""
        return reduce_all(RunState(), JournalReader(self.journal_file).read_new())


def _take_lock(folder: RunFolder) -> IO[bytes]:
    folder.refuse_links()
    file = folder.lock_file.open("ab")
    # A viewer asking whether the runner lives holds a shared lock for microseconds: try again before giving up.
    for _ in range(50):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.01)
    file.close()
    raise SftuiError("The run is already running", f"Another runner holds {folder.lock_file}.")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in one line."""

    id: str
    path: Path
    state: Status
    step: int
    max_steps: int | None
    loss: float | None
    model: str
    method: str
    started: float | None
    seconds: float | None
    """From the start to the end, or to the last event."""
    failure: str | None = None
    place: int | None = None
    """1 for the next one in the queue, while the run waits there."""
    peak: PeakMeasured | None = None
    """The most that it held, with what was predicted."""
    held_out: float | None = None
    """The last loss over the held-out rows."""
    data: str = ""
    """Its datasets, by their names."""
    tags: tuple[str, ...] = ()
    notes: int = 0
    """How many were written."""


def summarize(folder: RunFolder) -> RunSummary:
    """One line on a run, from its whole journal."""
    return summary_of(folder, folder.read_state(), alive=folder.is_alive())


def summary_of(folder: RunFolder, state: RunState, *, alive: bool) -> RunSummary:
    """One line on a run whose state is known already."""
    ended = state.outcome.seconds if state.outcome else None
    shown = state.last_time - state.started_at if state.last_time and state.started_at else None
    current = status(state, alive=alive)
    return RunSummary(
        id=folder.id,
        path=folder.path,
        state=current,
        step=state.step,
        max_steps=state.max_steps,
        loss=state.last.loss if state.last else None,
        model=state.model,
        method=state.method,
        started=state.started_at,
        seconds=ended if ended is not None else shown,
        failure=state.outcome.title if isinstance(state.outcome, RunFailed) else None,
        place=state.queued.place if state.queued and current == "queued" else None,
        peak=state.peak,
        held_out=state.evaluations[-1].loss if state.evaluations else None,
    )


def create_run(spec: "RunSpec", plan_json: Mapping[str, Any] | None = None) -> RunFolder:
    """A new run's folder, with its spec (paths made absolute) and plan. Nothing is started.

    Raises SftuiError where nothing can be written.
    """
    spec = _with_absolute_paths(spec)
    try:
        return _create(spec, plan_json)
    except OSError as error:
        raise SftuiError(
            "The run's folder cannot be made",
            f"{error.filename or paths.runs_home()}: {error.strerror}.",
            "Free some space, or set XDG_DATA_HOME to a place where you can write.",
        ) from error


def _create(spec: "RunSpec", plan_json: Mapping[str, Any] | None) -> RunFolder:
    from core.spec.yaml_file import to_yaml

    home = paths.runs_home()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    label = spec.sftui.name or Path(spec.model_name_or_path).name
    words = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")[:40] or "run"
    while True:
        letters = "".join(secrets.choice("abcdefghjkmnpqrstuvwxyz") for _ in range(4))
        folder = RunFolder(home / f"{time.strftime('%Y%m%d')}-{words}-{letters}")
        try:
            folder.path.mkdir(mode=0o700)
            break
        except FileExistsError:
            continue
    if plan_json is not None:
        paths.write_atomically(folder.plan_file, json.dumps(plan_json, indent=2))
    paths.write_atomically(folder.spec_file, to_yaml(spec))
    return folder


def all_runs() -> tuple[RunFolder, ...]:
    """Every run, the newest first."""
    try:
        entries = [entry.path for entry in os.scandir(paths.runs_home())]
    except FileNotFoundError:
        return ()
    found: list[tuple[float, str]] = []
    for path in entries:
        with suppress(OSError):
            found.append((os.stat(f"{path}/run.yaml").st_mtime, path))  # noqa: PTH116
    return tuple(RunFolder(Path(path)) for _, path in sorted(found, reverse=True))


def find_run(name: str) -> RunFolder:
    """The run with this id, the only one whose id contains it, or the one at this path. Raises SftuiError."""
    if (Path(name) / "run.yaml").exists():
        return RunFolder(Path(name).resolve())
    runs = all_runs()
    exact = [run for run in runs if run.id == name]
    matching = exact or [run for run in runs if name and name in run.id]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise SftuiError("Which run?", f"{name!r} is part of {len(matching)}: {', '.join(r.id for r in matching[:8])}.")
    raise SftuiError("No such run", f"No run's id has {name!r} in it.", "`sftui runs` lists them.")


def _with_absolute_paths(spec: "RunSpec") -> "RunSpec":
    def absolute(name: str) -> str:
        path = paths.expand(name)
        if path.exists():
            return str(path.resolve())
        return str(path.absolute()) if any(paths.matching(path)) else name

    def files(named: Any) -> Any:
        if isinstance(named, dict):
            return {split: files(inner) for split, inner in named.items()}
        return absolute(named) if isinstance(named, str) else [absolute(name) for name in named]

    def source(entry: Any) -> Any:
        # A source with files beside its path may name a reader there, such as json.
        if entry.data_files is None:
            return entry.model_copy(update={"path": absolute(entry.path)})
        return entry.model_copy(update={"data_files": files(entry.data_files)})

    held_out, template = spec.sftui.held_out_file, spec.chat_template_path
    return spec.model_copy(
        update={
            "chat_template_path": absolute(template) if template else None,
            "model_name_or_path": absolute(spec.model_name_or_path),
            "datasets": [source(entry) for entry in spec.datasets],
            "sftui": spec.sftui.model_copy(update={"held_out_file": absolute(held_out) if held_out else None}),
        }
    )
