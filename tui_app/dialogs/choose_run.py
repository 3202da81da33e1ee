"""Asks for one of the other runs that have made something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from core.runs.folder import RunFolder, all_runs
from core.text import safe, shorten
from tui_app import format as words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from core.runs.folder import RunSummary


class ChooseRun(ModalScreen[RunFolder | None]):
    """A run, or None after escape. The first `alike` runs started from the same model."""

    DEFAULT_CSS = """
    ChooseRun { align: center middle; background: $background 60%; }
    ChooseRun > Vertical {
        width: 96; max-width: 98%; height: auto; max-height: 90%; padding: 0 1;
        background: $surface; border: round $border; border-title-color: $foreground;
    }
    ChooseRun OptionList, ChooseRun OptionList:focus { background: $surface; border: none; padding: 0; }
    ChooseRun OptionList { height: auto; max-height: 1fr; margin: 1 0; scrollbar-size-vertical: 1; }
    ChooseRun OptionList { text-wrap: nowrap; text-overflow: ellipsis; }
    ChooseRun .option-list--option { padding: 0; }
    ChooseRun Static { color: $secondary; }
    """
    BINDINGS = [
        Binding("escape", "leave", "Leave it", show=False),
        Binding("j", "app.simulate_key('down')", show=False),
        Binding("k", "app.simulate_key('up')", show=False),
    ]

    def __init__(self, runs: Sequence[RunSummary], alike: int) -> None:
        super().__init__()
        self._runs = runs
        self._alike = alike

    def compose(self) -> ComposeResult:
        """A line a run."""
        with Vertical() as box:
            box.border_title = "Ask another run the same"
            box.border_subtitle = "enter takes it, escape leaves it"
            yield OptionList(*(Option(self._line(number)) for number in range(len(self._runs))), markup=False)
            yield Static("= started from the same model: in memory once. Others bring their own.", markup=False)

    def _line(self, number: int) -> Content:
        run = self._runs[number]
        sign = "=" if number < self._alike else " "
        loss = words.short_loss(run.held_out if run.held_out is not None else run.loss)
        kind = "held-out" if run.held_out is not None else "loss"
        model = shorten(safe(run.model.rstrip("/").rpartition("/")[2]), 16)
        return Content.assemble(
            (f"{sign} ", "$success"), f"{shorten(safe(run.id), 38):38}  ", (f"{model:16}  {kind} {loss}", "$secondary")
        )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take the run under the cursor."""
        event.stop()
        self.dismiss(RunFolder(self._runs[event.option_index].path))

    def action_leave(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)


def runs_to_ask(folder: RunFolder) -> tuple[list[RunSummary], int]:
    """The other runs that have made something, and how many of them, the first ones, started from the same model.

    Reads the disk: not for the event loop.
    """
    from core.results.result import choices
    from core.runs.table import RunTable

    table = RunTable()
    model = table.ended(folder).model
    ended = (one for one in all_runs() if one.path != folder.path and not one.is_alive())
    found = [table.ended(one) for one in ended if choices(one)]
    alike = [run for run in found if run.model == model]
    return [*alike, *(run for run in found if run.model != model)], len(alike)
