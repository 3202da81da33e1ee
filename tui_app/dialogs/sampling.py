"""How answers are drawn: temperature and its kin, all on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from core.errors import SftuiError
from core.results.asking import Sampling, with_value

if TYPE_CHECKING:
    from textual.app import ComposeResult

_FIELDS = (
    ("temperature", "Temperature", "0 takes the likeliest token each time"),
    ("top_p", "Top-p", "the likeliest tokens that make up this share"),
    ("top_k", "Top-k", "so many likeliest tokens; 0 is all"),
    ("max_new_tokens", "Longest answer", "tokens"),
    ("seed", "Seed", "the same for both sides"),
)


class SamplingDialog(ModalScreen[Sampling | None]):
    """Gives the sampling that was typed, or None after escape."""

    DEFAULT_CSS = """
    SamplingDialog { align: center middle; background: $background 60%; }
    SamplingDialog > Vertical {
        width: 76; max-width: 94%; height: auto; max-height: 92%; padding: 1 2;
        background: $surface; border: round $border; border-title-color: $foreground;
    }
    SamplingDialog Horizontal { height: auto; margin: 0 0 1 0; }
    SamplingDialog Label { width: 17; }
    SamplingDialog Input { width: 12; margin: 0 2 0 0; background: $panel; }
    SamplingDialog .note { width: 1fr; color: $secondary; }
    SamplingDialog #wrong { color: $error; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave it", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, sampling: Sampling) -> None:
        super().__init__()
        self._sampling = sampling

    def compose(self) -> ComposeResult:
        """A line for each value."""
        with Vertical() as box:
            box.border_title = "How answers are drawn"
            box.border_subtitle = "enter takes it, escape leaves it"
            for name, title, note in _FIELDS:
                with Horizontal():
                    yield Label(title, markup=False)
                    yield Input(f"{getattr(self._sampling, name):g}", compact=True, id=name)
                    yield Static(note, classes="note", markup=False)
            yield Static("", id="wrong", markup=False)

    def on_input_changed(self) -> None:
        """What was wrong may be right by now."""
        self.query_one("#wrong", Static).update("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take what was typed, or say what is wrong with it."""
        event.stop()
        sampling = self._sampling
        try:
            for name, _, _ in _FIELDS:
                sampling = with_value(sampling, name, self.query_one(f"#{name}", Input).value)
        except SftuiError as error:
            self.query_one("#wrong", Static).update(error.message)
            return
        self.dismiss(sampling)

    def action_leave(self) -> None:
        """Leave it as it was."""
        self.dismiss(None)
