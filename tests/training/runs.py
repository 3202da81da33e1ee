"""Runs on tiny models for the tests of this folder."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.runs import events
from core.runs.events import Event
from core.runs.folder import RunFolder, create_run
from core.runs.journal import JournalReader
from core.runs.state import RunState
from core.spec.build import build_spec

PATIENCE_SECONDS = 180.0


def make_run(model: Path, data: Path, **changes: Any) -> RunFolder:
    """A run's folder for a few steps of LoRA on the CPU; `changes` are options under TRL's names."""
    values: dict[str, Any] = {
        "model_name_or_path": str(model),
        "datasets": [{"path": "json", "data_files": str(data)}],
        "use_peft": True,
        "lora_r": 4,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "max_steps": 3,
        "max_length": 96,
        "activation_checkpointing": False,
        "save_strategy": "no",
        "sftui": {"device": "cpu", "name": "tiny"},
    }
    return create_run(build_spec({**values, **changes}))


def events_of(folder: RunFolder) -> list[Event]:
    """Everything in the run's journal."""
    return [entry.event for entry in JournalReader(folder.journal_file).read_new()]


def terminal_events(folder: RunFolder) -> list[events.TerminalEvent]:
    """The ends of a run, of which there must be one."""
    return [event for event in events_of(folder) if isinstance(event, events.TERMINAL)]


def wait_for(folder: RunFolder, condition: Callable[[RunState], bool]) -> RunState:
    """Wait until the run's state is as wanted; fails with the run's log when it takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        state = folder.read_state()
        if condition(state):
            return state
        if state.outcome is not None and not folder.is_alive():
            break
        time.sleep(0.05)
    log = folder.log_file.read_text() if folder.log_file.exists() else "no log"
    raise AssertionError(f"waited in vain; the run's state is {folder.read_state()}\n{log}")


def wait_for_end(folder: RunFolder) -> RunState:
    """Wait until the run has ended and its process, which tidies up after its last word, has let go of the folder."""
    wait_for(folder, lambda state: state.outcome is not None)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while folder.is_alive():
        assert time.monotonic() < deadline, "the run has ended, and its process has not"
        time.sleep(0.05)
    return folder.read_state()


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
