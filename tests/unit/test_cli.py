"""The command line: what it prints, what it leaves behind, and its exit status."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import cli, paths, starter
from core.cli import DOES_NOT_FIT, WRONG_USE
from core.cli_runs import DONE, FAILED
from core.devices.host import read_host
from core.errors import SftuiError
from core.memory import plan
from core.runs import events, follow, launch
from core.runs.commands import CommandReader
from core.runs.folder import RunFolder
from core.runs.journal import JournalWriter
from core.spec.presets import PRESETS
from core.spec.yaml_file import read_spec
from tests.nvml import build_stub

ROOT = Path(__file__).parents[2]
Output = pytest.CaptureFixture[str]
SPEC = f"model_name_or_path: {starter.MODEL}\ndatasets: {starter.TRAIN_DATA}\nuse_peft: true\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    return file


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """The runs that would have been started; each gets a journal that says it has finished."""
    runs: list[RunFolder] = []

    def start(folder: RunFolder, resume_step: int | None = None, *, queue: bool) -> None:
        runs.append(folder)
        write(folder, events.RunStarted(folder.id, "m", "lora", 1, "1", False), events.RunFinished(3, "adapter", 1.0))

    monkeypatch.setattr(launch, "start_run", start)
    return runs


def write(folder: RunFolder, *happened: events.Event) -> None:
    writer = JournalWriter(folder.journal_file)
    for event in happened:
        writer.write(event)
    writer.close()


def run_called(name: str, *happened: events.Event) -> RunFolder:
    folder = RunFolder(paths.runs_home() / name)
    folder.path.mkdir(parents=True)
    folder.spec_file.write_text(SPEC)
    if happened:
        write(folder, events.RunStarted(name, "some/model", "lora", 1, "1", False), *happened)
    return folder


def nothing_was_made() -> bool:
    return not paths.runs_home().exists() or not any(paths.runs_home().iterdir())


def sftui(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core.cli", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["run"], ["stop"], ["data"], ["run", "a", "--set"], ["runs", "x"]]
)
def test_wrong_use_is_two_with_the_usage(arguments: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == WRONG_USE
    assert "usage: sftui" in capsys.readouterr().err


def test_help_and_version_are_no_failure(capsys: Output) -> None:
    for arguments in (["--help"], ["--version"], ["run", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == DONE
    assert "sftui 0.1.0" in capsys.readouterr().out


def test_without_arguments_the_app_opens() -> None:
    assert cli.main([], open_app=lambda: 7) == 7


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_invalid_spec_is_two_and_nothing_is_made(
    command: str, spec: Path, started: list[RunFolder], capsys: Output
) -> None:
    spec.write_text(SPEC + "lora_r: 0\nlerning_rate: 1\n")
    assert cli.main([command, str(spec)]) == WRONG_USE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{spec}:4: lora_r: must be a whole number, at least 1 and at most 4096; it is 0." in err
    assert f"{spec}:5: lerning_rate: " in err
    assert "Did you mean learning_rate?" in err
    assert nothing_was_made()
    assert started == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model_name_or_path": "no/such-model"}, "model_name_or_path"),
        ({"datasets": "nothing.jsonl"}, "datasets"),
        ({"sftui.held_out_file": "nothing.jsonl"}, "sftui.held_out_file"),
        ({"sftui.device": "GPU-of-somebody-else"}, "sftui.device"),
        ({"completion_only_loss": "true"}, "completion_only_loss"),
        ({"load_in_4bit": "true", "load_in_8bit": "true"}, "load_in_8bit"),
    ],
)
def test_what_cannot_be_run_is_two_with_the_problem_as_data(
    values: dict[str, str], field: str, spec: Path, started: list[RunFolder], capsys: Output
) -> None:
    settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    assert cli.main(["run", str(spec), "--json", *settings]) == WRONG_USE
    out, err = capsys.readouterr()
    told = json.loads(out)["error"]
    assert set(told) == {"title", "message", "hint", "problems"}
    assert [problem["field"] for problem in told["problems"]] == [field]
    assert set(told["problems"][0]) == {"field", "level", "message", "fix", "where"}
    assert field in err
    assert nothing_was_made()
    assert started == []


@pytest.mark.parametrize("arguments", [["run", "nothing.yaml"], ["plan", "nothing.yaml"], ["data", "nothing.jsonl"],
                                       ["attach", "x"], ["stop", "x"], ["checkpoint", "x"]])  # fmt: skip
def test_what_is_not_there_is_two_in_words_and_in_json(arguments: list[str], capsys: Output) -> None:
    assert cli.main([*arguments, "--json"]) == WRONG_USE
    out, err = capsys.readouterr()
    assert set(json.loads(out)["error"]) >= {"title", "message", "hint"}
    assert "Traceback" not in err
    assert err


@pytest.mark.parametrize("setting", ["lora_r", "lora_r:4", ""])
def test_a_setting_without_an_equals_sign_is_refused(setting: str, spec: Path, capsys: Output) -> None:
    assert cli.main(["plan", str(spec), "--set", setting]) == WRONG_USE
    assert "--set NAME=VALUE" in capsys.readouterr().err


def test_settings_reach_the_run_as_typed(spec: Path, started: list[RunFolder], capsys: Output) -> None:
    settings = [
        "lora_r=4",
        "lora_target_modules=q_proj,v_proj",
        "sftui.notes=a=b, c",
        "adam_epsilon=1e-7",
        "max_length=",
    ]
    arguments = ["run", str(spec), *(part for setting in settings for part in ("--set", setting))]
    assert cli.main(arguments) == DONE
    (folder,) = started
    written = read_spec(folder.spec_file)
    assert (written.lora_r, written.lora_target_modules) == (4, ["q_proj", "v_proj"])
    assert (written.sftui.notes, written.max_length) == ("a=b, c", None)
    assert written.extra_arguments == {"adam_epsilon": 1e-7}
    out = capsys.readouterr().out
    assert f"run {folder.id}: lora of m" in out
    assert f"result: {folder.path / 'adapter'}" in out


def test_warnings_are_told_before_the_run(spec: Path, started: list[RunFolder], capsys: Output) -> None:
    spec.write_text(SPEC + "output_dir: out\n")
    assert cli.main(["run", str(spec), "--detach", "--json"]) == DONE
    out, err = capsys.readouterr()
    assert f"warning  {spec}:4: output_dir: is not used" in err
    assert json.loads(out) == {"id": started[0].id, "path": str(started[0].path)}
    assert cli.main(["plan", str(spec), "--json"]) == DONE
    assert [problem["field"] for problem in json.loads(capsys.readouterr().out)["problems"]] == ["output_dir"]


def test_a_run_in_json_is_its_journal(spec: Path, started: list[RunFolder], capsys: Output) -> None:
    assert cli.main(["run", str(spec), "--json"]) == DONE
    out = capsys.readouterr().out
    assert out == started[0].journal_file.read_text()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (events.RunFailed("E", "The disk is full", "m", "h", None, 1, 1.0), FAILED),
        (events.RunStopped(1, None, "stopped by a command", 1.0), DONE),
    ],
)
def test_how_a_run_ended_is_the_exit_status(
    outcome: events.Event, status: int, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(launch, "start_run", lambda folder, _step, queue: write(folder, outcome))
    assert cli.main(["run", str(spec)]) == status
    assert "run: " in capsys.readouterr().out


def test_a_runner_that_never_starts_is_a_failure(spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise SftuiError("The runner did not start", "Nothing was written.")

    monkeypatch.setattr(launch, "start_run", lambda folder, _step, queue: None)
    monkeypatch.setattr(follow, "follow", never)
    assert cli.main(["run", str(spec)]) == FAILED
    assert "The runner did not start" in capsys.readouterr().err


def test_what_does_not_fit_is_three_unless_it_is_forced(
    spec: Path, started: list[RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(plan, "read_host", lambda path: replace(read_host(path), memory_available_bytes=1000))
    assert cli.main(["run", str(spec), "--set", "sftui.device=cpu", "--json"]) == DOES_NOT_FIT
    out, err = capsys.readouterr()
    assert "1.00 kB are free" in err
    assert "--force" in json.loads(out)["error"]["hint"]
    assert nothing_was_made()
    assert cli.main(["plan", str(spec), "--set", "sftui.device=cpu"]) == DOES_NOT_FIT
    assert cli.main(["run", str(spec), "--set", "sftui.device=cpu", "--force"]) == DONE
    assert len(started) == 1


def test_a_gpu_with_little_free_memory_is_asked_for_real(tmp_path: Path, spec: Path) -> None:
    gpu = {"LD_LIBRARY_PATH": str(build_stub(tmp_path)), "STUB_NVML_NAME": "NVIDIA L4"}
    full = sftui("run", str(spec), "--set", "sftui.device=0", STUB_NVML_USED_MB="24576", **gpu)
    assert full.returncode == DOES_NOT_FIT, full.stderr
    assert "0 B are free" in full.stderr
    assert nothing_was_made()
    planned = sftui("plan", str(spec), "--json", STUB_NVML_USED_MB="576", **gpu)
    assert planned.returncode == DONE, planned.stderr
    told = json.loads(planned.stdout)
    assert told["device"] == {"name": "NVIDIA L4", "total_bytes": 24576 << 20, "free_bytes": 24000 << 20}
    assert told["choices"]["dtype"] == {"value": "bfloat16", "reason": "compute capability 8.9"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_yaml_can_be_saved_and_planned(preset: str, tmp_path: Path, capsys: Output) -> None:
    settings = ["--set", f"model_name_or_path={starter.MODEL}", "--set", f"datasets={starter.TRAIN_DATA}"]
    assert cli.main(["plan", preset, "--yaml", *settings]) == DONE
    file = tmp_path / "saved.yaml"
    file.write_text(capsys.readouterr().out)
    assert read_spec(file).method == {"starter": "qlora"}.get(preset, preset)
    assert cli.main(["plan", str(file), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_models_are_told_as_a_list_with_what_is_wrong_beside_each(capsys: Output) -> None:
    assert cli.main(["model", str(starter.MODEL), "no/such-model", "--json"]) == WRONG_USE
    known, unknown = json.loads(capsys.readouterr().out)
    assert {"path", "model_type", "architectures", "auto_class", "reason", "parameters", "vision", "chat_template",
            "lora_target_modules", "problems"} <= set(known)  # fmt: skip
    assert (known["model_type"], known["auto_class"]) == ("llama", "AutoModelForCausalLM")
    assert set(unknown) == {"path", "problems"}
    assert cli.main(["model", str(starter.MODEL)]) == DONE
    assert "AutoModelForCausalLM" in capsys.readouterr().out


def test_data_is_told_with_each_problem_by_file_and_line(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{\n{"text": 5}\n')
    assert cli.main(["data", str(file), "--json"]) == WRONG_USE
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["rows"]) == ("text", 1)
    assert [(problem["file"], problem["line"]) for problem in told["problems"]] == [(str(file), 2), (str(file), 3)]
    assert cli.main(["data", str(file)]) == WRONG_USE
    assert f"{file}:3: `text` is a number." in capsys.readouterr().out
    assert cli.main(["data", str(starter.TRAIN_DATA)]) == DONE
    assert capsys.readouterr().out.startswith("messages: ")


def test_runs_are_listed(capsys: Output) -> None:
    assert cli.main(["runs"]) == DONE
    assert "no runs yet" in capsys.readouterr().out
    assert cli.main(["runs", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out) == []
    folder = run_called("20250101-a-aaaa", events.TrainingStarted(9, 1.0),
                        events.StepCompleted(4, 0.5, float("nan"), 1e-4, None, 1, 1.0, 1.0))  # fmt: skip
    assert cli.main(["runs", "--json"]) == DONE
    out = capsys.readouterr().out
    (told,) = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert list(told) == ["id", "path", "state", "step", "max_steps", "loss", "model", "started",
                          "peak_bytes", "peak_device", "predicted_bytes"]  # fmt: skip
    assert (told["id"], told["path"], told["state"]) == (folder.id, str(folder.path), "interrupted")
    assert (told["step"], told["max_steps"], told["loss"], told["model"]) == (4, 9, "nan", "some/model")
    assert cli.main(["runs"]) == DONE
    line = capsys.readouterr().out
    assert "20250101-a-aaaa" in line
    assert "interrupted" in line
    assert "4/9" in line


@pytest.mark.parametrize("command", ["stop", "checkpoint"])
def test_a_dead_run_cannot_be_asked(command: str, capsys: Output) -> None:
    run_called("20250101-a-aaaa", events.PhaseStarted("training"))
    assert cli.main([command, "aaaa"]) == WRONG_USE
    err = capsys.readouterr().err
    assert err.startswith("The run is not running\nNo runner holds 20250101-a-aaaa.\n")


def test_a_live_run_gets_what_it_is_asked(capsys: Output) -> None:
    folder = run_called("20250101-a-aaaa", events.PhaseStarted("training"))
    with folder.locked():
        reader = CommandReader(folder.commands_file)
        assert cli.main(["stop", "aaaa"]) == DONE
        assert "asked to stop" in capsys.readouterr().out
        assert cli.main(["stop", "aaaa", "--now", "--json"]) == DONE
        told = json.loads(capsys.readouterr().out)
        assert cli.main(["checkpoint", folder.id]) == DONE
        requests = reader.read_new()
    assert [request.command for request in requests] == ["stop", "stop_now", "checkpoint"]
    assert told == {"id": requests[1].id, "run": folder.id}


def test_several_runs_of_that_name_ask_which(capsys: Output) -> None:
    run_called("20250101-a-aaaa")
    run_called("20250101-a-bbbb")
    assert cli.main(["attach", "20250101"]) == WRONG_USE
    assert "Which run?" in capsys.readouterr().err


def test_attaching_in_a_pipe_prints_what_happened(capsys: Output) -> None:
    folder = run_called("20250101-a-aaaa", events.PhaseStarted("saving"), events.RunFinished(9, "adapter", 5.0))
    assert cli.main(["attach", "aaaa"]) == DONE
    assert capsys.readouterr().out.splitlines()[-1] == "finished after 5.0 s"
    assert cli.main(["attach", "aaaa", "--json"]) == DONE
    assert capsys.readouterr().out == folder.journal_file.read_text()
    run_called("20250101-b-bbbb", events.PhaseStarted("training"))
    assert cli.main(["attach", "bbbb"]) == FAILED


def test_on_a_terminal_attach_and_demo_open_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_called("20250101-a-aaaa")
    opened: list[dict[str, Any]] = []

    def open_app(**given: Any) -> int:
        opened.append(given)
        return 0

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["attach", "aaaa"], open_app) == DONE
    assert cli.main(["demo"], open_app) == DONE
    assert opened == [
        {"open_screen": "monitor", "run": folder},
        {"open_screen": "review", "draft_values": dict(PRESETS["starter"].values)},
    ]


@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--headless"]])
def test_without_an_app_the_demo_runs_the_starter(
    arguments: list[str], started: list[RunFolder], capsys: Output
) -> None:
    assert cli.main(arguments) == DONE
    (folder,) = started
    assert read_spec(folder.spec_file) == read_spec("starter")
    assert "result: " in capsys.readouterr().out


def test_control_c_leaves_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    run_called("20250101-a-aaaa", events.PhaseStarted("training"))
    monkeypatch.setattr(follow, "follow", interrupted)
    assert cli.main(["attach", "aaaa"]) == 128 + signal.SIGINT


@pytest.mark.parametrize("buffering", [[], ["-u"]])
def test_a_reader_that_leaves_early_is_no_failure(buffering: list[str]) -> None:
    run_called("20250101-a-aaaa")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        command = [sys.executable, *buffering, "-m", "core.cli", "runs"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (DONE, b"")


def test_the_text_of_others_is_made_harmless(spec: Path, capsys: Output) -> None:
    assert cli.main(["plan", str(spec), "--set", "sftui.device=\x1b[2J"]) == WRONG_USE
    assert cli.main(["run", "\x1b[2J.yaml"]) == WRONG_USE
    assert cli.main(["model", "\x1b[2J"]) == WRONG_USE
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
