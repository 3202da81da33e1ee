"""What the runner writes down of its machine, through the real pynvml and a scripted driver."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nvml import build_stub

ROOT = Path(__file__).parents[2]
MIB = 1024**2

# Takes one sample for each second that is named on stdin, with the settings of that second.
SAMPLER = """
import dataclasses, json, os, sys
from pathlib import Path
from core.training import sampler
now = [0.0]
sampler.time = type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
found = sampler.MemorySampler(Path("."))
for second, settings in json.load(sys.stdin):
    now[0] = second
    os.environ.update({name: value.replace("SELF", str(os.getpid())) for name, value in settings.items()})
    sample = found.sample()
    print(json.dumps(None if sample is None else dataclasses.asdict(sample)["gpus"]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("driver"))


def samples(driver: Path, *looks: tuple[float, dict[str, str]]) -> list[Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STUB_NVML")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SAMPLER],
        input=json.dumps(looks),
        env=environment | {"LD_LIBRARY_PATH": str(driver)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_the_run_holds_is_told_apart_from_the_others(driver: Path) -> None:
    settings = {
        "STUB_NVML_COUNT": "2",
        "STUB_NVML_USED_MB": "3000,500",
        "STUB_NVML_PROCESSES": "SELF:2000,1:900",
        "STUB_NVML_SLOWED": "32,0",
        "STUB_NVML_CLOCK": "1200,1980",
    }
    ((first, second),) = samples(driver, (100.0, settings))
    assert (first["own_bytes"], first["used_bytes"]) == (2000 * MIB, 3000 * MIB)
    assert (second["own_bytes"], second["used_bytes"]) == (None, 500 * MIB)
    assert (first["slowed_by"], second["slowed_by"]) == (["heat"], [])
    assert (first["clock_mhz"], first["highest_clock_mhz"], first["power_limit_watts"]) == (1200, 1980, 300.0)


def test_at_most_one_a_second_is_written_and_only_what_moved(driver: Path) -> None:
    calm = {"STUB_NVML_USED_MB": "3000"}
    moved = {"STUB_NVML_USED_MB": "4000"}
    looks = [(100.0, calm), (100.5, moved), (101.0, moved), (111.5, {})]
    assert [bool(sample) for sample in samples(driver, *looks)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({"STUB_NVML_INIT": "9"}, 0),
        ({"STUB_NVML_LOST": "0"}, 0),
        ({"STUB_NVML_UNSUPPORTED": "memory"}, 0),
        ({"STUB_NVML_MIG": "1"}, 1),
        ({"STUB_NVML_DENIED": "processes,clock,slowed,power"}, 1),
    ],
)
def test_a_driver_that_tells_little_leaves_little_in_the_journal(
    driver: Path, settings: dict[str, str], gpus: int
) -> None:
    (found,) = samples(driver, (100.0, settings))
    assert len(found) == gpus
    for gpu in found:
        assert gpu["own_bytes"] is None
        assert gpu["used_bytes"] == 1024 * MIB
