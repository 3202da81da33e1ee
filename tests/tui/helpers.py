"""Runs that exist only as files, and ways to see what the app shows."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from core.paths import runs_home
from core.runs import events
from core.runs.events import Entry, Event, encode
from core.runs.folder import RunFolder

BEGAN = time.time() - 200


def begin(run_id: str, max_steps: int = 100) -> list[Event]:
    """What every run writes before its first step."""
    return [
        events.RunStarted(run_id, "/models/small-model", "qlora", 4242, "0.1.0", warm=True),
        events.PhaseStarted("preparing", "reading 480 rows"),
        events.DataPrepared("messages", 480, 48),
        events.PhaseStarted("loading", "LlamaForCausalLM"),
        events.ChoiceMade("dtype", "bfloat16", "the checkpoint's own type"),
        events.ModelLoaded("AutoModelForCausalLM", "llama", 2_000_000, 1_340_000, "bfloat16", "cpu", "sdpa"),
        events.PhaseStarted("adapting"),
        events.ModelAdapted(233_500, 2_200_000, ("q_proj", "v_proj")),
        events.PhaseStarted("training"),
        events.TrainingStarted(max_steps, 4.0),
    ]


def step(number: int, loss: float = 2.0, **changes: Any) -> events.StepCompleted:
    """One step."""
    fields: dict[str, Any] = {
        "epoch": number / 25,
        "learning_rate": 2e-4,
        "grad_norm": 0.8,
        "tokens_seen": number * 1000,
        "tokens_per_second": 1234.0,
        "seconds": 0.5,
    }
    return events.StepCompleted(number, loss=loss, **{**fields, **changes})


def steps(first: int, last: int) -> list[Event]:
    """Steps whose loss falls by 0.01 each."""
    return [step(number, 3.0 - number / 100) for number in range(first, last + 1)]


def write_run(name: str, happened: Sequence[Event], began: float = BEGAN) -> RunFolder:
    """A run's folder with its journal, an event a second; nothing runs in it."""
    path = runs_home() / name
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.spec_file.write_text("model_name_or_path: /models/small-model\n")
    folder.lock_file.touch()
    add(folder, happened, began)
    return folder


def add(folder: RunFolder, happened: Sequence[Event], began: float = BEGAN) -> None:
    """More events at the end of the journal, as a runner writes them."""
    known = folder.journal_file.read_text().count("\n") if folder.journal_file.exists() else 0
    with folder.journal_file.open("a") as file:
        for seq, event in enumerate(happened, start=known + 1):
            file.write(encode(Entry(seq, began + seq, event)) + "\n")


@contextmanager
def alive(folder: RunFolder) -> Iterator[None]:
    """Hold the lock as a runner does."""
    with folder.lock_file.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails with what is on the screen."""
    for _ in range(2400):
        if condition():
            return
        await pilot.pause(0.025)
    raise AssertionError(f"waited in vain; the screen shows:\n{shown(pilot.app)}")


async def until_shown(pilot: Pilot[Any], *texts: str) -> None:
    """Wait until all these texts are on the screen."""
    await until(pilot, lambda: all(text in shown(pilot.app) for text in texts))


def shown(app: App[Any]) -> str:
    """The screen as text, as a terminal shows it."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def home_in(monkeypatch: Any, folder: Path) -> None:
    """Keep everything the app reads and writes in a folder of the test."""
    for name in ("DATA", "STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
