"""One row: where it stands, its turns or its tokens, and what is to be said about it; keys go to other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from tui_app.widgets.token_view import Piece, TokenView

if TYPE_CHECKING:
    from textual.app import ComposeResult

Question = Literal["number", "text"]
_KEYS = (
    ("←→", "row"),
    ("g", "go to"),
    ("l", "longest"),
    ("c", "cut"),
    ("e", "untrained"),
    ("/", "find"),
    ("t", "borders"),
    ("v", "turns"),
)


@dataclass(frozen=True)
class RowPage:
    """What is shown of one row."""

    headline: Content
    pieces: Sequence[Piece]
    verdict: Content


class _AskInput(Input):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", show=False)]

    def action_give_up(self) -> None:
        """Ask nothing."""
        self.display = False
        self.post_message(RowView.Asked("text", None))


class RowView(Vertical):
    """One page at a time; who shows pages answers Moved and Asked."""

    DEFAULT_CSS = """
    RowView { height: 1fr; min-height: 6; padding: 0 1; border-left: blank; }
    RowView:focus-within { border-left: outer $accent; }
    RowView > #headline, RowView > #verdict { height: auto; }
    RowView > #row-keys { color: $secondary; height: auto; max-height: 2; }
    RowView > Input, RowView > Input:focus { background: $panel; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "move(1)", "Row", key_display="←→", tooltip="The next and the previous row"),
        Binding("left", "move(-1)", show=False),
    ]

    class Moved(Message):
        """The user wants the row that is so many further."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class Asked(Message):
        """The user typed the number of a row, or a text to look for; None if nothing after all."""

        def __init__(self, question: Question, answer: str | None) -> None:
            super().__init__()
            self.question = question
            self.answer = answer

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._question: Question = "number"

    def compose(self) -> ComposeResult:
        """Headline, text, verdict, keys, and a field that comes when it is needed."""
        yield Static(id="headline", markup=False)
        yield TokenView()
        yield Static(id="verdict", markup=False)
        yield _AskInput(compact=True)
        yield Static(id="row-keys", markup=False)

    def on_resize(self) -> None:
        """Lay the keys out anew: none of them is parted from its word."""
        keys = self.query_one("#row-keys", Static)
        keys.update(_keys_in(self.content_size.width))

    def show(self, page: RowPage) -> None:
        """Show a row."""
        self.query_one("#headline", Static).update(page.headline)
        self.query_one(TokenView).show(page.pieces)
        verdict = self.query_one("#verdict", Static)
        verdict.update(page.verdict)
        verdict.display = bool(page.verdict.plain)

    def action_move(self, by: int) -> None:
        """Another row."""
        self.post_message(self.Moved(by))

    def ask(self, question: Question) -> None:
        """Have a number or a text typed."""
        self._question = question
        field = self.query_one(_AskInput)
        words = {"number": "number of the row", "text": "text to look for, in this row's and the following ones"}
        field.placeholder = words[question]
        field.value = ""
        field.display = True
        self.screen.set_focus(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        """It concerns nobody yet."""
        event.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter takes what was typed."""
        event.stop()
        event.input.display = False
        self.post_message(self.Asked(self._question, event.value.strip() or None))


def _keys_in(width: int) -> Content:
    lines = [Content("")]
    for key, word in _KEYS:
        told = Content.assemble((key, "$accent"), f" {word}  ")
        if lines[-1] and lines[-1].cell_length + told.cell_length - 2 > width:
            lines.append(Content(""))
        lines[-1] += told
    return Content("\n").join(lines)
