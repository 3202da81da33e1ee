"""Step 1: which model is trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Label, OptionList, Static

from core.errors import SftuiError
from core.models.catalog import LocalModel, local_models
from core.models.checkpoint_files import ModelNotHereError, resolve_model_folder
from core.models.folders import forget_folder, remember_folder
from core.models.remote_code import CodeNotAllowedError, RemoteCode, allow
from core.paths import expand
from core.text import safe
from tui_app.background import in_thread
from tui_app.draft import model_path
from tui_app.messages import REMOVED, ErrorRaised, ModelChanged
from tui_app.prices import WeightSizes
from tui_app.setup_screen import InfoPane, SetupScreen
from tui_app.widgets.download_panel import Asked, DownloadPanel, in_one_line
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.found_list import FoundList
from tui_app.widgets.hub_list import HubList
from tui_app.widgets.local_list import LocalList, is_path, reference
from tui_app.widgets.model_card import ModelCard
from tui_app.widgets.path_row import PathSuggester

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from tui_app.app import SftuiApp
    from tui_app.draft import Draft

_ASKS = {False: "a folder, a Hugging Face id, or part of a name", True: "part of a name on the hub"}
_SIZES: dict[str, dict[str, Any]] = {
    "In 16 bit": {"load_in_4bit": False, "load_in_8bit": False, "dtype": "bfloat16"},
    "In 8 bit": {"load_in_4bit": False, "load_in_8bit": True, "use_peft": True},
    "In 4 bit, NF4": {
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "use_peft": True,
    },
}


class ModelScreen(SetupScreen):
    """Which model shall be trained?"""

    CSS_PATH = "model.tcss"
    STEP = "model"
    HELP = """Choose the model to train: type a folder, a Hugging Face id, or part of a name or of an architecture.
    ↑ and ↓ move in the list, Enter chooses, Enter again goes on. A folder of models, typed and chosen from, is listed
    from then on; delete in the list forgets it. ctrl+f searches the Hugging Face hub, Enter there shows what a download
    would fetch, Enter again fetches it. The card says what the model's weights take of the device's memory, how it
    is loaded, and why; tab goes there, page up and page down read it from anywhere."""
    AUTO_FOCUS = "#path"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Choose", show=False, tooltip="Choose; what is chosen already is gone on with"),
        Binding(
            "ctrl+f,f6",
            "toggle_hub",
            "Hub",
            priority=True,
            tooltip="Search the Hugging Face hub, or go back to the models on this machine",
        ),
        Binding("ctrl+t", "toggle_vision", "Vision", priority=True, tooltip="Load the model with vision, or text only"),
        Binding("v", "toggle_vision", "Vision", show=False, tooltip="Load the model with vision, or text only"),
        Binding("ctrl+o", "allow_code", "Own code", priority=True, tooltip="See the model's own code, and allow it"),
        Binding("ctrl+x", "stop_download", "Stop", priority=True, tooltip="Stop the download; what is here is kept"),
        Binding("ctrl+r", "look_again", "Look again", show=False, tooltip="Look for models again, or search again"),
        Binding("delete", "forget_folder", "Forget", show=False, tooltip="List the models of this folder no more"),
        Binding("down", "highlight(1)", "Next model", show=False),
        Binding("up", "highlight(-1)", "Previous model", show=False),
        Binding("pagedown", "read(1)", "Read on", show=False, tooltip="Read on in the card"),
        Binding("pageup", "read(-1)", "Read back", show=False, tooltip="Read back in the card"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.local = LocalList(id="models")
        self.hub = HubList(id="hub")
        self.on_hub = False
        self._asked = Asked()
        self._echoes = Echoes()
        self._sizes = WeightSizes(_SIZES)
        self._looked_into = Path()

    @property
    def chosen(self) -> str:
        """The model that the draft names."""
        return model_path(self.draft.values)

    @property
    def found(self) -> FoundList[Any]:
        """The list that is shown."""
        return self.hub if self.on_hub else self.local

    @property
    def sftui(self) -> SftuiApp:
        """The app, which keeps the download."""
        return cast("SftuiApp", self.app)

    def compose_step(self) -> ComposeResult:
        """A field and the list it filters on the left, the chosen model's card on the right."""
        with VerticalScroll(classes="panes", can_focus=False):
            with Vertical(classes="pane choose"):
                yield Label("Which model?", classes="question", markup=False)
                yield Input(
                    placeholder=_ASKS[self.on_hub], id="path", compact=True, suggester=PathSuggester(("config.json",))
                )
                yield Static(id="found", markup=False)
                yield Static(id="note", markup=False)
                yield self.local
                yield self.hub
                yield Static(id="about", markup=False)
                yield Static(id="fetching", markup=False)
            with InfoPane(classes="pane card"):
                yield DownloadPanel()
                yield ModelCard()

    def on_mount(self) -> None:
        """Look for models on this machine, and follow the download."""
        self.hub.display = False
        self.local.find()
        self.watch(self.app, "download", self._download_moved, init=False)

    # What is shown.

    def show_draft(self, draft: Draft) -> None:
        """Show the chosen model."""
        folder = expand(self.chosen).absolute()
        if draft.model_problem is not None and self._looked_into != folder:
            # Perhaps not the model's folder was typed but the one that holds it.
            self._looked_into = folder
            self.run_worker(self._look_into(folder), group="look-into", exclusive=True)
        is_foreign = self._echoes.is_foreign(self.chosen)
        if is_foreign and not self.on_hub:
            self._fill(self.chosen)
        self._show_found()
        self._show_card()

    def _show_found(self) -> None:
        text, chosen = self._typed(), self.chosen
        if self.on_hub:
            here = {model.name for model in self.local.models if model.source == "cache" and model.complete}
            self.hub.show(chosen, here)
        else:
            self.local.show(text, chosen, is_settled=self.draft.model_problem is None)
        hint = "ctrl+f: models on this machine" if self.on_hub else "ctrl+f: search the Hugging Face hub"
        status = self.hub.status() if self.on_hub else self._local_status()
        names = ("Here", "Hub")
        tabs = [(f"[{name}]", "bold") if (name == "Hub") == self.on_hub else (f" {name} ", "") for name in names]
        self.query_one("#found", Static).update(Content.assemble(*tabs, (f"  {status or hint}", "$secondary")))
        problem = self.hub.problem if self.on_hub else None
        note = self.query_one("#note", Static)
        note.display = problem is not None
        if problem is not None:
            what = (f"✗ {safe(problem.title)}. ", "bold $error")
            note.update(Content.assemble(what, safe(problem.message), (f" {safe(problem.hint)}", "$secondary")))
        self.query_one("#about", Static).update(self.found.about())

    def _local_status(self) -> str:
        if self.local.listed:
            return "looking for more models …" if self.local.is_looking else ""
        return "looking for models …" if self.local.is_looking else "none here is called that; ctrl+f searches the hub"

    def _show_card(self) -> None:
        draft, name, state = self.draft, self.chosen, self.sftui.download
        panel, card = self.query_one(DownloadPanel), self.query_one(ModelCard)
        mine = state is not None and state.model_id == name and state.phase != "done" and draft.model is None
        is_unfinished = self._is_unfinished()
        panel.display = bool(name) and (mine or is_unfinished or self._asked.name == name)
        card.display = draft.model is not None or not panel.display
        panel.show_model(name, state if mine else None, self._asked)
        plan = draft.plan
        card.show_model(
            draft.model,
            draft.model_problem,
            waiting=draft.needs_model,
            sizes=self._sizes.of(draft),
            device=plan.device if plan else None,
        )
        fetching = self.query_one("#fetching", Static)
        fetching.display = state is not None and state.is_active and not mine
        if state is not None:
            fetching.update(in_one_line(state))
        self.refresh_bindings()

    def _is_unfinished(self) -> bool:
        """Whether a download may bring what is missing of the chosen model."""
        listed = self.local.named(self.chosen)
        if listed is not None and listed.source == "cache" and not listed.complete:
            return True
        return isinstance(self.draft.model_problem, ModelNotHereError)

    @on(FoundList.Changed)
    def found_more(self, event: FoundList.Changed) -> None:
        """More was found."""
        event.stop()
        self._show_found()
        if not self.on_hub:
            self._show_card()

    @on(OptionList.OptionHighlighted)
    def moved(self, event: OptionList.OptionHighlighted) -> None:
        """Another one is highlighted."""
        event.stop()
        self.query_one("#about", Static).update(self.found.about())

    def _download_moved(self) -> None:
        state = self.sftui.download
        if state is not None and state.phase == "done":
            self._asked = Asked()
            self.local.find()
        if self.is_current:
            self._show_card()

    # What is typed.

    def _typed(self) -> str:
        return self.query_one("#path", Input).value.strip()

    def _fill(self, text: str) -> None:
        path = self.query_one("#path", Input)
        if path.value.strip() != text:
            with path.prevent(Input.Changed):
                path.value = safe(text)
            path.cursor_position = len(path.value)

    @on(Input.Changed, "#path")
    def typed(self, event: Input.Changed) -> None:
        """Typing filters the list, or searches the hub; what is on no list names a model itself."""
        text = event.value.strip()
        if self.on_hub:
            self.hub.search(text)
            return
        self._show_found()
        # Half a name on the list is not yet a model.
        named = text if is_path(text) or not self.local.listed or self.local.named(text) else ""
        self._echoes.typed(named)
        self.change({"model_name_or_path": named or REMOVED})

    async def _look_into(self, folder: Path) -> None:
        self.local.include(await in_thread(lambda: local_models((folder,))[1:] if folder.is_dir() else ()))
        self._show_found()

    # What keys do.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing are not offered."""
        draft, state = self.draft, self.sftui.download
        if action == "toggle_vision":
            return draft.model is not None and bool(draft.model.architecture.alternatives)
        if action == "allow_code":
            problem = draft.model_problem
            return isinstance(problem, CodeNotAllowedError) and not problem.remote.missing
        if action == "stop_download":
            return state is not None and state.phase == "running"
        if action == "forget_folder":
            return self.focused is self.local and self.local.remembered is not None
        return True

    def action_toggle_hub(self) -> None:
        """Search the hub, or show what is on this machine."""
        self.on_hub = not self.on_hub
        self.local.display, self.hub.display = not self.on_hub, self.on_hub
        text = self._typed()
        if not self.on_hub:
            self.hub.stop()
            self._fill(self.chosen or text)
        else:
            text = "" if is_path(text) or self.local.named(text) is not None else text
            self._fill(text)
            if self.hub.text != text or self.hub.problem is not None:
                self.hub.search(text, wait=0)
        path = self.query_one("#path", Input)
        path.placeholder = _ASKS[self.on_hub]
        path.focus()
        self._show_found()

    def action_look_again(self) -> None:
        """Look, or search, again."""
        if self.on_hub:
            self.hub.search(self._typed(), wait=0)
        else:
            self.local.find()

    def submit(self, field: Input) -> None:
        """Enter in the field chooses what is highlighted."""
        self.action_choose()

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Enter in a list chooses, too."""
        event.stop()
        self.action_choose()

    def action_choose(self) -> None:
        """Choose what is highlighted; go on with what is chosen already."""
        text = self._typed()
        if self.on_hub:
            model = self.hub.current
            if "/" in text and (self.hub.is_stale or model is None):
                self._take_id(text)
            elif model is not None and not self.hub.is_stale:
                self._take_id(model.id)
            elif not self.hub.is_searching:
                self.hub.search(text, wait=0)
        elif self.local.current is not None:
            self._take(self.local.current)
        elif self._is_unfinished():
            self._take_id(self.chosen)
        elif self.draft.model_problem is None and self.chosen:
            self.action_next_step()

    def _take(self, model: LocalModel) -> None:
        if model.source == "cache" and not model.complete:
            self._take_id(model.name)
        elif reference(model) != self.chosen:
            typed = expand(self._typed()).absolute()
            if model.source == "folder" and is_path(self._typed()) and typed in (model.path, *model.path.parents):
                self._keep(partial(remember_folder, typed))
            self._choose(reference(model))
        elif self.draft.model_problem is None:
            self.action_next_step()

    def _take_id(self, name: str) -> None:
        """Choose a model of the hub; then ask what its download would fetch; then fetch it."""
        listed = self.local.named(name)
        is_here = listed is not None and listed.complete
        if name != self.chosen:
            self._choose(name)
        elif is_here or (self.draft.model is not None and not self._is_unfinished()):
            self.action_next_step()
            return
        elif self._asked.can_start(name):
            self._start_download(name)
            return
        if "/" not in name and not self.on_hub:
            self.action_toggle_hub()
        elif not is_here:
            self._asked = Asked(name)
            self.run_worker(self._ask(name), group="ask", exclusive=True)
            self._show_card()

    def _choose(self, name: str) -> None:
        if self.on_hub:
            self._echoes.typed(name)
        else:
            self._fill(name)
        # A revision and a way to be loaded were those of another model.
        self.change({"model_name_or_path": name, "model_revision": REMOVED, "sftui.load_as": REMOVED})

    async def _ask(self, name: str) -> None:
        from core.models.download import offer_download

        try:
            asked = Asked(name, await in_thread(partial(offer_download, name, self.draft.model_key[1])))
        except SftuiError as error:
            asked = Asked(name, problem=error)
        if self._asked.name == name:
            self._asked = asked
            self._show_card()

    def _start_download(self, name: str) -> None:
        state = self.sftui.download
        if state is not None and state.is_active:
            if state.model_id != name:
                self.notify(f"{safe(state.model_id)} is being downloaded: ctrl+x stops it.", markup=False)
            return
        self.sftui.downloads.start(name, self.draft.model_key[1])

    def action_stop_download(self) -> None:
        """Stop the download, wherever one is."""
        self.sftui.downloads.cancel()

    def action_toggle_vision(self) -> None:
        """Load the model with its vision tower, or without."""
        if self.draft.model is not None:
            self.change({"sftui.load_as": "text" if self.draft.model.architecture.vision else "vision"})

    def action_allow_code(self) -> None:
        """Show what would run, and ask."""
        from tui_app.dialogs.allow_code import AllowCodeDialog

        problem, (name, revision, _) = self.draft.model_problem, self.draft.model_key
        if isinstance(problem, CodeNotAllowedError):
            dialog = AllowCodeDialog(problem.remote, resolve_model_folder(name, revision))
            self.app.push_screen(dialog, partial(self._allow, name, problem.remote))

    def _allow(self, name: str, remote: RemoteCode, is_allowed: bool | None) -> None:
        if is_allowed:
            self._keep(partial(allow, remote), partial(self.post_message, ModelChanged(name)))

    def action_forget_folder(self) -> None:
        """List the models of a remembered folder no more."""
        if self.local.remembered is not None:
            self._keep(partial(forget_folder, self.local.remembered), self.local.find)

    def _keep(self, write: Callable[[], None], then: Callable[[], object] | None = None) -> None:
        async def work() -> None:
            try:
                await in_thread(write)
            except SftuiError as error:
                self.post_message(ErrorRaised(error))
            else:
                if then is not None:
                    then()

        self.run_worker(work(), group="keep")

    def action_next_step(self) -> None:
        """Go on; a model's folder that was typed is listed from then on."""
        folder = expand(self.chosen).absolute()
        is_typed = is_path(self.chosen) and all(model.path != folder for model in self.local.models)
        if is_typed and self.draft.model is not None:
            self._keep(partial(remember_folder, folder), self.local.find)
        super().action_next_step()

    def action_highlight(self, by: int) -> None:
        """Move in the list from the field."""
        if by > 0:
            self.found.action_cursor_down()
        else:
            self.found.action_cursor_up()

    def action_read(self, by: int) -> None:
        """Scroll the card from the field."""
        card = self.query_one(InfoPane)
        card.scroll_relative(y=by * max(1, card.size.height - 1), animate=False)
