"""The command at the end of a run: its facts, its limits, and that it never hears of a token."""

import json
import sys
from pathlib import Path

import pytest

from core.runs import events
from core.runs.events import Entry, TerminalEvent
from core.runs.folder import RunFolder
from core.runs.state import RunState, reduce
from core.spec.build import build_spec, check_values
from core.training.finish import command_line, facts, run_command

BASE = {"model_name_or_path": "some/model", "datasets": ["rows.jsonl"]}
TELL = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open(sys.argv[1], 'w')); print('told')"


def state_after(*happened: events.Event) -> RunState:
    state = RunState()
    for seq, event in enumerate(happened, start=1):
        state = reduce(state, Entry(seq, float(seq), event))
    return state


STEP = events.StepCompleted(9, 1.0, 1.25, 1e-4, 0.5, 900, 10.0, 1.0)


@pytest.mark.parametrize(
    ("outcome", "state", "result", "message"),
    [
        (events.RunFinished(9, "adapter", 5.0), "finished", "/runs/one/adapter", ""),
        (events.RunStopped(9, "checkpoints/checkpoint-9", "by a command", 5.0), "stopped",
         "/runs/one/checkpoints/checkpoint-9", "by a command"),
        (events.RunStopped(9, None, "at once", 5.0), "stopped", "", "at once"),
        (events.RunFailed("E", "Out of memory", "2 GB\x1b[31m more", "", None, 9, 5.0), "failed", "",
         "Out of memory: 2 GB␛[31m more"),
    ],
)  # fmt: skip
def test_each_end_has_its_facts(outcome: TerminalEvent, state: str, result: str, message: str) -> None:
    told = facts(RunFolder(Path("/runs/one")), state_after(STEP, outcome), outcome)
    assert told == {
        "SFTUI_RUN": "one",
        "SFTUI_STATE": state,
        "SFTUI_RUN_FOLDER": "/runs/one",
        "SFTUI_STEP": "9",
        "SFTUI_LOSS": "1.25",
        "SFTUI_RESULT": result,
        "SFTUI_MESSAGE": message,
    }


def test_a_command_is_taken_apart_as_a_shell_does_but_no_shell_sees_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.json"
    environ = {"HF_TOKEN": "hf_canary", "PATH": "/bin", "OTHER": "kept"}
    wanted = f"{sys.executable} -c \"{TELL}\" {file} '; touch {tmp_path}/canary' $HOME"
    run_command(wanted, {"SFTUI_RUN": "one; two"}, environ)
    arguments, environment = json.loads(file.read_text())
    assert arguments == [str(file), f"; touch {tmp_path}/canary", "$HOME"]
    assert (environment["SFTUI_RUN"], environment["OTHER"]) == ("one; two", "kept")
    assert "hf_canary" not in file.read_text()
    assert not (tmp_path / "canary").exists()
    assert capfd.readouterr().out == "told\n"


def test_a_list_is_taken_as_it_is_and_nothing_wanted_is_nothing_done() -> None:
    assert command_line(["notify", "a b", "'"]) == ["notify", "a b", "'"]
    assert command_line(None) == command_line("") == []
    run_command(None, {}, {})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["/no/such/program"], "could not be started"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with status 3"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "was ended after 0.2 seconds"),
    ],
)
def test_what_goes_wrong_with_it_is_said_in_the_log_alone(
    wanted: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_command(wanted, {}, {}, limit_seconds=0.2 if "sleep" in wanted[-1] else 30)
    assert words in capfd.readouterr().err


def test_a_spec_takes_a_text_or_a_list_and_refuses_a_quote_that_is_not_closed() -> None:
    assert build_spec({**BASE, "sftui": {"on_finish": "notify done"}}).sftui.on_finish == "notify done"
    assert build_spec({**BASE, "sftui": {"on_finish": ["notify", "done"]}}).sftui.on_finish == ["notify", "done"]
    (problem,) = check_values({**BASE, "sftui": {"on_finish": "notify 'done"}}).problems
    assert problem.field == "sftui.on_finish"
