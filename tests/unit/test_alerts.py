"""When somebody is called back to the terminal, and what is written to it then."""

import re

import pytest

from core.runs.state import Status
from tui_app.alerts import call_for, sequences

HOSTILE = "\x07\x1b]52;c;aGk=\x07\x9b31m\x1b\\;done\u202e"


@pytest.mark.parametrize(
    ("before", "now", "why", "words"),
    [
        ("training", "finished", "", "one is finished"),
        ("saving", "failed", "Out of memory", "one failed: Out of memory"),
        ("training", "stopped", "the loss is not a number", "one stopped: the loss is not a number"),
        ("training", "interrupted", "", "one is interrupted"),
        ("training", "paused", "The disk is full", "one rests: The disk is full"),
        ("training", "paused", "", None),
        ("paused", "paused", "The disk is full", None),
        ("training", "released", "", None),
        ("finished", "finished", "", None),
        ("loading", "training", "", None),
    ],
)
def test_somebody_is_called_for_ends_and_for_rests_that_nobody_asked_for(
    before: Status, now: Status, why: str, words: str | None
) -> None:
    assert call_for("one", before, now, why) == words


def test_a_terminal_is_asked_in_both_ways_and_rung() -> None:
    assert sequences("one is finished", "all", "xterm-256color") == (
        "\x1b]9;sftui: one is finished\x07\x1b]777;notify;sftui;one is finished\x07\x07"
    )


def test_it_can_be_less_and_nothing() -> None:
    assert sequences("one", "off", "xterm") == ""
    assert sequences("one", "bell", "xterm") == sequences("one", "all", "linux") == "\x07"


def test_no_character_of_a_text_reaches_the_terminal_as_anything_but_text() -> None:
    written = sequences(HOSTILE * 50, "all", "xterm")
    assert re.fullmatch(
        r"\x1b\]9;([^\x00-\x1f\x7f-\x9f]*)\x07\x1b\]777;notify;sftui;[^\x00-\x1f\x7f-\x9f;]*\x07\x07", written
    )
    assert len(written) < 500
