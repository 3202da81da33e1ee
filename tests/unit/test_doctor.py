"""`sftui doctor`: what it says of machines that are well, and of those that are not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from core import doctor, logout
from core.cli import main
from core.devices.gpu import GpuReading
from core.doctor import Finding, logout_finding, satisfies, terminal_findings, torch_cuda
from core.logout import Logout, read_logout
from tests.nvml import build_stub
from tests.unit.test_choose_device import gpu, reading

NONE = GpuReading((), None, "no NVIDIA driver")


def named(findings: Iterable[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_machine_that_is_well_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("✓ ok") and " torch " in line for line in lines)
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"]
    names = [finding["name"] for finding in told["findings"]]
    assert {"system", "textual", "trl", "CUDA of torch", "runs", "open files", "runs after logout"} <= set(names)


def test_what_is_not_installed_is_missing_and_what_is_too_old_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["trl<1.17,>=1.16", "no-such-package>=2", "pytest<1", "hypothesis; extra == 'test'"]
    monkeypatch.setattr("core.doctor.metadata.requires", lambda name: wanted)
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "✗ missing  no-such-package" in told
    assert "→ pip install 'no-such-package>=2'" in told
    assert "while sftui is made for <1" in told
    assert "hypothesis" not in told


def test_a_source_tree_that_nobody_installed_is_told_of_and_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_there(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_there)
    monkeypatch.setattr(metadata, "version", not_there)
    assert main(["doctor"]) == 0
    assert "runs from its source, and is not installed" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == "sftui not installed\n"


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("1.16.0", "<1.17,>=1.16", True),
        ("1.17.0", "<1.17,>=1.16", False),
        ("2.13.0+cpu", ">=2.6", True),
        ("8.2.8", "==8.2.8", True),
        ("2.9", ">=2.10", False),
        ("3", ">=3.0", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, bounds: str, holds: bool) -> None:
    assert satisfies(version, bounds) is holds


def test_a_login_is_noticed_and_its_token_never_told(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert named(doctor.examine(os.environ), "Hugging Face login").found.startswith("not logged in")
    token = "hf_" + "canary" * 5
    file = own_home / "huggingface" / "token"
    file.parent.mkdir(parents=True)
    file.write_text(token)
    assert named(doctor.examine(os.environ), "Hugging Face login").found == "logged in"
    file.unlink()
    found = named(doctor.examine({"HF_TOKEN": token}), "Hugging Face login")
    assert found.found == "by a token in the environment"
    assert main(["doctor", "--json"]) == 0
    assert "canary" not in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("core.doctor.os.access", lambda place, mode: False)
    found = named(doctor.examine({}), "runs")
    assert found.level == "missing"
    assert "XDG_DATA_HOME" in found.advice


def test_gpus_and_a_torch_that_cannot_use_them_are_told(tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "LD_LIBRARY_PATH": str(build_stub(tmp_path)),
        "STUB_NVML_COUNT": "2",
        "STUB_NVML_LOST": "1",
    }
    command = [sys.executable, "-m", "core.cli", "doctor", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert told["driver"]["found"] == "NVIDIA 999.99"
    assert told["GPU 0"]["found"] == "Stub GPU, 24.7 GB of 25.8 GB free, capability 8.9"
    assert told["GPU 1"]["level"] == "warning"
    assert (told["CUDA of torch"]["level"] == "ok") is (torch_cuda() is not None)


def test_the_cuda_of_torch_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(doctor, "_folder_of", lambda name: package)
    for line, version in (("cuda: Optional[str] = '12.8'", "12.8"), ("cuda = None", None), ("cuda = '13.0'", "13.0")):
        (package / "version.py").write_text(f"from typing import Optional\n{line}\n")
        assert torch_cuda() == version
    (package / "version.py").unlink()
    assert torch_cuda() is None


def test_bitsandbytes_needs_a_binary_for_the_cuda_of_torch(tmp_path: Path) -> None:
    for name in ("cpu", "cuda128", "cuda121"):
        (tmp_path / f"libbitsandbytes_{name}.so").touch()
    with_gpu = reading(gpu(0))
    assert doctor._quantization(with_gpu, "12.8", tmp_path).found == "libbitsandbytes_cuda128.so"
    assert doctor._quantization(with_gpu, "12.9", tmp_path).level == "ok", "it takes that of another minor version"
    assert doctor._quantization(with_gpu, "13.0", tmp_path).level == "warning"
    assert doctor._quantization(NONE, None, tmp_path).found == "libbitsandbytes_cpu.so"
    assert doctor._quantization(NONE, None, None).level == "warning"
    assert "no run will use the GPU" in doctor._cuda_build(with_gpu, None).found


def test_a_terminal_without_utf8_or_colours_is_told_what_to_set() -> None:
    poor = list(terminal_findings({"TERM": "linux"}, "ANSI_X3.4-1968"))
    assert [finding.level for finding in poor] == ["warning", "warning"]
    assert "C.UTF-8" in poor[0].advice
    assert "256" in list(terminal_findings({"TERM": "xterm-256color"}, "UTF-8"))[1].found
    rich = terminal_findings({"TERM": "xterm", "COLORTERM": "truecolor"}, "utf-8")
    assert [finding.level for finding in rich] == ["ok", "ok"]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Logout]:
    """What becomes of processes on a system with these files under /, and this loginctl."""
    root = tmp_path / "root"
    (root / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(logout, "_user", lambda: "ada")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def look(files: dict[str, str], loginctl: str = "exit 1") -> Logout:
        for name, text in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (programs / "loginctl").write_text(f"#!/bin/sh\n{loginctl}\n")
        (programs / "loginctl").chmod(0o755)
        return read_logout(root)

    return look


def test_what_logind_does_at_logout_is_read_from_its_files(system: Callable[..., Logout]) -> None:
    assert system({}).kills is None
    assert system({"usr/lib/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}).kills is True
    assert system({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=no\n"}).kills is False
    assert system({"usr/lib/systemd/logind.conf.d/50-x.conf": "[Login]\nKillUserProcesses=yes\n"}).kills is True
    assert system({"etc/systemd/logind.conf.d/60-y.conf": "[Login]\nKillExcludeUsers=root ada\n"}).kills is False
    assert system({"etc/systemd/logind.conf.d/60-y.conf": "[Login]\nKillOnlyUsers=bob\n"}).kills is False
    found = system({"etc/systemd/logind.conf.d/60-y.conf": "[Login]\nKillOnlyUsers=ada\n"})
    assert found == Logout(True, False)
    assert system({"var/lib/systemd/linger/ada": ""}) == Logout(True, True)


def test_logind_itself_is_asked_first(system: Callable[..., Logout]) -> None:
    answers = 'case "$*" in *KillUserProcesses*) echo yes;; *Linger*) echo no;; esac'
    found = system({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=no\n"}, answers)
    assert found == Logout(True, False)


def test_a_system_without_systemd_ends_nothing(tmp_path: Path) -> None:
    assert read_logout(tmp_path) == Logout(False, None)


def test_who_is_ended_at_logout_is_told_how_to_go_on() -> None:
    assert logout_finding(Logout(False, None)).level == "ok"
    ended = logout_finding(Logout(True, False))
    assert ended.level == "warning"
    assert "loginctl enable-linger" in ended.advice
    assert "systemd-run --user --scope sftui" in ended.advice
    lingers = logout_finding(Logout(True, True))
    assert "enable-linger" not in lingers.advice
    assert "Start sftui in a scope" in lingers.advice
