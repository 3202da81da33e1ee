"""Runs side by side on the command line: what differs and nothing else, and all figures as files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from core.cli import main
from core.runs import events
from core.runs.compare_runs import differences, figures
from core.runs.folder import RunFolder
from core.runs.metrics import along
from tests.tui.helpers import alive, begin, home_in, step, write_run


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


def run(name: str, loss: float, spec: str = "", packages: dict[str, str] | None = None) -> RunFolder:
    happened = [
        *begin(name),
        *(step(number, loss, data_seconds=0.5) for number in range(1, 6)),
        events.EvaluationCompleted(3, loss - 0.5, 1.0, 0.5),
        events.EvaluationCompleted(5, loss, 1.0, 0.75),
        events.CheckpointCommitted(5, "checkpoints/checkpoint-5", 100, 0.1),
        events.RunFinished(5, "adapter", 61.0),
    ]
    folder = write_run(name, happened)
    folder.spec_file.write_text(f"model_name_or_path: m\ndatasets: [{{path: d.jsonl}}]\n{spec}")
    folder.environment_file.write_text(json.dumps({"host": "box", "packages": packages or {"torch": "2.13"}}))
    return folder


def test_only_what_differs_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run("one-aaaa", 2.0, "lora_r: 16\nsftui: {name: one, device: cpu}\n")
    run("two-bbbb", 1.0, "lora_r: 64\nlearning_rate: 2.0e-05\nsftui: {name: two, device: cpu}\n", {"torch": "2.14"})
    assert main(["compare", "aaaa", "bbbb"]) == 0
    out = capsys.readouterr().out
    assert "lora_r                      16" in out
    assert "64" in out
    assert "2.14" in out
    # The default, written out in one of them.
    assert "learning_rate" not in out
    assert "device" not in out
    assert "host" not in out
    line = next(line for line in out.splitlines() if line.startswith("held-out loss"))
    assert line.split() == ["held-out", "loss", "2", "1", "*"]


def test_scripts_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [run("one-aaaa", 2.0), run("two-bbbb", float("nan"))]
    assert main(["compare", "aaaa", "bbbb", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in told["runs"]] == ["one-aaaa", "two-bbbb"]
    assert told["differences"] == []
    by_name = {one["name"]: one for one in told["figures"]}
    assert by_name["held-out loss"]["values"] == [2.0, "nan"]
    assert by_name["time"]["values"] == [61.0, 61.0]
    states = [folder.read_state() for folder in folders]
    assert differences(folders, states) == ()
    assert {one.name: one.best for one in figures(states)}["tokens/s"] is None


@pytest.mark.parametrize("names", [["aaaa"], ["aaaa", "aaaa"]])
def test_one_run_cannot_be_compared(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run("one-aaaa", 2.0)
    assert main(["compare", *names]) == 2
    assert "Name 2 to 6 different runs" in capsys.readouterr().err


def test_all_figures_of_a_run_as_csv_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("one-aaaa", 2.0)
    assert main(["metrics", "aaaa"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["held_out_loss"] for row in rows] == ["", "", "1.5", "", "2.0"]
    assert rows[4]["checkpoint"] == "checkpoints/checkpoint-5"
    assert rows[0]["data_seconds"] == "0.5"
    target = tmp_path / "figures.json"
    assert main(["metrics", "aaaa", "-o", str(target)]) == 0
    told = json.loads(target.read_text())
    assert (told["state"], len(told["steps"]), told["evaluations"][1]["loss"]) == ("finished", 5, 2.0)
    assert main(["metrics", "aaaa", "-o", str(tmp_path / "none" / "x.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_figure_that_is_no_number_is_a_word_in_a_csv(capsys: pytest.CaptureFixture[str]) -> None:
    run("one-aaaa", float("inf"))
    assert main(["metrics", "aaaa"]) == 0
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["loss"] == "inf"


def test_runs_lie_over_steps_tokens_and_time() -> None:
    steps = [step(1, seconds=2.0, data_seconds=1.0), step(2, seconds=2.0)]
    assert along("step", steps) == [1, 2]
    assert along("tokens", steps) == [1000, 2000]
    assert along("time", steps) == [3.0, 5.0]


def test_tags_and_deleting_by_commands(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("one-aaaa", 2.0)
    assert main(["tag", "aaaa", "good", "night"]) == 0
    assert capsys.readouterr().out.strip() == "good night"
    assert main(["delete", "aaaa"]) == 0
    assert "say --yes" in capsys.readouterr().out
    with alive(folder):
        assert main(["delete", "aaaa", "--yes"]) == 2
    assert folder.path.exists()
    assert main(["delete", "aaaa", "--yes", "--json"]) == 0
    assert not folder.path.exists()
