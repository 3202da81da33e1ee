"""A run is a folder: made whole, found by a part of its name, alive as long as its lock is held."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core import paths
from core.errors import SftuiError
from core.runs import events, folder
from core.runs.folder import RunFolder, all_runs, create_run, find_run, summarize
from core.runs.journal import JournalWriter
from core.spec.build import build_spec
from core.spec.presets import PRESETS
from core.spec.yaml_file import read_spec

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from core.runs.folder import RunFolder

with RunFolder(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(run: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        yield holder
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(timeout=30)


def spec(**values: Any) -> Any:
    return build_spec({"model_name_or_path": "some/Model_1", "datasets": ["rows.jsonl"], **values})


def run_called(name: str, modified: float = 1_000.0) -> RunFolder:
    run = RunFolder(paths.runs_home() / name)
    run.path.mkdir(parents=True)
    run.spec_file.write_text("model_name_or_path: m\n")
    os.utime(run.spec_file, (modified, modified))
    return run


def test_a_new_run_holds_its_spec_and_plan_for_its_owner_alone() -> None:
    run = create_run(spec(lora_r=7), {"verdict": "fits"})
    assert run.path.parent == paths.runs_home()
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert read_spec(run.spec_file).lora_r == 7
    assert run.spec_values()["lora_r"] == 7
    assert run.plan_file.read_text() == '{\n  "verdict": "fits"\n}'
    assert not run.is_alive()
    assert not create_run(spec()).plan_file.exists()


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({}, "model-1"),
        ({"sftui": {"name": "My run: 2nd/try"}}, "my-run-2nd-try"),
        ({"sftui": {"name": "../../etc"}}, "etc"),
        ({"sftui": {"name": "\u202e…"}}, "run"),
        ({"sftui": {"name": "x" * 300}}, "x" * 40),
    ],
)
def test_a_runs_name_is_made_of_plain_letters(values: dict[str, Any], label: str) -> None:
    date, _, rest = create_run(spec(**values)).id.partition("-")
    assert date.isdecimal() and len(date) == 8
    assert rest[:-5] == label
    assert rest[-5] == "-" and rest[-4:].isalpha()


def test_a_name_that_is_taken_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = iter("aaaa" "aaaa" "bbbb")  # fmt: skip
    monkeypatch.setattr(folder.secrets, "choice", lambda _: next(letters))  # type: ignore[attr-defined]
    first, second = create_run(spec()), create_run(spec())
    assert (first.id[-4:], second.id[-4:]) == ("aaaa", "bbbb")


def test_a_run_finds_its_files_from_wherever_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "h.jsonl"):
        Path(name).touch()
    Path("model").mkdir()
    run = create_run(
        spec(
            model_name_or_path="model",
            datasets=["a.jsonl", {"path": "json", "data_files": ["b.jsonl", "hub/name"]}],
            sftui={"held_out_file": "./h.jsonl"},
        )
    )
    monkeypatch.chdir("/")
    written = read_spec(run.spec_file)
    assert written.model_name_or_path == str(tmp_path / "model")
    assert written.datasets[0].files() == (tmp_path / "a.jsonl",)
    assert written.datasets[1].data_files == [str(tmp_path / "b.jsonl"), "hub/name"]
    assert written.sftui.held_out_file == str(tmp_path / "h.jsonl")


def test_where_nothing_can_be_written_it_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(SftuiError, match="cannot be made") as caught:
        create_run(spec())
    assert "XDG_DATA_HOME" in caught.value.hint


def test_a_run_is_alive_until_its_runner_is_killed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.is_alive()
    with another_process_holds(run) as holder:
        assert run.is_alive()
        assert run.is_alive()
        holder.send_signal(signal.SIGKILL)
        assert holder.wait(timeout=30) == -signal.SIGKILL
        assert not run.is_alive()
        with run.locked():
            assert run.is_alive()
    assert not run.is_alive()


def test_a_second_runner_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with another_process_holds(run), pytest.raises(SftuiError, match="already running"), run.locked():
        pytest.fail("the lock was taken twice")


def test_runs_are_listed_with_the_newest_first() -> None:
    assert all_runs() == ()
    old, new = run_called("20250101-a-aaaa", 1_000.0), run_called("20250101-b-bbbb", 2_000.0)
    (paths.runs_home() / "no-run").mkdir()
    (paths.runs_home() / "notes.txt").touch()
    assert all_runs() == (new, old)


def test_a_run_is_found_by_its_id_a_part_of_it_or_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = run_called("20250101-qwen-abcd"), run_called("20250102-qwen-abcd-efgh")
    assert find_run("20250101-qwen-abcd") == first
    assert find_run("efgh") == second
    assert find_run(str(second.path)) == second
    monkeypatch.chdir(first.path.parent)
    assert find_run(first.id) == RunFolder(first.path.resolve())


def test_a_part_of_several_names_asks_which() -> None:
    run_called("20250101-qwen-abcd")
    run_called("20250102-qwen-efgh")
    with pytest.raises(SftuiError) as caught:
        find_run("qwen")
    assert caught.value.title == "Which run?"
    assert "20250101-qwen-abcd" in caught.value.message
    assert "20250102-qwen-efgh" in caught.value.message
    for name in ("", "llama"):
        with pytest.raises(SftuiError, match="No such run"):
            find_run(name)


def write(run: RunFolder, *happened: events.Event) -> None:
    writer = JournalWriter(run.journal_file)
    for event in happened:
        writer.write(event)
    writer.close()


def test_a_run_in_one_line() -> None:
    run = run_called("20250101-a-aaaa")
    line = summarize(run)
    assert (line.id, line.state, line.step, line.loss, line.started, line.seconds) == (
        run.id,
        "starting",
        0,
        None,
        None,
        None,
    )
    write(
        run,
        events.RunStarted(run.id, "m", "full", 1, "0.1.0", warm=False),
        events.TrainingStarted(8, 1.0),
        events.StepCompleted(3, 0.1, 1.25, 1e-4, None, 1, 1.0, 1.0),
    )
    line = summarize(run)
    assert (line.state, line.step, line.max_steps, line.loss, line.model) == ("interrupted", 3, 8, 1.25, "m")
    assert line.started is not None and line.seconds is not None
    with run.locked():
        assert summarize(run).state == "starting"
    write(run, events.RunFailed("E", "The GPU's memory ran out", "m", "h", None, 3, 42.0))
    line = summarize(run)
    assert (line.state, line.seconds, line.failure) == ("failed", 42.0, "The GPU's memory ran out")


def test_the_starter_is_named_after_itself() -> None:
    assert "-starter-" in create_run(build_spec(PRESETS["starter"].values)).id
