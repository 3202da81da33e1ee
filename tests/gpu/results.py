"""The file that measurements are kept in: written anew after each, so that whoever is cut off loses none."""

import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from core import paths
from core.devices.gpu import GpuReading
from tests.gpu.configurations import Configuration

NOT_BEGUN = "not begun"
_FORMAT = 1
_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


class OtherFileError(ValueError):
    """The file holds something else than what is asked of it."""


class Results:
    """Measurements by the names of their configurations. Raises OtherFileError for a file of something else."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: dict[str, Any] = {"format": _FORMAT, "machine": {}, "runs": {}}
        if file.exists():
            self._held = read_results(file)

    @property
    def done(self) -> frozenset[str]:
        """The names of what was run, whatever came of it; what could not be begun may be tried again."""
        return frozenset(name for name, run in self._held["runs"].items() if run["end"] != NOT_BEGUN)

    def describe(self, machine: dict[str, Any]) -> None:
        """Keep where it is measured. Raises OtherFileError if the file has measurements of another machine."""
        before = self._held["machine"]
        gpu = before.get("gpu") if before else machine["gpu"]
        if gpu != machine["gpu"]:
            raise OtherFileError(f"{self._file} is of {gpu}, and this is {machine['gpu']}: name another file")
        # Older figures keep the date of the first of them.
        self._held["machine"] = {**machine, "date": before.get("date", machine["date"])}
        self._write()

    def add(self, configuration: Configuration, entry: dict[str, Any]) -> None:
        """Keep a measurement."""
        self._held["runs"][configuration.name] = {"configuration": configuration.to_json(), **entry}
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        paths.write_atomically(self._file, json.dumps(self._held, indent=1))


def read_results(file: Path) -> dict[str, Any]:
    """What a file of measurements holds. Raises OtherFileError or OSError."""
    try:
        held = json.loads(file.read_bytes())
    except ValueError as error:
        raise OtherFileError(f"{file} is no JSON: {error}") from error
    if not isinstance(held, dict) or held.get("format") != _FORMAT:
        raise OtherFileError(f"{file} holds no measurements of this form")
    return held


def machine_of(reading: GpuReading, pytorch: dict[str, Any]) -> dict[str, Any]:
    """Where it is measured, in words and numbers; nothing that names the machine itself."""
    gpu = reading.gpus[0] if reading.gpus else None
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "gpu": gpu.name if gpu else "CPU",
        "gpu_bytes": gpu.total_bytes if gpu else None,
        "free_bytes": gpu.free_bytes if gpu else None,
        "compute_capability": list(gpu.compute_capability) if gpu and gpu.compute_capability else None,
        "driver": reading.driver_version,
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "versions": {**versions, **{name: value for name, value in pytorch.items() if value}},
    }
