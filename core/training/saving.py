"""Saving checkpoints so that a full or faulty disk costs time, and nothing that is saved already."""

import errno
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from core.runs import events
from core.runs.checkpoints import (
    commit,
    committed_checkpoints,
    is_committed,
    place_of,
    rotate,
    size_of_last,
    staging,
    step_of,
    sweep,
)
from core.runs.events import Event
from core.runs.folder import RunFolder
from core.text import human_bytes
from core.training.control import RunControl

# What a disk says that may be mended while the run waits.
_TROUBLE = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EIO: "The disk is faulty",
    errno.EACCES: "The run's folder may not be written",
    errno.EPERM: "The run's folder may not be written",
    errno.EROFS: "The disk can only be read",
    errno.ESTALE: "The network disk lost the folder",
}
# safetensors and torch pass the system's word on in texts of their own.
_FULL_TEXTS = ("No space left on device", "os error 28", "PytorchStreamWriter failed writing")
_MARGIN_BYTES = 4 << 20
_FIRST_WAIT_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 60.0


class CheckpointSaver:
    """Writes checkpoints beside, commits them, and deletes the oldest.

    While the disk does not take one, the run pauses: it tells the path and what is missing, and goes on by itself when
    there is room, or when it is told to.
    """

    def __init__(
        self, folder: RunFolder, keep: int | None, emit: Callable[[Event], object], control: RunControl
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._emit = emit
        self._control = control
        sweep(folder)

    @property
    def beside(self) -> Path:
        """Where a checkpoint is written to, under its own name."""
        return staging(self._folder)

    def save(self, step: int, held_out_losses: Mapping[int, float], write: Callable[[], object]) -> bool:
        """Save the checkpoint of a step: `write` puts it into `beside`. False if a stop ended the wait for a disk.

        `held_out_losses` (by step) say which checkpoint is the best: it is kept besides the newest. Raises what `write`
        raises, but for what disks say.
        """
        began = time.monotonic()
        place = self.place(step)
        size = 0

        def attempt() -> None:
            nonlocal size
            self.beside.mkdir(parents=True, exist_ok=True)
            write()
            size = commit(self.beside / place.name, place)

        if not self.until_taken(step, place, attempt, size_of_last(self._folder) or 0):
            return False
        path = f"{place.parent.name}/{place.name}"
        self._emit(events.CheckpointCommitted(step, path, size, time.monotonic() - began))
        for gone in rotate(self._folder, self._keep, self._best(held_out_losses)):
            self._emit(events.CheckpointDeleted(f"{gone.parent.name}/{gone.name}"))
        sweep(self._folder)
        return True

    def until_taken(self, step: int, place: Path, attempt: Callable[[], object], size: int = 0) -> bool:
        """Try to write `size` bytes (0: nobody knows) to a place until the disk takes them. False if a stop ended it.

        Raises what `attempt` raises, but for what disks say.
        """
        began = time.monotonic()
        wait, told = _FIRST_WAIT_SECONDS, False
        while True:
            lacking = trouble = self._lacking(size)
            if trouble is None:
                try:
                    attempt()
                    break
                except Exception as error:
                    trouble = _said_by_disk(error)
                    if trouble is None:
                        raise
            sweep(self._folder)
            if not told:
                wanted = f" It takes about {human_bytes(size)}." if size else ""
                message = f"{place} is not saved yet.{wanted} What was saved before is whole."
                self._emit(events.RunPaused(step, trouble, message))
                told = True
            # Only room can be asked for without writing; everything else is tried again when the wait is over.
            if not self._control.wait_for(partial(self._has_room, size) if lacking else _never, wait):
                return False
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        if told:
            self._emit(events.RunContinued(step, time.monotonic() - began))
        return True

    def place(self, step: int) -> Path:
        """Where the checkpoint of a step stands once it is whole."""
        return place_of(self._folder, step)

    def wants(self, step: int) -> bool:
        """Whether the weights of this step are to be kept, and are not yet."""
        return self._control.may_save and not self.has(step)

    def refuse(self, step: int) -> None:
        """Tell that a step is not saved, because its weights are worth nothing."""
        message = "Its weights are not finite: numbers in them are infinite or none. What was saved before is whole."
        self._emit(events.ProblemNoticed(f"No checkpoint of step {step:,}", message))

    def has(self, step: int) -> bool:
        """Whether there is a whole checkpoint of this step."""
        return is_committed(place_of(self._folder, step))

    def _best(self, held_out_losses: Mapping[int, float]) -> int | None:
        saved = [step for path in committed_checkpoints(self._folder) if (step := step_of(path)) in held_out_losses]
        return min(saved, key=lambda step: held_out_losses[step], default=None)

    def _has_room(self, size: int) -> bool:
        return self._lacking(size) is None

    def _lacking(self, size: int) -> str | None:
        needed = size + _MARGIN_BYTES
        free = shutil.disk_usage(self._folder.path).free
        if free >= needed:
            return None
        return f"{_TROUBLE[errno.ENOSPC]}: {human_bytes(needed)} are needed and {human_bytes(free)} are free"


def _never() -> bool:
    return False


def _said_by_disk(error: Exception) -> str | None:
    number = getattr(error, "errno", None)
    if number in _TROUBLE:
        return _TROUBLE[number]
    return _TROUBLE[errno.ENOSPC] if any(text in str(error) for text in _FULL_TEXTS) else None
