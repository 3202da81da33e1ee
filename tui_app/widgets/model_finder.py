"""Where models are looked for: one field, what is on this machine, and what the hub has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, OptionList, Static

from core.models.catalog import LocalModel, models_in
from core.paths import expand
from core.text import safe
from tui_app.background import in_thread
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.found_list import FoundList
from tui_app.widgets.hub_list import HubList
from tui_app.widgets.local_list import LocalList, is_path, reference
from tui_app.widgets.path_row import PathSuggester

if TYPE_CHECKING:
    from textual.app import ComposeResult

_ASKS = {False: "a folder, a Hugging Face id, or part of a name", True: "part of a name on the hub"}
_HINTS = {False: "ctrl+f: search the Hugging Face hub", True: "ctrl+f: models on this machine"}


class ModelFinder(Vertical):
    """A field that filters the models of this machine or searches the hub; nothing is asked of the hub unasked."""

    class Named(Message):
        """What is typed names a model itself; empty when it does not."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class Taken(Message):
        """Enter was pressed on a model, or, with neither, where none is highlighted."""

        def __init__(self, name: str = "", model: LocalModel | None = None) -> None:
            super().__init__()
            self.name = name
            self.model = model

    def __init__(self, *, classes: str) -> None:
        super().__init__(classes=classes)
        self.local = LocalList(id="models")
        self.hub = HubList(id="hub")
        self.on_hub = False
        self._chosen = ""
        self._is_settled = True
        self._echoes = Echoes()
        self._looked_into = Path()

    def compose(self) -> ComposeResult:
        """The field, what it found, and a word about what one is on."""
        yield Label("Which model?", classes="question", markup=False)
        yield Input(placeholder=_ASKS[False], id="path", compact=True, suggester=PathSuggester(("config.json",)))
        yield Static(id="found", markup=False)
        yield Static(id="note", markup=False)
        yield self.local
        yield self.hub
        yield Static(id="about", markup=False)

    def on_mount(self) -> None:
        """Look for models on this machine."""
        self.hub.display = False
        self.local.find()

    @property
    def found(self) -> FoundList[Any]:
        """The list that is shown."""
        return self.hub if self.on_hub else self.local

    @property
    def typed(self) -> str:
        """What is in the field."""
        return self.query_one("#path", Input).value.strip()

    def show(self, chosen: str, *, is_settled: bool) -> None:
        """Show which model is chosen, and whether it can be read."""
        self._chosen, self._is_settled = chosen, is_settled
        folder = expand(chosen).absolute()
        if not is_settled and self._looked_into != folder:
            # Perhaps not the model's folder was typed but the one that holds it.
            self._looked_into = folder
            self.run_worker(self._look_into(folder), group="look-into", exclusive=True)
        if self._echoes.is_foreign(chosen) and not self.on_hub:
            self.fill(chosen)
        self._show_found()

    async def _look_into(self, folder: Path) -> None:
        self.local.include(await in_thread(lambda: tuple(models_in((folder,)))))
        self.post_message(FoundList.Changed())

    @property
    def models_inside(self) -> int:
        """How many models lie in the folder that is typed."""
        folder = expand(self.typed).absolute()
        return sum(folder == model.path.parent for model in self.local.models) if is_path(self.typed) else 0

    def fill(self, text: str) -> None:
        """Write into the field, as if it had been typed."""
        path = self.query_one("#path", Input)
        if path.value.strip() != text:
            with path.prevent(Input.Changed):
                path.value = safe(text)
            path.cursor_position = len(path.value)

    def chose(self, name: str) -> None:
        """A model is chosen that was found here: name it in the field, or keep what the hub was searched for."""
        if self.on_hub:
            self._echoes.typed(name)
        else:
            self.fill(name)

    def _show_found(self) -> None:
        if self.on_hub:
            here = {model.name for model in self.local.models if model.source == "cache" and model.complete}
            self.hub.show(self._chosen, here)
        else:
            self.local.show(self.typed, self._chosen, is_settled=self._is_settled)
        status = self.hub.status() if self.on_hub else self._local_status()
        names = {"Here": not self.on_hub, "Hub": self.on_hub}
        tabs = [(f"[{name}]", "bold") if shown else (f" {name} ", "") for name, shown in names.items()]
        words = (f"  {status or _HINTS[self.on_hub]}", "$secondary")
        self.query_one("#found", Static).update(Content.assemble(*tabs, words))
        problem = self.hub.problem if self.on_hub else None
        note = self.query_one("#note", Static)
        note.display = problem is not None
        if problem is not None:
            what = (f"✗ {safe(problem.title)}. ", "bold $error")
            note.update(Content.assemble(what, safe(problem.message), (f" {safe(problem.hint)}", "$secondary")))
        self.query_one("#about", Static).update(self.found.about())

    def _local_status(self) -> str:
        if self.local.is_looking:
            return "looking for models …"
        return "" if self.local.listed else "none here is called that; ctrl+f searches the hub"

    @on(FoundList.Changed)
    def found_more(self) -> None:
        """More was found."""
        self._show_found()

    @on(OptionList.OptionHighlighted)
    def moved(self, event: OptionList.OptionHighlighted) -> None:
        """Another one is highlighted."""
        event.stop()
        self.query_one("#about", Static).update(self.found.about())

    @on(Input.Changed, "#path")
    def text_changed(self, event: Input.Changed) -> None:
        """Typing filters the list, or searches the hub; what is on no list names a model itself."""
        event.stop()
        text = event.value.strip()
        if self.on_hub:
            self.hub.search(text)
            return
        self._show_found()
        # Half a name on the list is not yet a model.
        named = text if is_path(text) or not self.local.listed or self.local.named(text) else ""
        self._echoes.typed(named)
        self.post_message(self.Named(named))

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Enter in a list takes what is highlighted."""
        event.stop()
        self.take()

    def take(self) -> None:
        """Take what is highlighted, or the id that is typed."""
        text = self.typed
        if not self.on_hub:
            model = self.local.current
            self.post_message(self.Taken(reference(model) if model else "", model))
            return
        found = None if self.hub.is_stale else self.hub.current
        if found is not None:
            self.post_message(self.Taken(found.id))
        elif "/" in text:
            self.post_message(self.Taken(text))
        elif not self.hub.is_searching:
            self.look_again()

    def look_again(self) -> None:
        """Look for models, or search the hub, again."""
        if self.on_hub:
            self.hub.search(self.typed, wait=0)
        else:
            self.local.find()

    def toggle_hub(self) -> None:
        """Search the hub, or show what is on this machine."""
        self.on_hub = not self.on_hub
        self.local.display, self.hub.display = not self.on_hub, self.on_hub
        text = self.typed
        if not self.on_hub:
            self.hub.stop()
            self.fill(self._chosen or text)
        else:
            text = "" if is_path(text) or self.local.named(text) is not None else text
            self.fill(text)
            if self.hub.text != text or self.hub.problem is not None:
                self.hub.search(text, wait=0)
        path = self.query_one("#path", Input)
        path.placeholder = _ASKS[self.on_hub]
        path.focus()
        self._show_found()

    def move(self, by: int) -> None:
        """Move in the list from the field."""
        if by > 0:
            self.found.action_cursor_down()
        else:
            self.found.action_cursor_up()
