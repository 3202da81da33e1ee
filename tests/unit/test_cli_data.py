"""`sftui data`: any source or a spec, told to people and to programs."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core import cli, cli_data, starter
from core.cli import WRONG_USE
from core.cli_runs import DONE
from tests.unit.test_row_store import turns, written
from tests.unit.test_sources import made

Output = pytest.CaptureFixture[str]


def told(capsys: Output, *arguments: str, status: int = DONE) -> dict[str, Any]:
    assert cli.main(["data", *arguments, "--json"]) == status
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_file_is_told_with_its_mapping_and_its_problems(tmp_path: Path, capsys: Output) -> None:
    good = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]
    file = written(tmp_path / "rows.jsonl", *good, good[0], {"question": "e", "answer": None}, "{")
    answer = told(capsys, str(file), status=WRONG_USE)
    assert (answer["format"], answer["rows"], answer["bad_rows"], answer["duplicates"]) == (
        "prompt-completion",
        3,
        2,
        1,
    )
    assert answer["mapping"] == {"user": "question", "assistant": "answer"}
    assert [(problem["line"], problem["kind"], problem["level"]) for problem in answer["problems"]] == [
        (4, "null_value", "error"),
        (5, "invalid_json", "error"),
        (3, "duplicate", "warning"),
    ]
    assert answer["counts"] == {"duplicate": 1, "null_value": 1, "invalid_json": 1}
    assert len(Path(answer["report"]).read_text().splitlines()) == 3
    assert (answer["tokens"], answer["held_out"]) == (None, None)
    assert cli.main(["data", str(file)]) == WRONG_USE
    shown = capsys.readouterr().out
    assert "columns  user = question" in shown
    assert "rows     3 good, 2 bad" in shown
    assert f"warning  {file}:3: " in shown


def test_many_problems_are_cut_with_a_word_where_all_of_them_are(tmp_path: Path, capsys: Output) -> None:
    file = written(tmp_path / "rows.jsonl", turns("a"), *("{" for _ in range(30)))
    assert cli.main(["data", str(file)]) == WRONG_USE
    shown = capsys.readouterr().out.splitlines()
    assert "      30 not JSON" in shown
    assert sum(line.startswith(f"{file}:") for line in shown) == 20
    assert shown[-1].startswith("all of them: ")


def test_what_nobody_knows_is_told_by_its_columns(tmp_path: Path, capsys: Output) -> None:
    file = written(tmp_path / "rows.jsonl", {"frage": "a\x1b[2J", "n": 1})
    assert cli.main(["data", str(file)]) == WRONG_USE
    shown = capsys.readouterr().out
    assert "column   frage: a text" in shown
    assert "\x1b" not in shown


def test_a_spec_is_told_with_the_rows_it_holds_out(tmp_path: Path, capsys: Output) -> None:
    held_out = written(tmp_path / "held.jsonl", turns("a"), "{")
    spec = tmp_path / "spec.yaml"
    # What is wrong with the rest of it does not matter here.
    spec.write_text(
        f"model_name_or_path: no/model\nlora_r: 8\ndatasets: [{starter.TRAIN_DATA}]\n"
        f"eval_strategy: steps\nsftui: {{held_out_file: {held_out}}}\n"
    )
    answer = told(capsys, str(spec), status=WRONG_USE)
    assert (answer["rows"], answer["bad_rows"]) == (480, 0)
    assert (answer["held_out"]["rows"], answer["held_out"]["bad_rows"]) == (1, 1)
    assert told(capsys, "starter")["held_out"]["rows"] == 48
    spec.write_text("model_name_or_path: m\ndatasets: [{pth: x}]\n")
    assert cli.main(["data", str(spec)]) == WRONG_USE
    assert "datasets[0].path" in capsys.readouterr().err


def test_several_sources_and_a_split_are_told_apart(tmp_path: Path, capsys: Output) -> None:
    made(tmp_path, "one/train.jsonl", "one/test.jsonl", "two/test.jsonl")
    answer = told(capsys, str(tmp_path / "one"), str(tmp_path / "two"), "--split", "test")
    assert [(source["files"], source["used"]) for source in answer["sources"]] == [
        ([str(tmp_path / "one/test.jsonl")], 1),
        ([str(tmp_path / "two/test.jsonl")], 1),
    ]
    assert cli.main(["data", str(tmp_path / "one"), "--split", "dev"]) == WRONG_USE
    assert "there are train, test" in capsys.readouterr().err


class Counting:
    """Stands in for the warm runner: every row has as many tokens as its number, and one more."""

    asked: list[Mapping[str, Any]] = []

    @classmethod
    def start(cls) -> "Counting":
        cls.asked.clear()
        return cls()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(question)
        start, stop = question["start"], min(question["stop"], question["start"] + 150)
        lengths = [row + 1 for row in range(start, stop)]
        last = [length - 1 for length in lengths]
        first = [0] * len(lengths)
        return {"start": start, "stop": stop, "lengths": lengths, "trained": lengths, "first": first, "last": last,
                "refused": []}  # fmt: skip

    def close(self) -> None:
        pass


def test_tokens_are_counted_for_a_model_and_not_twice(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_data, "WarmRunner", Counting)
    answer = told(capsys, str(starter.TRAIN_DATA), "--model", str(starter.MODEL))
    tokens = answer["tokens"]
    assert (tokens["p50"], tokens["p95"], tokens["max"], tokens["total"]) == (240, 456, 480, 480 * 481 // 2)
    assert tokens["truncated_share"] == 0
    assert [question["start"] for question in Counting.asked] == [0, 150, 300, 450]
    assert Counting.asked[0]["options"]["learn_from"] == "all"
    Counting.asked.clear()
    # The preset cuts rows at 128 tokens, and learns from other tokens of them.
    of_spec = told(capsys, "starter", "--model", str(starter.MODEL))["tokens"]
    assert of_spec["truncated_share"] == (480 - 128) / 480
    assert Counting.asked[0]["options"]["learn_from"] == "assistant"
    Counting.asked.clear()
    assert cli.main(["data", str(starter.TRAIN_DATA), "--model", str(starter.MODEL)]) == DONE
    assert "half of the rows have at most 240, 95 % at most 456, the longest 480" in capsys.readouterr().out
    assert Counting.asked == []


def test_on_a_terminal_it_tells_how_far_it_is(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["data", str(written(tmp_path / "rows.jsonl", turns("a")))]) == DONE
    said = capsys.readouterr().err
    assert "reading: 100%" in said
    assert said.endswith("\r")
