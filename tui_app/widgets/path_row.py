"""A row of a form for a path, with completion by the folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from core.data.readers import DATA_SUFFIXES, PACKED_SUFFIXES
from core.spec.problems import Problem
from core.text import safe
from tui_app.background import in_thread
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.spec_form import FormRow, row_id

_MOST_ENTRIES = 2000


class PathSuggester(Suggester):
    """Completes the last path of a list separated by commas."""

    def __init__(self, suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._suffixes = suffixes

    async def get_suggestion(self, value: str) -> str | None:
        """What the typed path may go on to be; folders end in a slash."""
        last = value.rpartition(",")[2].lstrip()
        if "/" not in last:
            return None
        found = await in_thread(lambda: complete(last, self._suffixes))
        return None if found is None else value[: len(value) - len(last)] + found


def complete(typed: str, suffixes: tuple[str, ...]) -> str | None:
    """The first folder, or file with one of the suffixes, that starts as typed; None if there is none."""
    head, _, start = typed.rpartition("/")
    folder = Path(head + "/").expanduser()
    if not start:
        return None
    matches: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_ENTRIES:
                    break
                if not entry.name.startswith(start) or safe(entry.name) != entry.name:
                    continue
                if entry.is_dir():
                    matches.append(entry.name + "/")
                elif entry.name.endswith(suffixes):
                    matches.append(entry.name)
    except OSError:
        return None
    best = min(matches, default="")
    return f"{head}/{best}" if best not in ("", f"{start}/") else None


class PathRow(FormRow):
    """A path, or several."""

    class Changed(Message):
        """Other paths were typed."""

        def __init__(self, paths: list[str]) -> None:
            super().__init__()
            self.paths = paths

    def __init__(
        self, name: str, title: str, explanation: str, suffixes: tuple[str, ...] = (*DATA_SUFFIXES, *PACKED_SUFFIXES)
    ) -> None:
        self._explanation = explanation
        self._echoes = Echoes()
        editor = Input(placeholder="path", compact=True, select_on_focus=False, suggester=PathSuggester(suffixes))
        super().__init__(title, editor, stacked=True, id=row_id(name))
        self.help = "datasets: Enter goes to the rows. There, f r n p m are keys (?)."

    def concerns(self, field: str) -> bool:
        """Its problems are told by `show_paths`."""
        return False

    def show(self, values: object, problems: Sequence[Problem], note: str = "") -> None:
        """Nothing: `show_paths` does."""

    def show_paths(self, paths: Sequence[str], problems: Sequence[Problem], note: str = "") -> None:
        """Show paths that were set elsewhere, and what is wrong with them, or else what they are."""
        assert isinstance(self.editor, Input)
        if self._echoes.is_foreign(list(paths)) and split_paths(self.editor.value) != list(paths):
            with self.prevent(Input.Changed):
                self.editor.value = safe(", ".join(paths))
        self.tell(problems if paths else [], *((note if paths else "") or self._explanation).split("\n"))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Every key counts."""
        event.stop()
        self._echoes.typed(split_paths(event.value))
        self.post_message(self.Changed(split_paths(event.value)))


def split_paths(text: str) -> list[str]:
    """The paths in a list separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
