"""What runs on a GPU really held beside what was predicted, and how much the next prediction is to be corrected."""

import contextlib
import fcntl
import functools
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from core import paths

# Enough to know a GPU by, few enough to forget what an older plan got wrong.
_USED = 50
_KEPT = 400
_LARGEST_FILE_BYTES = 256 << 10
# With fewer runs one that was out of the ordinary would make the next plan promise too much.
_SURE = 3
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "sftui")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well runs on one GPU model were predicted."""

    runs: int
    mean_error: float
    """Of what was told before them, as a share of what they held; 0.018 is 1.8 %."""
    extra_bytes: int
    """What the parts of a plan leave out, or if negative count too much: the median over the runs."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run: where, what was predicted, what it held at most."""

    device: str
    driver: str
    versions: str
    predicted_bytes: int
    """As it was told, the correction of that time included."""
    correction_bytes: int
    measured_bytes: int

    @property
    def residual_bytes(self) -> int:
        """What was held beyond the uncorrected prediction."""
        return self.measured_bytes - (self.predicted_bytes - self.correction_bytes)

    @property
    def error(self) -> float:
        """By how much it was wrong, as a share."""
        return abs(self.measured_bytes - self.predicted_bytes) / self.measured_bytes


@functools.cache
def versions_here() -> str:
    """The libraries that decide what a run holds, with their versions."""
    found = []
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)


def calibration_for(device: str, driver: str | None, versions: str) -> Calibration | None:
    """Return what is known of a GPU model; None if no run ended on one.

    Runs with this driver and these libraries count; where there is none yet, all on this model.
    """
    file = _file()
    try:
        state = file.stat()
    except OSError:
        return None
    on_device = [one for one in _read(file, (state.st_mtime_ns, state.st_size)) if one.device == device]
    used = [one for one in on_device if (one.driver, one.versions) == (driver or "", versions)] or on_device
    used = used[-_USED:]
    if not used:
        return None
    extra = round(statistics.median(one.residual_bytes for one in used))
    if len(used) < _SURE:
        extra = max(0, extra)
    return Calibration(len(used), statistics.fmean(one.error for one in used), extra)


def record(entry: Record) -> None:
    """Keep what a run has shown. Several runs may end at once. Raises OSError."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = (json.dumps({"time": round(time.time()), **asdict(entry)}) + "\n").encode()
    with _locked(file.with_suffix(".lock")):
        with paths.open_log(file) as log:
            # What a dying runner left torn must not swallow this line too.
            log.write(line if paths.ends_with_newline(file) else b"\n" + line)
        if file.stat().st_size > _LARGEST_FILE_BYTES:
            kept = file.read_bytes().splitlines(keepends=True)[-_KEPT:]
            paths.write_atomically(file, b"".join(kept))


def _file() -> Path:
    return paths.state_home() / "calibration.jsonl"


@functools.lru_cache(maxsize=1)
def _read(file: Path, _state: tuple[int, int]) -> list[Record]:
    """The records, the newest last; torn lines and nonsense are passed over. Read again only in another state."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return []
    return [entry for line in lines if (entry := _record_of(line)) is not None]


def _record_of(line: bytes) -> Record | None:
    try:
        fields: Any = json.loads(line)
        device, driver, versions = texts = [fields[name] for name in ("device", "driver", "versions")]
        numbers = [fields[name] for name in ("predicted_bytes", "correction_bytes", "measured_bytes")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        return None
    predicted, correction, measured = numbers
    if predicted <= 0 or measured <= 0 or max(predicted, measured, abs(correction)) > 1 << 50:
        return None
    return Record(device, driver, versions, predicted, correction, measured)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
