"""The question before the start of a run that will probably run out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

if TYPE_CHECKING:
    from textual.app import ComposeResult

Answer = Literal["fit", "start"]


class DoesNotFitDialog(ModalScreen[Answer | None]):
    """Asks whether to make it fit, to start all the same, or neither. The message must be safe to show."""

    DEFAULT_CSS = """
    DoesNotFitDialog { align: center middle; background: $background 60%; }
    DoesNotFitDialog > Vertical {
        width: 72; max-width: 96%; height: auto; max-height: 90%; padding: 1 2;
        background: $surface; border: round $border;
    }
    DoesNotFitDialog .title { text-style: bold; margin-bottom: 1; }
    DoesNotFitDialog Horizontal { height: auto; margin-top: 1; align-horizontal: right; }
    DoesNotFitDialog Button { margin-left: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "answer('fit')", show=False),
        Binding("s", "answer('start')", show=False),
        Binding("n,escape", "dismiss(None)", show=False),
        Binding("left,up,h,k", "app.focus_previous", show=False),
        Binding("right,down,l,j", "app.focus_next", show=False),
    ]

    def __init__(self, message: str) -> None:
        super().__init__()
        self._message = message

    def compose(self) -> ComposeResult:
        """Lay out question and answers."""
        with Vertical():
            yield Static("It does not fit", classes="title", markup=False)
            yield Static(self._message, markup=False)
            with Horizontal():
                yield Button("Back (esc)", id="back", compact=True)
                yield Button("Start anyway (s)", id="start", compact=True)
                yield Button("Make it fit (f)", id="fit", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Enter means the way that ends well."""
        self.query_one("#fit").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take the answer."""
        answers: dict[str | None, Answer] = {"fit": "fit", "start": "start"}
        self.dismiss(answers.get(event.button.id))

    def action_answer(self, answer: Answer) -> None:
        """Take the answer."""
        self.dismiss(answer)
