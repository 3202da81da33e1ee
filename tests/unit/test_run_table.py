"""The list of runs: quick because lines are kept, and true because they are thrown away when anything changes."""

import math
from pathlib import Path

import pytest

from core import paths
from core.errors import SftuiError
from core.runs import events, table
from core.runs.ends import read_ends
from core.runs.folder import RunFolder
from core.runs.notes import add_note
from core.runs.table import list_runs
from core.runs.tags import parse_tags, read_tags, write_tags
from tests.tui.helpers import add, alive, begin, home_in, step, steps, write_run


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_in(monkeypatch, tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose journals were read."""
    found: list[str] = []

    def noted(journal: Path) -> object:
        found.append(journal.parent.name)
        return read_ends(journal)

    monkeypatch.setattr(table, "read_ends", noted)
    return found


def ended(name: str, *more: events.Event) -> RunFolder:
    return write_run(name, [*begin(name), *steps(1, 9), *more, events.RunFinished(9, "adapter", 61.0)])


def test_a_journal_that_has_not_changed_is_read_once(reads: list[str]) -> None:
    peak = events.PeakMeasured(9, "gpu", 8_000_000_000, 7_000_000_000, None, 7_900_000_000)
    first = ended("a-aaaa", events.EvaluationCompleted(9, 2.5, 1.0), peak)
    ended("b-bbbb")
    before = list_runs()
    assert sorted(reads) == ["a-aaaa", "b-bbbb"]
    assert list_runs() == before
    assert len(reads) == 2
    (line,) = [line for line in before if line.id == "a-aaaa"]
    assert (line.held_out, line.peak, line.state, line.path) == (2.5, peak, "finished", first.path)
    add(first, [events.RunStarted("a-aaaa", "m", "lora", 1, "0.1.0", warm=False)])
    (line,) = [line for line in list_runs() if line.id == "a-aaaa"]
    assert line.state == "interrupted"
    assert reads[2:] == ["a-aaaa"]


def test_live_runs_are_read_each_time() -> None:
    folder = write_run("a-aaaa", [*begin("a-aaaa"), *steps(1, 3)])
    with alive(folder):
        assert [line.step for line in list_runs()] == [3]
        add(folder, steps(4, 5))
        assert [(line.step, line.state) for line in list_runs()] == [(5, "training")]


def test_a_loss_that_is_no_number_is_kept_as_one() -> None:
    write_run("a-aaaa", [*begin("a-aaaa"), step(1, float("nan")), events.RunFinished(1, "adapter", 1.0)])
    for _ in range(2):
        (line,) = list_runs()
        assert line.loss is not None
        assert math.isnan(line.loss)


@pytest.mark.parametrize("kept", [b"", b"{", b"[]", b'{"version": 1, "runs": {"x": {}}}', b'{"version": 0}'])
def test_a_broken_file_of_lines_is_made_anew(kept: bytes, reads: list[str]) -> None:
    ended("a-aaaa")
    list_runs()
    (paths.cache_home() / "runs.json").write_bytes(kept)
    assert [line.id for line in list_runs()] == ["a-aaaa"]
    assert list_runs()
    assert len(reads) == 2


def test_runs_that_are_gone_are_forgotten() -> None:
    ended("a-aaaa").spec_file.unlink()
    ended("b-bbbb")
    assert [line.id for line in list_runs()] == ["b-bbbb"]


def test_tags_and_notes_and_data_stand_in_the_line() -> None:
    folder = ended("a-aaaa")
    folder.spec_file.write_text(
        "model_name_or_path: m\ndatasets:\n- {path: json, data_files: /data/support.jsonl}\n- {path: org/chat}\n"
    )
    list_runs()
    write_tags(folder, parse_tags("good, baseline good"))
    add_note(folder, "the first")
    (line,) = list_runs()
    assert (line.tags, line.notes, line.data) == (("good", "baseline"), 1, "support.jsonl, chat")
    folder.tags_file.write_text("{")
    assert read_tags(folder) == ()
    with pytest.raises(SftuiError, match="at most 20"):
        parse_tags("x" * 41)


def test_of_a_long_journal_the_last_evaluation_and_peak_are_found_in_its_middle() -> None:
    peak = events.PeakMeasured(1500, "host", 800, None, None, None)
    happened: list[events.Event] = [
        *begin("a-aaaa", 9000),
        *steps(1, 1000),
        events.EvaluationCompleted(1000, 1.5, 1.0),
        *steps(1001, 1500),
        events.EvaluationCompleted(1500, 1.25, 1.0),
        peak,
        *steps(1501, 3000),
    ]
    state = read_ends(write_run("a-aaaa", happened).journal_file)
    assert (state.step, state.max_steps, state.peak) == (3000, 9000, peak)
    assert [found.loss for found in state.evaluations] == [1.25]
    assert len(state.steps) < 2000
