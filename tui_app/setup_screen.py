"""What the five steps of the set-up have in common: header, memory bar, the draft they show, and going on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static

from core.data.request import check_held_out_request
from core.spec.build import value_of
from core.spec.run_spec import options
from core.text import safe
from tui_app.draft import Draft, Step
from tui_app.held_out import HeldOut, HeldOutKey, read_held_out
from tui_app.messages import DraftChanged, StepRequested
from tui_app.prices import row_price
from tui_app.room_words import in_words
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.memory_bar import MemoryBar, Told
from tui_app.widgets.memory_parts import holders
from tui_app.widgets.spec_form import FormRow
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.data.data_problems import BadRows

# Half a path is not worth a look.
_READ_DELAY_SECONDS = 0.15
STEPS: tuple[Step, ...] = ("model", "data", "precision", "training", "review")


class InfoPane(VerticalScroll):
    """Something to read: arrows and vi keys scroll it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
    ]


class SetupScreen(Screen[None]):
    """A step: subclasses lay out `compose_step` and show a draft in `show_draft`."""

    DEFAULT_CSS = """
    SetupScreen .pane { height: auto; width: 1fr; padding: 0 1 0 0; }
    SetupScreen .panes { height: 1fr; layout: vertical; overflow-y: auto; }
    SetupScreen #help-line { height: 1; padding: 0 1; color: $secondary; }
    SetupScreen.-narrow #help-line { height: 2; }
    SetupScreen.-narrow MemoryBar { height: 6; }
    SetupScreen .pane:focus { border-left: outer $accent; }
    SetupScreen .pane { border-left: blank; }
    SetupScreen .question { text-style: bold; padding: 0 1; margin: 0 0 1 0; }
    SetupScreen.-short .question { margin: 0; }
    SetupScreen.-wide .panes, SetupScreen.-very-wide .panes { layout: horizontal; overflow-y: hidden; }
    SetupScreen .first { width: 3fr; }
    SetupScreen .second { width: 2fr; }
    SetupScreen.-narrow .first, SetupScreen.-narrow .second { width: 1fr; }
    SetupScreen.-wide .pane, SetupScreen.-very-wide .pane { height: 1fr; overflow-y: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # A field has its own Enter, which would hide this one from the footer.
        Binding("enter", "next_step", "Next step", show=False, tooltip="Go on to the next step"),
        Binding("ctrl+n", "next_step", "Next", tooltip="Go on to the next step"),
        Binding("escape", "app.go_back", "Back", tooltip="Back to where you came from; nothing is lost"),
    ]
    STEP: ClassVar[Step] = "model"
    ALWAYS_PRICED: ClassVar[frozenset[str]] = frozenset()
    """Ids of rows whose note is their price."""

    def __init__(self) -> None:
        super().__init__()
        self._held_out = HeldOut()
        self._held_out_for: HeldOutKey | None = None

    def compose(self) -> ComposeResult:
        """Header, the step itself, memory bar, footer."""
        yield StepHeader(current=self.STEP)
        yield from self.compose_step()
        yield Static(id="help-line", markup=False)
        yield MemoryBar()
        yield KeyFooter()

    def compose_step(self) -> ComposeResult:
        """Lay out what this step asks."""
        raise NotImplementedError

    def show_draft(self, draft: Draft) -> None:
        """Show what is set and what is known."""
        raise NotImplementedError

    def look_at_held_out_rows(self, draft: Draft) -> HeldOut:
        """What the held-out file holds as far as it is read; what is not yet is read, and then shown."""
        request = check_held_out_request(draft.values)
        form = draft.data.form if draft.data else None
        bad_rows: BadRows = "skip" if value_of(draft.values, "sftui.bad_rows") == "skip" else "stop"
        key = HeldOutKey(request, form, bad_rows) if request else None
        if key != self._held_out_for:
            self._held_out_for = key
            self._held_out = HeldOut()
            if key is not None:
                self.run_worker(self._read_held_out(key), group="held-out", exclusive=True)
        return self._held_out

    async def _read_held_out(self, key: HeldOutKey) -> None:
        await asyncio.sleep(_READ_DELAY_SECONDS)
        found = await read_held_out(key)
        if self._held_out_for == key:
            self._held_out = found
            self._follow()

    @property
    def draft(self) -> Draft:
        """The app's draft; an empty one while there is none."""
        return cast("Draft | None", cast("Any", self.app).draft) or Draft()

    def offer(self, draft: Draft) -> str:
        """The key that would make it fit or faster; none on most steps."""
        return ""

    def reasons(self, draft: Draft) -> dict[str, str]:
        """What sftui chose for options left to it, and why."""
        declared = options()
        choices = draft.plan.choices if draft.plan else ()
        named = {(choice.name if choice.name in declared else f"sftui.{choice.name}"): choice for choice in choices}
        return {name: f"{choice.value}: {choice.reason}" for name, choice in named.items() if name in declared}

    def change(self, changes: dict[str, Any]) -> None:
        """Ask the app to change the draft."""
        self.post_message(DraftChanged(changes))

    def on_mount(self) -> None:
        """Follow the draft and the machine."""
        self.watch(self.app, "draft", self._follow, init=False)
        self.watch(self.app, "machine", self._name_machine)
        self._follow()

    def on_descendant_focus(self) -> None:
        """Explain the option one is on, and keep all of it in sight."""
        above = self.focused.ancestors if self.focused else ()
        row = next((node for node in above if isinstance(node, FormRow)), None)
        self.query_one("#help-line", Static).update("" if row is None else safe(row.help))
        self._tell_price()
        if row is not None:
            # After the notes have their height: before that, there is nothing to scroll rightly.
            self.call_after_refresh(self._bring_into_sight, row)

    def _bring_into_sight(self, row: FormRow) -> None:
        if row is next(iter(self.query(FormRow)), None):
            for pane in (*self.query(".panes"), *self.query(".first")):
                pane.scroll_home(animate=False)
        else:
            row.scroll_visible(animate=False)

    def _tell_price(self) -> None:
        """Say what other values of the option one is on would cost; that of the one before goes."""
        for row in self.query(FormRow):
            is_told = row.has_pseudo_class("focus-within") and row.id not in self.ALWAYS_PRICED
            row.tell_price(row_price(self.draft, row.id) if is_told else "")

    def on_screen_resume(self) -> None:
        """Catch up with what changed while another screen was shown."""
        self._follow()
        self.call_after_refresh(self._rest_if_filled)

    def _rest_if_filled(self) -> None:
        # The digit that goes to another step would be typed into a field that is filled in already.
        if isinstance(self.focused, Input) and self.focused.value:
            self.set_focus(None)

    def on_form_row_edited(self, message: FormRow.Edited) -> None:
        """What was typed or chosen goes to the draft as it is."""
        self.change(message.changes)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Enter counts in a field, too."""
        message.stop()
        self.submit(message.input)

    def submit(self, field: Input) -> None:
        """Enter was pressed in a field: go on."""
        self.action_next_step()

    def action_next_step(self) -> None:
        """Go on to the next step."""
        at = STEPS.index(self.STEP)
        if at + 1 < len(STEPS):
            self.post_message(StepRequested(STEPS[at + 1]))

    def _name_machine(self, machine: str) -> None:
        self.query_one(StepHeader).show(machine=machine)

    def _follow(self) -> None:
        # A step in the background would draw for nobody on every key; it catches up when it is shown.
        if not self.is_current:
            return
        draft = self.draft
        # A tick on the last step would say that the run is done.
        self.query_one(StepHeader).show(done=frozenset(step for step in STEPS[:-1] if draft.done(step)))
        declared = options()
        titles = tuple(declared[name].title for name in draft.left_out if name in declared)
        waiting = "no plan for these values: see the problems" if draft.gpus else ""
        told = Told(titles, waiting, holders(draft.chosen_gpu), in_words(draft), self.offer(draft))
        self.query_one(MemoryBar).show(draft.plan, told)
        self.show_draft(draft)
        self._tell_price()
