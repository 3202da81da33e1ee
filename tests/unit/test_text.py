"""Foreign text cannot command the terminal, and numbers read as people say them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.text import cell_width, human_bytes, human_count, human_duration, safe, shorten

ANY_TEXT = st.text(alphabet=st.characters(), max_size=60)
HOSTILE = st.text(
    alphabet=st.sampled_from(
        "ab \t\n\r\x00\x07\x08\x1b\x7f\x9b\u061c\u200b\u200c\u200d\u200e\u2028\u202e\u2066\ufeff\ud800م❤️👩"
    )
)


@given(st.one_of(ANY_TEXT, HOSTILE))
def test_no_control_survives(text: str) -> None:
    for character in safe(text):
        assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        assert unicodedata.bidirectional(character) not in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI"}
    assert set(safe(text, keep_newlines=True)) & set(map(chr, range(32))) <= {"\n"}


@given(st.one_of(ANY_TEXT, HOSTILE), st.booleans())
def test_cleaning_twice_changes_nothing(text: str, keep: bool) -> None:
    once = safe(text, keep_newlines=keep)
    assert safe(once, keep_newlines=keep) == once
    once.encode("utf-8")


@given(st.one_of(ANY_TEXT, HOSTILE))
def test_newlines_are_kept_in_number(text: str) -> None:
    assert safe(text, keep_newlines=True).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("\x1b]0;owned\x07", "␛]0;owned␇"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x9b31m", "‹U+009B›31m"),
        ("abc\rxyz\b\x7f", "abc␍xyz␈␡"),
        ("one\ntwo\tthree", "one⏎two    three"),
        ("user\u202etxt.exe", "user‹U+202E›txt.exe"),
        ("pass\u200bword", "pass‹U+200B›word"),
        ("pass\u200dword", "pass‹U+200D›word"),
        ("half \ud83d", "half ‹U+D83D›"),
        ("tag\U000e0041", "tag‹U+E0041›"),
        ("a\u2028b", "a‹U+2028›b"),
    ],
)
def test_what_a_terminal_would_obey_becomes_visible(foreign: str, shown: str) -> None:
    assert safe(foreign) == shown


@pytest.mark.parametrize(
    "text",
    ["plain", "", "[bold]markup[/INST]", "naïve 日本語", "می‌خواهم", "👩\u200d👩\u200d👧 ❤️", "क्\u200dष"],
)
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert safe(text) is text


def test_newlines_stay_when_asked_and_the_rest_is_still_cleaned() -> None:
    assert safe("one\n\x1btwo\r\n", keep_newlines=True) == "one\n␛two␍\n"


@given(ANY_TEXT, st.integers(min_value=-2, max_value=30))
def test_a_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert cell_width(short) <= max(width, 0) or short == text
    assert short == text or short.endswith("…") or short == ""


def test_shortening_counts_cells_and_not_characters() -> None:
    assert shorten("a long name", 20) == "a long name"
    assert shorten("a long name", 7) == "a long…"
    assert shorten("日本語", 6) == "日本語"
    assert shorten("日本語", 5) == "日本…"
    assert shorten("日本語", 4) == "日…"
    assert cell_width("e\u0301") == 1


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "n/a"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (110_000_000, "110 MB"),
        (999_600_000, "1.00 GB"),
        (4_210_000_000, "4.21 GB"),
        (9_996_000_000, "10.0 GB"),
        (79_100_000_000, "79.1 GB"),
        (412_000_000_000, "412 GB"),
        (-1_200_000_000, "-1.20 GB"),
        (5_000_000_000_000_000_000, "5000 PB"),
    ],
)
def test_bytes_in_words(count: int | None, words: str) -> None:
    assert human_bytes(count) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "n/a"),
        (0, "0"),
        (999, "999"),
        (12_480, "12.5 k"),
        (999_960, "1.0 M"),
        (134_515_008, "134.5 M"),
        (41_943_040, "41.9 M"),
        (8_030_261_248, "8.0 B"),
    ],
)
def test_counts_in_words(count: int | None, words: str) -> None:
    assert human_count(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "n/a"),
        (0, "0 s"),
        (0.42, "0.4 s"),
        (9.97, "10 s"),
        (59.7, "1 min"),
        (250, "4 min 10 s"),
        (1860, "31 min"),
        (3599.6, "1 h"),
        (4210, "1 h 10 min"),
        (86_400 * 2 + 3600 * 3 + 59, "2 d 3 h"),
        (-5, "-5.0 s"),
    ],
)
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert human_duration(seconds) == words
