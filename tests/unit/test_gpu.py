"""What the real pynvml says through a scripted driver: GPUs, half-answers, losses, and no driver at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.devices.gpu import GpuMonitor, _command
from tests.nvml import build_stub

ROOT = Path(__file__).parents[2]
MIB = 1024**2

# Reads as often as there are settings on stdin, each laid over the environment before its reading.
READER = """
import dataclasses, json, os, sys
from core.devices import gpu
gpu._RETRY_SECONDS = 0.0
monitor = gpu.GpuMonitor()
for settings in json.load(sys.stdin):
    os.environ.update(settings)
    print(json.dumps(dataclasses.asdict(monitor.read())))
monitor.close()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("driver"))


def readings(driver: Path, *settings: dict[str, str], reader: str = READER) -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STUB_NVML")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", reader],
        input=json.dumps(settings or [{}]),
        env=environment | {"LD_LIBRARY_PATH": str(driver)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_healthy_gpu_tells_everything(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_NAME": "NVIDIA H100 80GB HBM3", "STUB_NVML_CAPABILITY": "9.0"})
    assert reading["problem"] is None
    assert reading["driver_version"] == "999.99"
    assert reading["gpus"] == [
        {
            "index": 0,
            "uuid": "GPU-00000000-0000-0000-0000-000000000000",
            "name": "NVIDIA H100 80GB HBM3",
            "total_bytes": 24576 * MIB,
            "used_bytes": 1024 * MIB,
            "free_bytes": 23552 * MIB,
            "utilization_percent": 37,
            "temperature_celsius": 55,
            "power_watts": 71.5,
            "power_limit_watts": 300.0,
            "compute_capability": [9, 0],
            "processes": [],
            "slowed_by": [],
            "memory_errors": 0,
            "errors": [],
            "clock_mhz": 1980,
            "highest_clock_mhz": 1980,
            "divided": False,
            "lost": False,
        }
    ]


def test_several_gpus_are_told_apart(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_COUNT": "3", "STUB_NVML_USED_MB": "100,200"})
    assert [gpu["used_bytes"] for gpu in reading["gpus"]] == [100 * MIB, 200 * MIB, 200 * MIB]
    assert len({gpu["uuid"] for gpu in reading["gpus"]}) == 3


@pytest.mark.parametrize("refusal", ["STUB_NVML_UNSUPPORTED", "STUB_NVML_DENIED"])
@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("memory", ["total_bytes", "used_bytes", "free_bytes"]),
        ("utilization", ["utilization_percent"]),
        ("temperature", ["temperature_celsius"]),
        ("power", ["power_watts"]),
        ("limit", ["power_limit_watts"]),
        ("capability", ["compute_capability"]),
        ("processes", ["processes"]),
        ("uuid", ["uuid"]),
        ("slowed", ["slowed_by"]),
        ("ecc", ["memory_errors"]),
        ("clock", ["clock_mhz"]),
        ("highest", ["highest_clock_mhz"]),
        ("mig", []),
    ],
)
def test_one_question_without_an_answer_costs_only_that_answer(
    driver: Path, refusal: str, word: str, fields: list[str]
) -> None:
    (reading,) = readings(driver, {refusal: word})
    (gpu,) = reading["gpus"]
    assert [field for field, value in gpu.items() if value is None] == fields
    assert gpu["lost"] is False


def test_a_gpu_without_a_name_is_called_by_its_number(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_UNSUPPORTED": "name", "STUB_NVML_COUNT": "2"})
    assert [gpu["name"] for gpu in reading["gpus"]] == ["GPU 0", "GPU 1"]


def test_a_lost_gpu_keeps_its_name_beside_the_healthy_one_and_may_come_back(driver: Path) -> None:
    before, during, after = readings(driver, {"STUB_NVML_COUNT": "2"}, {"STUB_NVML_LOST": "1"}, {"STUB_NVML_LOST": ""})
    healthy, lost = during["gpus"]
    assert healthy == before["gpus"][0]
    assert lost["lost"] is True
    assert (lost["name"], lost["uuid"]) == ("Stub GPU", before["gpus"][1]["uuid"])
    unknown = {field for field, value in lost.items() if value is None}
    assert {"total_bytes", "used_bytes", "utilization_percent", "processes"} <= unknown
    assert after == before


@pytest.mark.parametrize("old", ["0", "1"])
def test_what_holds_the_clocks_down_is_told_but_for_what_is_usual(driver: Path, old: str) -> None:
    masks = {"0": [], "5": [], "32": ["heat"], "8": ["a slowdown by the hardware"]}
    masks |= {"72": ["heat, by the hardware"], "168": ["heat", "the power supply's brake"]}
    told = readings(driver, *({"STUB_NVML_SLOWED": mask, "STUB_NVML_OLD": old} for mask in masks))
    assert [reading["gpus"][0]["slowed_by"] for reading in told] == list(masks.values())


def test_a_divided_gpu_tells_its_memory_and_not_its_load(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_MIG": "1,0", "STUB_NVML_COUNT": "2", "STUB_NVML_CLOCK": "1980,300"})
    divided, whole = reading["gpus"]
    assert (divided["divided"], divided["utilization_percent"], divided["processes"]) == (True, None, None)
    assert divided["used_bytes"] == 1024 * MIB
    assert (whole["divided"], whole["utilization_percent"], whole["processes"]) == (False, 37, [])
    assert whole["clock_mhz"] == 300


def test_memory_errors_that_were_not_corrected_are_counted(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_ECC": "0,3", "STUB_NVML_COUNT": "2"})
    assert [gpu["memory_errors"] for gpu in reading["gpus"]] == [0, 3]


def test_processes_come_with_memory_user_and_program(driver: Path) -> None:
    own = os.getpid()
    gone = 2**22 + 1
    (reading,) = readings(
        driver,
        {
            "STUB_NVML_PROCESSES": f"{gone}:?,{own}:512",
            "STUB_NVML_GRAPHICS": f"{own}:512",
            "STUB_NVML_COUNT": "2",
        },
    )
    first, second = reading["gpus"]
    mine, other = first["processes"]
    assert (mine["pid"], mine["used_bytes"]) == (own, 512 * MIB)
    assert mine["user"]
    assert mine["command"]
    assert other == {"pid": gone, "used_bytes": None, "user": None, "command": None}
    assert second["processes"] == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("9", "not loaded"),
        ("4", "no permission"),
        ("18", "was updated since the machine started"),
        ("999", "NVML error 999"),
    ],
)
def test_a_driver_that_does_not_start_says_why(driver: Path, status: str, words: str) -> None:
    (reading,) = readings(driver, {"STUB_NVML_INIT": status})
    assert reading["gpus"] == []
    assert words in reading["problem"]


def test_a_driver_that_starts_later_or_goes_away_is_noticed(driver: Path) -> None:
    absent, there, gone, back = readings(
        driver,
        {"STUB_NVML_INIT": "9"},
        {"STUB_NVML_INIT": "0"},
        {"STUB_NVML_DEAD": "9"},
        {"STUB_NVML_DEAD": "0"},
    )
    assert [len(reading["gpus"]) for reading in (absent, there, gone, back)] == [0, 1, 0, 1]
    assert "stopped answering" in gone["problem"]


def test_a_driver_without_gpus_says_so(driver: Path) -> None:
    (reading,) = readings(driver, {"STUB_NVML_COUNT": "0"})
    assert (reading["gpus"], reading["driver_version"]) == ([], "999.99")
    assert "no GPU" in reading["problem"]


def test_a_running_program_sees_the_file_of_the_stub_change(driver: Path, tmp_path: Path) -> None:
    settings = tmp_path / "stub"
    settings.write_text("STUB_NVML_USED_MB=2048\nSTUB_NVML_UTIL=99\n")
    (reading,) = readings(driver, {"STUB_NVML_FILE": str(settings), "STUB_NVML_UTIL": "1"})
    (gpu,) = reading["gpus"]
    assert (gpu["used_bytes"], gpu["utilization_percent"]) == (2048 * MIB, 99)


def test_no_library_is_a_sentence_and_not_a_crash(tmp_path: Path) -> None:
    # An empty file by that name hides a real driver, where the machine has one.
    (tmp_path / "libnvidia-ml.so.1").touch()
    first, second = readings(tmp_path, {}, {})
    assert (
        first
        == second
        == {
            "gpus": [],
            "driver_version": None,
            "problem": "no NVIDIA driver: libnvidia-ml.so.1 was not found",
        }
    )


def test_a_missing_package_is_a_sentence_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    reading = GpuMonitor().read()
    assert reading.gpus == ()
    assert reading.problem is not None
    assert "nvidia-ml-py" in reading.problem


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/usr/bin/python3.11", "-u", "/home/ml/train.py", "--token", "hf_secret"], "python3.11 train.py"),
        (["python", "-m", "vllm.entrypoints", "--api-key", "secret"], "python -m vllm.entrypoints"),
        (["python", "-c", "secret = 1"], "python -c"),
        (["/opt/bin/trtllm", "--key", "secret"], "trtllm"),
        (["/usr/bin/shards", "secret"], "shards"),
        (["python3", "-i"], "python3"),
        ([], ""),
    ],
)
def test_a_command_is_named_without_its_arguments(arguments: list[str], shown: str) -> None:
    assert _command(arguments) == shown


def test_errors_of_the_driver_are_told_once_to_whoever_watches_for_them(driver: Path) -> None:
    watching = READER.replace("GpuMonitor()", "GpuMonitor(watches_errors=True)")
    settings = [
        {"STUB_NVML_COUNT": "2"},
        {"STUB_NVML_XID": "1:13"},
        {"STUB_NVML_XID": "1:13,0:48,0:63,0:48,7:9"},
        {"STUB_NVML_LOST": "0", "STUB_NVML_XID": "1:13,0:48,0:63,0:48,7:9,0:79"},
        {},
    ]
    found = [[gpu["errors"] for gpu in one["gpus"]] for one in readings(driver, *settings, reader=watching)]
    assert found == [[[], []], [[], [13]], [[48, 63], []], [[79], []], [[], []]]
    assert [gpu["errors"] for gpu in readings(driver, *settings)[2]["gpus"]] == [[], []]


def test_a_driver_that_tells_of_no_errors_tells_all_the_rest(driver: Path) -> None:
    watching = READER.replace("GpuMonitor()", "GpuMonitor(watches_errors=True)")
    settings = {"STUB_NVML_UNSUPPORTED": "events", "STUB_NVML_XID": "0:79"}
    (reading,) = readings(driver, settings, reader=watching)
    assert (reading["problem"], reading["gpus"][0]["errors"]) == (None, [])
    assert reading["gpus"][0]["free_bytes"] == 23552 * MIB
