"""Step 1: which model is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from core.models.catalog import LocalModel, local_models
from core.paths import data_home
from core.text import human_bytes, safe
from tui_app.background import in_thread
from tui_app.draft import model_path
from tui_app.messages import REMOVED
from tui_app.prices import WeightSizes
from tui_app.setup_screen import InfoPane, SetupScreen
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.model_card import ModelCard
from tui_app.widgets.path_row import PathSuggester

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

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
_CARD_CHARACTERS = 8192
_SOURCES = {"starter": "built in", "cache": "in the Hugging Face cache"}


class ModelList(OptionList, can_focus=True):
    """Local models; vi keys move too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class ModelScreen(SetupScreen):
    """Which model shall be trained?"""

    CSS_PATH = "model.tcss"
    STEP = "model"
    HELP = """Choose the model to train: type a folder, a Hugging Face id in the local cache, or part of a name.
    ↑ and ↓ move in the list, Enter chooses, Enter again goes on. The card says how the model is loaded and why,
    and what its weights take of the device's memory."""
    AUTO_FOCUS = "#path"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "highlight(1)", "Next model", show=False),
        Binding("up", "highlight(-1)", "Previous model", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._models: tuple[LocalModel, ...] = ()
        self.listed: tuple[LocalModel, ...] = ()
        self._drawn_for: object = None
        self._echoes = Echoes()
        self._sizes = WeightSizes(_SIZES)
        self._looked_into = Path()
        self._license = (Path(), "")

    def compose_step(self) -> ComposeResult:
        """A field and the list it filters on the left, the chosen model's card on the right."""
        with VerticalScroll(classes="panes", can_focus=False):
            with Vertical(classes="pane choose"):
                yield Label("Which model?", classes="question", markup=False)
                yield Input(
                    placeholder="a folder, a Hugging Face id, or part of a name",
                    id="path",
                    compact=True,
                    suggester=PathSuggester(("config.json",)),
                )
                yield Label("Models on this machine", id="found", classes="quiet", markup=False)
                yield ModelList(id="models", markup=False, compact=True)
            with InfoPane(classes="pane card"):
                yield ModelCard()

    def on_mount(self) -> None:
        """Look for models on this machine."""
        self.run_worker(self._find_models(), group="models", exclusive=True)

    async def _find_models(self) -> None:
        self._models = await in_thread(lambda: local_models((Path.cwd(), data_home() / "models")))
        self._filter()

    async def _look_into(self, folder: Path) -> None:
        inside = await in_thread(lambda: local_models((folder,)) if folder.is_dir() else ())
        known = {model.path for model in self._models}
        self._models += tuple(model for model in inside if model.path not in known)
        self._filter()

    async def _read_license(self, folder: Path) -> None:
        self._license = (folder, await in_thread(lambda: read_license(folder)))
        self.show_draft(self.draft)

    def show_draft(self, draft: Draft) -> None:
        """Show the chosen model."""
        if draft.model_problem is not None and self._looked_into != chosen_folder(draft):
            # Perhaps not the model's folder was typed but the one that holds it.
            self._looked_into = chosen_folder(draft)
            self.run_worker(self._look_into(self._looked_into), group="look-into", exclusive=True)
        if draft.model is not None and self._license[0] != draft.model.folder:
            self._license = (draft.model.folder, "")
            self.run_worker(self._read_license(draft.model.folder), group="license", exclusive=True)
        path = self.query_one("#path", Input)
        chosen = model_path(draft.values)
        if self._echoes.is_foreign(chosen) and path.value.strip() != chosen:
            with path.prevent(Input.Changed):
                path.value = safe(chosen)
        self._filter()
        self.query_one(ModelCard).show_model(
            draft.model,
            draft.model_problem,
            waiting=draft.needs_model,
            sizes=self._sizes.of(draft),
            license_name=self._license[1],
            device_bytes=draft.plan.device.total_bytes if draft.plan else None,
        )

    @on(Input.Changed, "#path")
    def typed(self, event: Input.Changed) -> None:
        """Typing filters the list; what is on no list names a model itself."""
        text = event.value.strip()
        self._filter()
        # Half a name on the list is not yet a model.
        named = text if is_path(text) or not self.listed else ""
        self._echoes.typed(named)
        self.change({"model_name_or_path": named or REMOVED})

    def submit(self, field: Input) -> None:
        """Enter chooses what is highlighted; what is chosen already is gone on with."""
        at = self.query_one(ModelList).highlighted
        if at is not None:
            self._take(self.listed[at])
        elif self.draft.model_problem is None and model_path(self.draft.values):
            self.action_next_step()

    @on(OptionList.OptionSelected, "#models")
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Enter in the list chooses, and goes on if that one was chosen already."""
        event.stop()
        self._take(self.listed[event.option_index])

    def action_highlight(self, by: int) -> None:
        """Move in the list from the field."""
        models = self.query_one(ModelList)
        if by > 0:
            models.action_cursor_down()
        else:
            models.action_cursor_up()

    def _take(self, model: LocalModel) -> None:
        if reference(model) == model_path(self.draft.values):
            if self.draft.model_problem is None:
                self.action_next_step()
            return
        path = self.query_one("#path", Input)
        with path.prevent(Input.Changed):
            path.value = safe(reference(model))
        path.cursor_position = len(path.value)
        self.change({"model_name_or_path": reference(model)})

    def _filter(self) -> None:
        text = self.query_one("#path", Input).value.strip()
        chosen = model_path(self.draft.values)
        shown = self._models
        if text and not any(text == reference(model) for model in self._models):
            # A path may be that of a folder which holds models; one that is elsewhere filters nothing.
            shown = matching(self._models, text) or (self._models if text == chosen else ())
        unsettled = not chosen or (self.draft.model_problem is not None and shown is not self._models)
        if self._drawn_for == (shown, chosen, unsettled):
            return
        self._drawn_for = (shown, chosen, unsettled)
        models = self.query_one(ModelList)
        self.listed = shown
        models.set_options([Option(_line(model, chosen)) for model in shown])
        at = next((number for number, model in enumerate(shown) if reference(model) == chosen), None)
        # A model that is on no list must not be lost to the first one by Enter.
        models.highlighted = 0 if at is None and shown and unsettled else at
        words = "Models on this machine" if shown else "No model on this machine is called that."
        self.query_one("#found", Label).update(words)


def chosen_folder(draft: Draft) -> Path:
    """The folder that the model's name would be, if it is one."""
    return Path(model_path(draft.values)).expanduser().absolute()


def read_license(folder: Path) -> str:
    """The licence that the model card's front matter names, or that lies beside it; empty if neither does."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as card:
            head = card.read(_CARD_CHARACTERS)
    except OSError:
        head = ""
    front = head.split("---")[1] if head.startswith("---") and head.count("---") > 1 else ""
    for line in front.splitlines():
        name, _, value = line.partition(":")
        if name == "license" and value.strip():
            return value.strip()
    return "see the file LICENSE" if (folder / "LICENSE").is_file() else ""


def is_path(text: str) -> bool:
    """Whether typed text can only be meant as a folder."""
    return text.startswith(("/", "~", "./", "../"))


def reference(model: LocalModel) -> str:
    """What names a local model in a spec: its id in the cache, else its folder."""
    return model.name if model.source == "cache" else str(model.path)


def matching(models: Sequence[LocalModel], text: str) -> tuple[LocalModel, ...]:
    """The models whose name or folder holds every word of the text."""
    words = text.lower().split()
    if is_path(text):
        words = [str(Path(text).expanduser().absolute()).lower()]
    return tuple(model for model in models if all(word in f"{model.name} {model.path}".lower() for word in words))


def _line(model: LocalModel, chosen: str) -> Content:
    mark = "●" if reference(model) == chosen else " "
    name = {"starter": "starter", "cache": model.name, "folder": model.path.name}[model.source]
    place = f"in {model.path.parent}" if model.source == "folder" else _SOURCES[model.source]
    facts = [human_bytes(model.size_bytes), model.model_type or "", place]
    parts: list[str | tuple[str, str]] = [f"{mark} {safe(name)}"]
    parts.append((f"  {safe('  '.join(filter(None, facts)))}", "$secondary"))
    if model.problem or not model.complete:
        parts.append((f"  ! {safe(model.problem or 'not whole')}", "$warning"))
    return Content.assemble(*parts)
