"""Step 1: which model is trained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from core.errors import SftuiError
from core.models.catalog import LocalModel
from core.models.checkpoint_files import ModelNotHereError, resolve_model_folder
from core.models.folders import forget_folder, remember_folder
from core.models.remote_code import CodeNotAllowedError, CodeNotHereError, RemoteCode, allow
from core.paths import expand
from core.text import safe
from tui_app.background import in_thread
from tui_app.draft import model_path
from tui_app.messages import REMOVED, ErrorRaised, ModelChanged
from tui_app.prices import WeightSizes
from tui_app.setup_screen import InfoPane, SetupScreen
from tui_app.widgets.download_panel import Asked, DownloadPanel, in_one_line
from tui_app.widgets.found_list import FoundList
from tui_app.widgets.local_list import is_path
from tui_app.widgets.model_card import ModelCard
from tui_app.widgets.model_finder import ModelFinder

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from tui_app.app import SftuiApp
    from tui_app.draft import Draft

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
_HUB = "Search the Hugging Face hub, or go back to the models on this machine"
_VISION = "Load the model with vision, or text only"


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
        Binding("ctrl+f,f6", "toggle_hub", "Hub", priority=True, tooltip=_HUB),
        Binding("ctrl+t", "toggle_vision", "Vision", priority=True, tooltip=_VISION),
        Binding("v", "toggle_vision", "Vision", show=False, tooltip=_VISION),
        Binding("ctrl+o", "allow_code", "Own code", priority=True, tooltip="See the model's own code, and allow it"),
        Binding("ctrl+x", "stop_download", "Stop", priority=True, tooltip="Stop the download; what is here is kept"),
        Binding("ctrl+r", "look_again", "Look again", show=False, tooltip="Look for models, or search, again"),
        Binding("delete", "forget_folder", "Forget", show=False, tooltip="List the models of this folder no more"),
        Binding("down", "highlight(1)", "Next model", show=False),
        Binding("up", "highlight(-1)", "Previous model", show=False),
        Binding("pagedown", "read(1)", "Read on", show=False, tooltip="Read on in the card"),
        Binding("pageup", "read(-1)", "Read back", show=False, tooltip="Read back in the card"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.finder = ModelFinder(classes="pane choose")
        self._asked = Asked()
        self._sizes = WeightSizes(_SIZES)

    @property
    def chosen(self) -> str:
        """The model that the draft names."""
        return model_path(self.draft.values)

    @property
    def sftui(self) -> SftuiApp:
        """The app, which keeps the download."""
        return cast("SftuiApp", self.app)

    def compose_step(self) -> ComposeResult:
        """What finds models on the left, the chosen one's card on the right, and the download of another below."""
        with VerticalScroll(classes="panes", can_focus=False):
            yield self.finder
            with InfoPane(classes="pane card"):
                yield DownloadPanel()
                yield ModelCard()
        yield Static(id="fetching", markup=False)

    def on_mount(self) -> None:
        """Follow the download."""
        self.watch(self.app, "download", self._download_moved, init=False)

    def show_draft(self, draft: Draft) -> None:
        """Show the chosen model."""
        self.finder.show(self.chosen, is_settled=draft.model_problem is None)
        self._show_card()

    @on(FoundList.Changed)
    def _show_card(self) -> None:
        draft, name, state = self.draft, self.chosen, self.sftui.download
        panel, card = self.query_one(DownloadPanel), self.query_one(ModelCard)
        mine = state if state is not None and state.model_id == name and draft.model is None else None
        if mine is not None and mine.phase == "done" and draft.model_problem is not None:
            # It is here, and refused: the card says why.
            mine = None
        panel.display = bool(name) and (mine is not None or self._is_unfinished() or self._asked.name == name)
        card.display = draft.model is not None or not panel.display
        panel.show_model(name, mine, self._asked)
        card.show_model(
            draft.model,
            draft.model_problem,
            waiting=draft.needs_model,
            inside=self.finder.models_inside,
            sizes=self._sizes.of(draft),
            device=draft.plan.device if draft.plan else None,
        )
        fetching = self.query_one("#fetching", Static)
        fetching.display = state is not None and state.is_active and mine is None
        if state is not None:
            fetching.update(in_one_line(state))
        self.refresh_bindings()

    def _is_unfinished(self) -> bool:
        """Whether a download may bring what is missing of the chosen model."""
        listed = self.finder.local.named(self.chosen)
        if listed is not None and listed.source == "cache" and not listed.complete:
            return True
        return isinstance(self.draft.model_problem, ModelNotHereError)

    def _download_moved(self) -> None:
        state = self.sftui.download
        if state is not None and state.phase == "done":
            self._asked = Asked()
            self.finder.local.find()
            if self.draft.model is None and state.model_id != self.chosen:
                # A folder of the cache may have got what it lacked, also since a reading that is under way.
                self.post_message(ModelChanged(self.chosen))
        if self.is_current:
            self._show_card()

    # Choosing.

    @on(ModelFinder.Named)
    def named(self, event: ModelFinder.Named) -> None:
        """A model is named by typing it."""
        self.change({"model_name_or_path": event.name or REMOVED})

    def submit(self, field: Input) -> None:
        """Enter in the field chooses what is highlighted."""
        self.finder.take()

    def action_choose(self) -> None:
        """Choose what is highlighted; go on with what is chosen already."""
        self.finder.take()

    @on(ModelFinder.Taken)
    def taken(self, event: ModelFinder.Taken) -> None:
        """Choose a model; one that is not here is asked about, then fetched; go on with what is chosen already."""
        name, model, missing = event.name or self.chosen, event.model, self._missing_code
        if missing is not None and name == self.chosen:
            self._start_download(missing.repository, missing.revision)
        elif model is not None and (model.source != "cache" or model.complete):
            self._take(model, name)
        elif name != self.chosen:
            self._fetch(name)
        elif self.draft.model is not None and not self._is_unfinished():
            self.action_next_step()
        elif name and (self._is_unfinished() or self._asked.name == name):
            self._fetch(name)
        elif is_path(name) and self.draft.model_problem is None:
            self.action_next_step()

    def _take(self, model: LocalModel, name: str) -> None:
        if name != self.chosen:
            typed = self.finder.typed
            folder = expand(typed).absolute()
            if model.source == "folder" and is_path(typed) and folder in (model.path, *model.path.parents):
                self._keep(partial(remember_folder, folder))
            self._choose(name)
        elif self.draft.model_problem is None:
            self.action_next_step()

    def _choose(self, name: str) -> None:
        self.finder.chose(name)
        # A revision and a way to be loaded were those of another model.
        self.change({"model_name_or_path": name, "model_revision": REMOVED, "sftui.load_as": REMOVED})

    def action_next_step(self) -> None:
        """Go on; a model's folder that was typed is listed from then on."""
        folder = expand(self.chosen).absolute()
        if is_path(self.chosen) and not self.finder.local.lists_again(folder):
            # The model may not be read yet; whether it is one is seen in the thread that writes.
            self._keep(partial(remember_folder, folder, of_a_model=True), self.finder.local.find)
        super().action_next_step()

    # Fetching.

    def _fetch(self, name: str) -> None:
        """Choose a model of the hub; then ask what its download would fetch; then fetch it."""
        listed = self.finder.local.named(name)
        is_new = name != self.chosen
        if is_new:
            self._choose(name)
        if listed is not None and listed.complete:
            return
        state = self.sftui.download
        is_begun = state is not None and state.model_id == name and state.phase in ("stopped", "failed")
        if not is_new and (is_begun or self._asked.can_start(name)):
            self._start_download(name, self.draft.model_key[1])
        elif "/" not in name and not self.finder.on_hub:
            self.finder.toggle_hub()
        elif is_new or not self._asked.is_waiting(name):
            self._asked = Asked(name)
            self.run_worker(self._ask(name), group="ask", exclusive=True)
            self._show_card()

    async def _ask(self, name: str) -> None:
        from core.models.download import offer_download

        revision = self.draft.model_key[1] if name == self.chosen else None
        try:
            asked = Asked(name, await in_thread(partial(offer_download, name, revision)))
        except SftuiError as error:
            asked = Asked(name, problem=error)
        if self._asked.name == name:
            self._asked = asked
            self._show_card()

    def _start_download(self, name: str, revision: str) -> None:
        state = self.sftui.download
        if state is None or not state.is_active:
            self.sftui.downloads.start(name, revision)
        elif state.model_id != name:
            self.notify(f"{safe(state.model_id)} is being downloaded: ctrl+x stops it.", markup=False)

    def action_stop_download(self) -> None:
        """Stop the download, whichever model is chosen by now."""
        self.sftui.downloads.cancel()

    # The other keys.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing are not offered."""
        draft, state = self.draft, self.sftui.download
        if action == "toggle_vision":
            return draft.model is not None and bool(draft.model.architecture.alternatives)
        if action == "allow_code":
            problem = draft.model_problem
            return isinstance(problem, CodeNotAllowedError) and problem.remote.allowable
        if action == "stop_download":
            return state is not None and state.phase == "running"
        if action == "forget_folder":
            return self.focused is self.finder.local and self.finder.local.remembered is not None
        return True

    def action_toggle_hub(self) -> None:
        """Search the hub, or show what is on this machine."""
        self.finder.toggle_hub()

    def action_look_again(self) -> None:
        """Look, or search, again."""
        self.finder.look_again()

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
            self._keep(partial(allow, remote), partial(self._allowed, name, remote))

    def _allowed(self, name: str, remote: RemoteCode) -> None:
        self.post_message(ModelChanged(name))
        if remote.missing and name == self.chosen:
            # At the very commit that is allowed: the branch may have moved on.
            self._start_download(remote.repository, remote.revision)

    @property
    def _missing_code(self) -> RemoteCode | None:
        """Code of the chosen model that is allowed, and that a download would bring."""
        problem = self.draft.model_problem
        return problem.remote if isinstance(problem, CodeNotHereError) and problem.remote.fetchable else None

    def action_forget_folder(self) -> None:
        """List the models of a remembered folder no more."""
        folder = self.finder.local.remembered
        if folder is not None:
            self._keep(partial(forget_folder, folder), self.finder.local.find)

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

    def action_highlight(self, by: int) -> None:
        """Move in the list from the field."""
        self.finder.move(by)

    def action_read(self, by: int) -> None:
        """Scroll the card from the field."""
        card = self.query_one(InfoPane)
        card.scroll_relative(y=by * max(1, card.size.height - 1), animate=False)
