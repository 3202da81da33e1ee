"""Take what a run has made elsewhere: what, where to, what it takes, how far it is, and where it is then."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Input, Static

from core.errors import SftuiError
from core.results.exporting import KINDS, Exported, ExportProgress, ExportRequest, Kind, where
from core.text import human_bytes, safe
from tui_app import messages
from tui_app.background import in_thread
from tui_app.dialogs.confirm import ConfirmDialog
from tui_app.widgets.editors import ChoiceEditor, SwitchEditor
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.spec_form import FormRow
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult

    from core.results.export_log import ExportState
    from core.results.result import Result
    from core.runs.folder import RunFolder

_LABELS: Mapping[str, str] = {
    "adapter": "adapter",
    "merged": "merged model",
    "gguf": "GGUF",
    "trl": "TRL's form",
    "push": "to the hub",
}
# Rows beside what, of what and where, and the kinds that they are about.
_ROWS: Mapping[str, tuple[Kind, ...]] = {
    "base-id": ("adapter", "merged", "push"),
    "compare": ("merged", "gguf"),
    "llama-cpp": ("gguf",),
    "public": ("push",),
}
_LOOK_SECONDS = 0.5


class ExportScreen(Screen[None]):
    """The form, and the last export of the run; what is started goes on when one leaves."""

    CSS_PATH = "export.tcss"
    HELP = (
        "What a run has made, in a form for elsewhere. It is written beside its place and put there when it is whole; "
        "a process of its own does it, and goes on when you leave. What was cut off is gone on with at the next start."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", priority=True, tooltip="Start the export"),
        Binding("x", "cancel", "Cancel", tooltip="End the export that is going on"),
        Binding("down,j", "app.focus_next", show=False),
        Binding("up,k", "app.focus_previous", show=False),
        Binding("escape", "leave", "Leave", tooltip="Leave; an export goes on"),
    ]

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.state: ExportState | None = None
        self.results: tuple[Result, ...] = ()
        self._kind: Kind = "adapter"
        self._targets: dict[Kind, str] = {}
        self._log: Path | None = None
        self._starting = False
        self._shown: Content | None = None

    def compose(self) -> ComposeResult:
        """The form, the start, and what is going on."""
        yield StepHeader(title=f"Export   {self.folder.id}")
        with VerticalScroll(id="form", can_focus=False):
            yield FormRow("What", ChoiceEditor(_LABELS, "adapter", id="kind"), stacked=True, id="kind-row")
            yield Static("", id="about", markup=False)
            yield FormRow("Of", ChoiceEditor({"result": "result"}, "result", id="which"), stacked=True, id="which-row")
            yield FormRow("Where", Input(compact=True, id="target"), stacked=True, id="target-row")
            yield FormRow(
                "Base on the hub",
                Input(placeholder="OWNER/NAME, if it has one", compact=True, id="base"),
                stacked=True,
                id="base-id",
            )
            yield FormRow("Compare", SwitchEditor(True, id="comparing"), stacked=False, id="compare")
            yield FormRow(
                "llama.cpp",
                Input(placeholder="its folder; else $LLAMA_CPP or $PATH", compact=True, id="sources"),
                stacked=True,
                id="llama-cpp",
            )
            yield FormRow("Everybody sees it", SwitchEditor(False, id="open"), stacked=False, id="public")
            yield Static("", id="room", markup=False)
            with Horizontal(id="start-row"):
                yield Button("Start  ctrl+s", id="start", variant="primary", compact=True)
        yield Static("", id="steps", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """See what there is, and what goes on already."""
        self.query_one("#compare", FormRow).tell((), "holds the merged model against the adapter on its base")
        self.query_one("#public", FormRow).tell((), "a repository that is made for it is private otherwise")
        self._show_kind()
        self.query_one("#kind").focus()
        self.set_interval(_LOOK_SECONDS, self._look)
        self._find()

    @work(group="find")
    async def _find(self) -> None:
        from core.results.export_log import newest
        from core.results.result import choices

        self.results = await in_thread(lambda: choices(self.folder))
        self._log = await in_thread(lambda: newest(self.folder))
        names = {result.name: result.name for result in self.results} or {"result": "nothing there"}
        self.query_one("#which", ChoiceEditor).show(next(iter(names)), names)
        if self.results and self.results[0].kind == "model" and self._kind == "adapter":
            self.query_one("#kind", ChoiceEditor).show("merged")
            self._kind = "merged"
        self._show_kind()
        self._look()

    # The form.

    @on(ChoiceEditor.Changed)
    def _chosen(self, event: ChoiceEditor.Changed) -> None:
        if event.editor.id == "kind":
            self._targets[self._kind] = self.query_one("#target", Input).value
            self._kind = cast("Kind", event.value)
        self._show_kind()

    @on(Input.Changed, "#target")
    def _retargeted(self) -> None:
        self._show_room()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes on to the next field."""
        event.stop()
        self.focus_next()

    def _show_kind(self) -> None:
        kind = self._kind
        self.query_one("#about", Static).update(f"{KINDS[kind]}.")
        for name, kinds in _ROWS.items():
            self.query_one(f"#{name}", FormRow).display = kind in kinds
        self.query_one("#which-row", FormRow).display = kind != "trl"
        target = self.query_one("#target", Input)
        target.placeholder = "OWNER/NAME" if kind == "push" else ""
        with target.prevent(Input.Changed):
            target.value = self._targets.get(kind, self._default_target(kind))
        self._show_room()

    def _default_target(self, kind: Kind) -> str:
        if kind == "push":
            return ""
        name = f"{self.folder.id}.gguf" if kind == "gguf" else f"{self.folder.id}-{kind}"
        return str(Path.home() / "sftui-exports" / name)

    @property
    def _step(self) -> int | None:
        chosen = self.query_one("#which", ChoiceEditor).value
        return next((result.step for result in self.results if result.name == chosen), None)

    @work(group="room", exclusive=True)
    async def _show_room(self) -> None:
        from core.results.sizes import estimated_bytes

        kind, step, target = self._kind, self._step, self.query_one("#target", Input).value.strip()
        size = await in_thread(lambda: estimated_bytes(self.folder, kind, step))
        takes = f"takes about {human_bytes(size)}" if size is not None else "how much it takes is not known"
        if kind == "push":
            self._say_room(f"{takes} to upload; those who are logged in may: hf auth login", "")
            return
        free = await in_thread(partial(_free, where(target))) if target else None
        free_words = f"; {human_bytes(free)} are free there" if free is not None else ""
        lacks = size is not None and free is not None and size > free
        self._say_room(("✗ " if lacks else "") + takes + free_words, "$error" if lacks else "$secondary")

    def _say_room(self, words: str, style: str) -> None:
        self.query_one("#room", Static).update(Content.styled(words, style or "$secondary"))

    # The start.

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Start the export, or ask about what is there already."""
        if self._starting or (self.state is not None and self.state.alive):
            self.notify("Wait for the one that is going on, or end it: x", markup=False)
            return
        target = self.query_one("#target", Input).value.strip()
        if not target:
            self.notify("Say where to.", severity="error", markup=False)
            self.query_one("#target").focus()
            return
        request = ExportRequest(
            kind=self._kind,
            target=target if self._kind == "push" else str(where(target)),
            step=None if self._kind == "trl" else self._step,
            base_id=self.query_one("#base", Input).value.strip() or None,
            compare=self.query_one("#comparing", SwitchEditor).value,
            llama_cpp=self.query_one("#sources", Input).value.strip() or None,
            public=self.query_one("#open", SwitchEditor).value,
        )
        self._starting = True
        self._check_and_begin(request)

    @work(group="start")
    async def _check_and_begin(self, request: ExportRequest) -> None:
        from core.results.beside import refuse_existing

        path, is_file = where(request.target), request.kind == "gguf"
        if request.kind != "push":
            try:
                await in_thread(lambda: refuse_existing(path, force=False, is_file=is_file))
            except SftuiError as error:
                self._offer_to_replace(request, path, error, is_file=is_file)
                return
        await self._begin(request)

    @work(group="replace")
    async def _offer_to_replace(self, request: ExportRequest, path: Path, error: SftuiError, *, is_file: bool) -> None:
        from core.results.beside import refuse_existing

        try:
            await in_thread(lambda: refuse_existing(path, force=True, is_file=is_file))
        except SftuiError:
            self._starting = False
            self.post_message(messages.ErrorRaised(error))
            return
        words = f"{safe(str(path))} is an earlier export."
        yes = await self.app.push_screen_wait(ConfirmDialog("Replace it?", words, "Replace it", "Leave it"))
        if yes:
            values = {name: getattr(request, name) for name in request.__dataclass_fields__}
            await self._begin(ExportRequest(**{**values, "force": True}))
        self._starting = False

    async def _begin(self, request: ExportRequest) -> None:
        from core.results.export_log import start_in_background

        try:
            self._log = await in_thread(lambda: start_in_background(self.folder, request))
        except OSError as error:
            self.post_message(messages.ErrorRaised(error))
        finally:
            self._starting = False
        self._look()

    # What is going on.

    @work(group="look", exclusive=True)
    async def _look(self) -> None:
        from core.results.export_log import read_export

        log = self._log
        if log is None or (self.state is not None and not self.state.alive and self._followed == log):
            return
        state = await in_thread(lambda: read_export(log))
        before, self.state, self._followed = self.state, state, log
        if state is None:
            return
        content = _told(state)
        if content != self._shown:
            self._shown = content
            self.query_one("#steps", Static).update(content)
            self.add_class("-telling")
        if before is None or before.alive != state.alive:
            self.refresh_bindings()

    _followed: Path | None = None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to end only what goes on."""
        return self.state is not None and self.state.alive if action == "cancel" else True

    @work(group="cancel")
    async def action_cancel(self) -> None:
        """End the export that is going on."""
        from core.results.export_log import cancel_export

        log = self._log
        if log is not None:
            await in_thread(lambda: cancel_export(log))
            self._look()

    def action_leave(self) -> None:
        """Leave; an export goes on."""
        self.app.pop_screen()


def _told(state: ExportState) -> Content:
    """Each step on a line, then what came of it."""
    what = f"{KINDS[state.request.kind]}, to {state.request.target}"
    lines = [Content.styled(safe(what), "$secondary")]
    for number, step in enumerate(state.steps):
        last = number == len(state.steps) - 1
        mark = ("●", "$accent") if last and state.outcome is None else ("✓", "$success")
        if last and isinstance(state.outcome, SftuiError):
            mark = ("✗", "$error")
        # How far a step is says nothing once it is done.
        share = _share(step) if last and not isinstance(state.outcome, Exported) else ""
        lines.append(Content.assemble(mark, f" {safe(step.step)}", (share, "$secondary")))
    match state.outcome:
        case Exported() as made:
            there = f"{safe(made.path)}   {human_bytes(made.size_bytes)}"
            lines += [Content(""), Content.assemble(("✓ ", "$success"), (there, "bold"))]
            lines += [Content.assemble((f"{safe(name)}  ", "$secondary"), safe(words)) for name, words in made.facts]
        case SftuiError() as error:
            lines += [Content(""), Content.styled(safe(f"✗ {error.title}: {error.message}"), "$error")]
            lines += [Content(safe(error.hint))] if error.hint else []
    return Content("\n").join(lines)


def _share(step: ExportProgress) -> str:
    if not step.total:
        return ""
    filled = round(20 * min(step.done, step.total) / step.total)
    return f"  ▕{'█' * filled}{' ' * (20 - filled)}▏ {min(1.0, step.done / step.total):.0%}"


def _free(target: Path) -> int | None:
    there = next((folder for folder in (target, *target.parents) if folder.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None
