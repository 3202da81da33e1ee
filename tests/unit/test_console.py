"""A run on a terminal or in a pipe: a bar, or lines, or the journal's JSON; never what a terminal would obey."""

import io
import json
import sys
from typing import get_args

import pytest

from core.console import JsonReporter, TextReporter, describe, is_exact, side_by_side
from core.runs import events
from core.runs.events import Answer, Entry, Event
from core.runs.state import RunState, reduce
from tests.unit.test_journal import EVERY_EVENT

SILENT = (
    events.TrainingStarted,
    events.StepCompleted,
    events.MemorySampled,
    events.PeakMeasured,
    events.SamplesAnswered,
    events.TroubleEnded,
)


def step(number: int, loss: float = 2.0) -> events.StepCompleted:
    return events.StepCompleted(number, 0.0, loss, 2e-4, 0.5, number, 1234.0, 1.0)


def tell(reporter: JsonReporter | TextReporter, *happened: Event) -> RunState:
    state = RunState()
    for number, event in enumerate(happened, start=1):
        entry = Entry(number, float(number), event)
        state = reduce(state, entry)
        reporter.tell(entry, state)
    reporter.close()
    return state


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_an_event_is_told_in_words_or_left_out(event: Event) -> None:
    assert bool(describe(event)) != isinstance(event, SILENT)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.RunStarted("run-1", "m", "qlora", 1, "1", True), "run run-1: qlora of m"),
        (events.RunQueued("run-1", "m", "lora", 1, 2, "GPU 0"), "place 2 in the queue: waits for GPU 0"),
        (events.PhaseStarted("training"), "training"),
        (events.PhaseStarted("loading", "Llama"), "loading: Llama"),
        (events.DataPrepared("text", 1200, 3), "  1,200 rows to train on, 3 held out (text)"),
        (events.DataProgressed("tokenizing", 500, 2000), "  tokenizing the rows: 25%"),
        (
            events.DataPrepared(
                form="messages",
                train_rows=90,
                held_out_rows=0,
                skipped_rows=3,
                skipped_kinds=(events.KindCount("no_answer", 2), events.KindCount("new_kind", 1)),
                dropped_rows=1,
                truncated_rows=2,
                sequences=12,
                tokens=999,
                trained_tokens=99,
            ),
            "  90 rows to train on, 0 held out (messages)\n"
            "  999 tokens in 12 sequences, 99 of them trained\n"
            "  3 rows left out: 2 no assistant turn, 1 new kind\n"
            "  1 row left out: nothing to learn from within max_length\n"
            "  2 rows cut at max_length",
        ),
        (events.ModelAdapted(5, 0, ()), "  5 parameters to train (500.00%)"),
        (events.ModelAdapted(1_000, 100_000, ()), "  1.0 k parameters to train (1.00%)"),
        (events.RunStopped(3, "checkpoints/checkpoint-3", "asked", 1.0),
         "stopped at step 3 (asked); saved in checkpoints/checkpoint-3"),
        (events.RunStopped(0, None, "asked", 1.0), "stopped at step 0 (asked); nothing was saved"),
        (events.RunFailed("E", "Out of memory", "line 1\nline 2", "Do this.", None, 3, 1.0),
         "failed: Out of memory\nline 1\nline 2\nDo this."),
        (events.RunFailed("E", "Out of memory", "", "", None, 3, 1.0), "failed: Out of memory"),
        (events.RunFinished(9, "adapter", 75.0), "finished after 1 min 15 s"),
    ],
)  # fmt: skip
def test_the_words(event: Event, words: str) -> None:
    assert describe(event) == words


HOSTILE = "\x1b]0;x\x07\u202e"


@pytest.mark.parametrize(
    "event",
    [
        events.RunStarted(HOSTILE, HOSTILE, "full", 1, "1", False),
        events.RunQueued(HOSTILE, HOSTILE, "full", 1, 1, HOSTILE),
        events.PhaseStarted("loading", HOSTILE),
        events.ChoiceMade("dtype", HOSTILE, HOSTILE),
        events.CheckpointCommitted(1, HOSTILE, 1, 1.0),
        events.ProblemNoticed(HOSTILE, HOSTILE),
        events.RunStopped(1, HOSTILE, HOSTILE, 1.0),
        events.RunFailed("E", HOSTILE, HOSTILE, HOSTILE, None, 1, 1.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_foreign_text_is_made_harmless(event: Event) -> None:
    told = describe(event)
    assert "␛" in told
    assert not set(told) & set("\x1b\x07\u202e")


def test_in_a_pipe_about_twenty_steps_are_told_and_no_bar_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    tell(TextReporter(), events.TrainingStarted(100, 1.0), *map(step, range(1, 101)))
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 20
    assert out.splitlines()[-1] == "step 100 of 100  loss 2.0000  lr 2.00e-04  1,234 tokens/s"


def test_steps_are_told_though_nobody_said_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    tell(TextReporter(), step(1, loss=float("nan")))
    assert capsys.readouterr().out == "step 1 of ?  loss nan  lr 2.00e-04  1,234 tokens/s\n"


class Terminal(io.StringIO):
    """What tqdm and the reporter take for a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_counts_the_steps_and_stays_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    tell(
        TextReporter(),
        events.TrainingStarted(4, 1.0),
        step(1),
        events.EvaluationCompleted(1, 1.5, 0.1),
        *map(step, range(2, 5)),
        events.RunFinished(4, "adapter", 9.0),
    )
    drawn = terminal.getvalue()
    assert "4/4" in drawn
    assert "loss 2.0000" in drawn
    assert drawn.endswith("\n")
    assert capsys.readouterr().out.splitlines() == ["held-out loss at step 1: 1.5000", "finished after 9.0 s"]


def test_json_is_the_journals_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tell(JsonReporter(), *EVERY_EVENT, step(1, loss=float("nan")))
    lines = [
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        for line in capsys.readouterr().out.splitlines()
    ]
    assert [line["seq"] for line in lines] == list(range(1, len(EVERY_EVENT) + 2))
    assert [line["type"] for line in lines[:-1]] == [type(event).__name__ for event in EVERY_EVENT]
    assert lines[-1]["loss"] == "nan"
    assert len(EVERY_EVENT) == len(get_args(Event))


def test_answers_stand_side_by_side_with_how_many_are_right() -> None:
    base = events.SamplesAnswered(
        "base", 0, (Answer("one\x1b", "no", "1"), Answer("two", "2", "2"), Answer("hi", "?", None))
    )
    tuned = events.SamplesAnswered(
        "tuned", 9, (Answer("one\x1b", " 1\n", "1"), Answer("two", "3", "2"), Answer("hi", "!", None))
    )
    state = reduce(reduce(RunState(), Entry(1, 1.0, base)), Entry(2, 2.0, tuned))
    told = side_by_side(state, width=40)
    assert "\x1b" not in told
    lines = [line.split() for line in told.splitlines()]
    assert ["base", "no"] in lines
    assert ["tuned", "1⏎", "✓", "exact"] in lines
    assert ["tuned", "3", "✗", "not", "as", "expected"] in lines
    assert ["tuned", "!"] in lines
    assert told.endswith("exactly right: base 1 of 2, tuned 1 of 2")


def test_answers_of_one_model_alone_are_not_compared() -> None:
    assert side_by_side(RunState()) == ""
    alone = events.SamplesAnswered("tuned", 9, (Answer("a", "b", None),))
    assert side_by_side(reduce(RunState(), Entry(1, 1.0, alone))) == ""
    both = RunState(base_samples=events.SamplesAnswered("base", 0, ()), tuned_samples=alone)
    assert side_by_side(both) == ""


def test_an_answer_is_exact_letter_by_letter() -> None:
    assert is_exact(Answer("p", " yes ", "yes"))
    assert not is_exact(Answer("p", "Yes", "yes"))
    assert not is_exact(Answer("p", "yes", None))


def test_loading_is_told_at_its_quarters_and_no_more_often(capsys: pytest.CaptureFixture[str]) -> None:
    tell(TextReporter(), *(events.LoadProgressed(10**7 * part, 10**9, part // 25, 4) for part in range(101)))
    assert capsys.readouterr().out.splitlines() == [
        "  250 MB of 1.00 GB loaded, 1 of 4 files",
        "  500 MB of 1.00 GB loaded, 2 of 4 files",
        "  750 MB of 1.00 GB loaded, 3 of 4 files",
    ]
    tell(TextReporter(), events.LoadProgressed(0, 0, 0, 0), events.LoadProgressed(5, 5, 1, 1))
    assert capsys.readouterr().out == ""
    assert describe(events.LoadProgressed(5, 10, 0, 1)) == "  5 B of 10 B loaded, 1 file"
