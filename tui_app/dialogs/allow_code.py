"""A model's own code: what would run, and the user's permission for exactly that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from core.text import safe

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult

    from core.models.remote_code import RemoteCode

_WORD = "allow"


class AllowCodeDialog(ModalScreen[bool]):
    """Names the files and their revision; only the typed word allows them."""

    DEFAULT_CSS = """
    AllowCodeDialog { align: center middle; background: $background 60%; }
    AllowCodeDialog > Vertical {
        width: 76; max-width: 94%; height: auto; max-height: 92%; padding: 1 2;
        background: $surface; border: round $warning;
    }
    AllowCodeDialog .title { text-style: bold; color: $warning; margin-bottom: 1; }
    AllowCodeDialog VerticalScroll { height: auto; max-height: 9; }
    AllowCodeDialog #word, AllowCodeDialog #word:focus { background: $panel; margin-top: 1; }
    AllowCodeDialog .ask { margin-top: 1; }
    """
    BINDINGS = [
        Binding("escape", "dismiss(False)", "No", show=False),
        Binding("pagedown,down", "read(1)", show=False),
        Binding("pageup,up", "read(-1)", show=False),
    ]

    def __init__(self, remote: RemoteCode, folder: Path) -> None:
        super().__init__()
        self._remote, self._folder = remote, folder

    def compose(self) -> ComposeResult:
        """Lay out what would run, and the field for the word."""
        remote = self._remote
        where, later = str(self._folder), ""
        if remote.missing:
            where = remote.page
            later = "Of these, what is not here is fetched then, with what it imports from the same repository.\n"
        with Vertical():
            yield Static("! This model runs its own code", classes="title", markup=False)
            with VerticalScroll(can_focus=False):
                yield Static(
                    safe(
                        f"Loading it runs these files, which may do anything that you may do on this machine:\n"
                        f"  {chr(10).join(remote.files).replace(chr(10), chr(10) + '  ')}\n"
                        f"{later}"
                        f"Repository  {remote.repository}\nRevision    {remote.revision}\nRead them   {where}",
                        keep_newlines=True,
                    ),
                    markup=False,
                )
            yield Static(
                f"Type {_WORD} and press Enter to allow this repository at this revision and no other. Escape: no.",
                classes="ask",
                markup=False,
            )
            yield Input(placeholder=_WORD, id="word", compact=True)

    def on_mount(self) -> None:
        """The word is typed at once."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Only the word itself counts."""
        event.stop()
        if event.value.strip().lower() == _WORD:
            self.dismiss(True)
        else:
            event.input.value = ""

    def action_read(self, by: int) -> None:
        """Scroll in the files."""
        self.query_one(VerticalScroll).scroll_relative(y=4 * by, animate=False)
