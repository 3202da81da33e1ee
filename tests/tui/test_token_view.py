"""Tokens and turns as they are drawn: what is learnt, where rows are cut, and how long they are."""

import pytest
from textual.app import App, ComposeResult

from core.data.seen_row import SeenRow
from tests.tui.helpers import shown, until_shown
from tui_app.shown_row import ShownTokens, turn_pieces, turns
from tui_app.widgets.length_histogram import LengthBin, LengthHistogram, bars, spread
from tui_app.widgets.token_view import Piece, TokenView, wrap

CHAT = [
    ("<|im_start|>", "s"),
    ("user", ""),
    ("\n", ""),
    ("My", ""),
    (" parcel", ""),
    ("<|im_end|>", "se"),
    ("\n", ""),
    ("<|im_start|>", "s"),
    ("assistant", ""),
    ("\n", ""),
    ("Ticket", "t"),
    (": DELIVERY", "t"),
    ("<|im_end|>", "ste"),
    ("\n", ""),
]
"""Tokens with s for special, t for trained, e for the end of a turn."""


def seen_row(tokens: list[tuple[str, str]] | None = None, total: int | None = None) -> SeenRow:
    """A row of such tokens."""
    tokens = CHAT if tokens is None else tokens
    return SeenRow(
        texts=tuple(text for text, _ in tokens),
        trained=tuple("t" in flags for _, flags in tokens),
        special=tuple("s" in flags for _, flags in tokens),
        ends=tuple(at for at, (_, flags) in enumerate(tokens) if "e" in flags),
        tokens=len(tokens) if total is None else total,
        refused=None,
        way="computed",
        choices=(),
        notices=(),
        problems=(),
    )


def drawn(pieces: list[Piece], width: int = 60) -> list[str]:
    """The lines with their marks."""
    return [(line.mark + line.text).rstrip() for line in wrap(pieces, width)]


class Stage(App[None]):
    """One widget on a screen."""

    def __init__(self, widget: TokenView | LengthHistogram) -> None:
        super().__init__()
        self.widget = widget

    def compose(self) -> ComposeResult:
        """The widget."""
        yield self.widget


def test_what_is_learnt_is_in_brackets_on_marked_lines() -> None:
    assert drawn(ShownTokens(seen_row(), 2048).pieces()) == [
        "  <|im_start|>user⏎",
        "  My parcel<|im_end|>⏎",
        "  <|im_start|>assistant⏎",
        "+ [Ticket: DELIVERY<|im_end|>]⏎",
    ]


def test_the_cut_is_drawn_and_what_follows_is_marked() -> None:
    tokens = ShownTokens(seen_row(), 11)
    assert drawn(tokens.pieces())[3:] == [
        "+ [Ticket]",
        "  ╌╌ cut at 11: 3 more tokens are not seen ╌╌",
        "✂ : DELIVERY<|im_end|>⏎",
    ]
    assert tokens.headline() == "14 tokens, 1 trained, 3 cut off"
    assert "An end is cut off" in tokens.verdict().plain


def test_borders_show_where_tokens_end() -> None:
    assert drawn(ShownTokens(seen_row(), None).pieces(borders=True))[1] == "  My│ parcel│<|im_end|>│⏎"


@pytest.mark.parametrize(
    ("change", "max_length", "words", "red"),
    [
        ({}, None, "✓ learnt with the end of its turn, <|im_end|>", False),
        ({12: "se"}, None, "✗ The end of turn <|im_end|> is not learnt: the model will not learn to stop.", True),
        ({12: "st"}, None, "✗ There is no end token in what is learnt: the model will not learn to stop.", True),
        ({10: "", 11: "", 12: "se"}, None, "✗ Nothing of this row is learnt.", True),
        ({}, 10, "✗ Nothing of this row is learnt. All that would be is cut off.", True),
    ],
)
def test_the_verdict_names_what_does_harm(
    change: dict[int, str], max_length: int | None, words: str, red: bool
) -> None:
    tokens = [(text, change.get(at, flags)) for at, (text, flags) in enumerate(CHAT)]
    verdict = ShownTokens(seen_row(tokens), max_length).verdict()
    assert verdict.plain == words
    assert any("$error" in str(span.style) for span in verdict.spans) is red


def test_an_end_that_is_not_learnt_stands_out_among_the_tokens() -> None:
    tokens = [(text, "se" if at == 12 else flags) for at, (text, flags) in enumerate(CHAT)]
    kinds = [piece.kind for piece in ShownTokens(seen_row(tokens), None).pieces()]
    assert kinds[12] == "untrained-end"
    assert kinds.count("untrained-end") == 1, "the end of the user's turn is nothing to learn"


def test_a_row_too_long_to_send_says_how_many_more_there_are() -> None:
    assert drawn(ShownTokens(seen_row(total=50_000), None).pieces())[-1] == "  … and 49,986 tokens more"


def test_words_stay_whole_and_long_ones_are_broken() -> None:
    assert drawn([Piece("one two three fourfourfourfourfourfour")], 20) == [
        "  one two three",
        "  fourfourfourfourfour",
        "  four",
    ]
    assert drawn([Piece("日本語" * 5)], 20) == ["  日本語日本語日本語日", "  本語日本語"]


async def test_hostile_text_is_only_text() -> None:
    view = TokenView()
    view.show([Piece("\x1b]0;x\x07 [/red]\u202e", "trained")])
    async with Stage(view).run_test(size=(60, 6)) as pilot:
        assert "[␛]0;x␇ [/red]‹U+202E›]" in shown(pilot.app)


async def test_only_seen_lines_are_drawn_and_keys_scroll() -> None:
    view = TokenView()
    view.show([Piece("\n".join(f"line {number}" for number in range(100_000)))])
    async with Stage(view).run_test(size=(40, 6)) as pilot:
        view.focus()
        await until_shown(pilot, "line 0⏎")
        await pilot.pause()
        await pilot.press("end")
        await until_shown(pilot, "line 99999")


async def test_without_colour_what_is_learnt_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = TokenView()
    view.show(ShownTokens(seen_row(), None).pieces())
    async with Stage(view).run_test(size=(60, 8)) as pilot:
        assert "+ [Ticket: DELIVERY<|im_end|>]⏎" in shown(pilot.app)


def test_rows_of_every_form_become_turns() -> None:
    assert turns({"prompt": "q", "completion": "a"}) == [("prompt", "q"), ("completion", "a")]
    assert turns(
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    ) == [
        ("user", "q"),
        ("assistant", "a"),
    ]
    assert turns({"text": "t", "id": 1}) == [("text", "t")]
    assert turns({"question": "q", "n": 2}) == [("question", "q"), ("n", "2")]
    assert turns({"messages": ["x", {"role": "user", "content": [{"type": "image"}]}]}) == [
        ("?", "x"),
        ("user", '[{"type": "image"}]'),
    ]
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert turns({"messages": [call]}) == [("assistant", 'tool_calls: [{"function": {"name": "f"}}]')]


def test_turns_have_titles_and_marks() -> None:
    row = {"messages": [{"role": "user", "content": "q\nr"}, {"role": "assistant", "content": "a"}]}
    assert drawn(turn_pieces(row, frozenset({"assistant"}))) == [
        "  User",
        "  q⏎",
        "  r",
        "  Assistant",
        "+ [a]",
    ]


def test_a_histogram_keeps_every_row_at_every_width() -> None:
    bins = [LengthBin(0, 9, 5), LengthBin(10, 19, 3), LengthBin(20, 29, 0), LengthBin(30, 39, 1)]
    for width in (13, 40, 77):
        assert sum(spread(bins, width)) == pytest.approx(9)
    assert bars([8, 4, 0, 0.01], 2) == ["█   ", "██ ▁"]


async def test_a_histogram_marks_the_cut() -> None:
    chart = LengthHistogram()
    chart.show([LengthBin(0, 999, 50), LengthBin(1000, 3999, 2)], 2048)
    async with Stage(chart).run_test(size=(60, 6)) as pilot:
        assert "✂ 2,048" in shown(pilot.app)
        assert "3,999" in shown(pilot.app)
        assert "┊" in shown(pilot.app)
        chart.show([LengthBin(0, 999, 50)], 2048)
        await pilot.pause()
        assert "✂" not in shown(pilot.app), "nothing is cut"
