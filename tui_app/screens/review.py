"""Step 5: the whole run on one page, and its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Button, Static

from core.spec.problems import Problem
from core.spec.yaml_file import to_yaml
from core.text import safe
from tui_app.background import in_thread
from tui_app.dialogs.does_not_fit import Answer, DoesNotFitDialog
from tui_app.draft import Draft
from tui_app.fitting import FittingScreen
from tui_app.messages import StartRequested
from tui_app.queueing import before_a_new_run
from tui_app.setup_screen import STEPS, InfoPane
from tui_app.summary import problem_facts, summary
from tui_app.widgets.fact_list import FactList

if TYPE_CHECKING:
    from core.memory.plan import Plan

_LOOK_SECONDS = 2.0


class ReviewScreen(FittingScreen):
    """Is this what shall be run?"""

    CSS_PATH = "review.tcss"
    STEP = "review"
    HELP = """Everything on one page, with the reasons of what sftui chose. ctrl+s starts the run; w lets it wait in the
    queue until its device is free, also when you have logged out by then.
    Problems stand at the top, with the number of the step that mends them: press it to go there.
    f shows what would make it fit, or faster where memory is left over.
    y shows the file that will be written: TRL's own argument names, to keep or to share."""
    AUTO_FOCUS = "#summary"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", tooltip="Start the run", priority=True),
        Binding("w", "wait", "Queue", tooltip="Start as soon as its device is free, after those that wait already"),
        Binding("y", "yaml", "YAML", tooltip="The file that will be written, or the summary again"),
        # There is no next step: without this, the footer would offer one.
        Binding("enter,ctrl+n", "nothing", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shows_yaml = False
        self._held_out_problem: Problem | None = None
        self._starts_when_read = False
        self._queues = False
        self._before = ""

    def compose_step(self) -> ComposeResult:
        """The problems, the summary or the YAML, and the button."""
        with InfoPane(id="summary"):
            yield FactList(16, id="problems")
            yield FactList(24, id="facts")
            yield Static(id="yaml", markup=False)
        with Horizontal(id="start-row"):
            yield Button("Start  ctrl+s", id="start", variant="primary", compact=True)
            yield Static(id="why", markup=False)

    def on_mount(self) -> None:
        """Follow the draft, and who has its device."""
        super().on_mount()
        self.set_interval(_LOOK_SECONDS, self._look_who_is_before)
        self._look_who_is_before()

    @work(group="queue", exclusive=True)
    async def _look_who_is_before(self) -> None:
        spec, gpus = self.draft.spec, self.draft.gpus
        if spec is None or gpus is None or not self.is_current:
            return
        wish, memory = spec.sftui.device, self.draft.plan.memory if self.draft.plan else None
        needs_bytes = memory.known_bytes if memory and memory.total_is_complete else None
        before = await in_thread(lambda: before_a_new_run(wish, gpus, needs_bytes))
        if before != self._before:
            self._before = before
            self.show_draft(self.draft)

    def show_draft(self, draft: Draft) -> None:
        """Show everything that is set, and what stands in the way."""
        self._held_out_problem = self.look_at_held_out_rows(draft).problem
        problems = self.query_one("#problems", FactList)
        found = draft.problems + ((self._held_out_problem,) if self._held_out_problem else ())
        problems.display = bool(found)
        problems.show(problem_facts(found, STEPS))
        facts, yaml = self.query_one("#facts", FactList), self.query_one("#yaml", Static)
        facts.display, yaml.display = not self._shows_yaml, self._shows_yaml
        if self._shows_yaml:
            none = "There is nothing to write yet."
            yaml.update(safe(to_yaml(draft.spec), keep_newlines=True) if draft.spec else none)
        else:
            facts.show(summary(draft))
        refusal = self._refusal(draft)
        self.query_one("#start", Button).disabled = bool(refusal)
        self.query_one("#why", Static).update(refusal or self._prospect(draft))
        if self._starts_when_read and not self._is_reading(draft):
            self._starts_when_read = False
            self._begin(queue=self._queues)

    def action_yaml(self) -> None:
        """Show the YAML, or the summary again."""
        self._shows_yaml = not self._shows_yaml
        self.show_draft(self.draft)
        self.query_one("#summary").scroll_home(animate=False)

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Start the run, or say why not."""
        self._begin(queue=False)

    def action_wait(self) -> None:
        """Let the run wait in the queue, or say why not."""
        self._begin(queue=True)

    def _begin(self, *, queue: bool) -> None:
        self._queues = queue
        draft = self.draft
        refusal = self._refusal(draft)
        self._starts_when_read = self._is_reading(draft) and draft.spec is not None and not draft.errors
        if self._starts_when_read:
            self.notify("Starts as soon as the model and the data are read.", markup=False)
        elif refusal or draft.spec is None:
            self.notify(refusal, title="Not started", severity="error", markup=False)
            self.query_one("#summary").scroll_home(animate=False)
        elif draft.plan is not None and self._surely_fails(draft.plan):
            self.app.push_screen(DoesNotFitDialog(_shortfall(draft.plan)), self._take_answer)
        else:
            self._start()

    def _start(self) -> None:
        draft = self.draft
        if draft.spec is not None:
            self.post_message(StartRequested(draft.spec, draft.plan, queue=self._queues))

    def _take_answer(self, answer: Answer | None) -> None:
        if answer == "start":
            self._start()
        elif answer == "fit":
            self.action_fit()

    def _surely_fails(self, plan: Plan) -> bool:
        """Whether it will run out of memory; what waits may find more of it free, but never more than all."""
        if plan.verdict != "does_not_fit" or not self._queues:
            return plan.verdict == "does_not_fit"
        total = plan.device.total_bytes
        return plan.memory is not None and total is not None and plan.memory.known_bytes > total

    def action_nothing(self) -> None:
        """Go nowhere."""

    def action_next_step(self) -> None:
        """There is none."""

    def _refusal(self, draft: Draft) -> str:
        held_out = self._held_out_problem
        count = len(draft.errors) + (held_out is not None and held_out.level == "error")
        if count:
            stand = "problem stands" if count == 1 else "problems stand"
            return f"Cannot start: {count} {stand} in the way, see above."
        if draft.spec is None:
            return "Cannot start: choose a model (1) and data (2) first."
        if self._is_reading(draft):
            return "Still reading the model and the data."
        return ""

    def _is_reading(self, draft: Draft) -> bool:
        return draft.needs_model or draft.needs_data

    def _prospect(self, draft: Draft) -> str:
        if draft.plan is None:
            return ""
        words = {
            "fits": "It fits.",
            "tight": "It is tight.",
            "does_not_fit": "It does not fit: f makes it fit.",
            "unknown": "Whether it fits is not known.",
        }
        before = f" {safe(self._before)} is on its device: w waits for it." if self._before else ""
        return words[draft.plan.verdict] + before


def _shortfall(plan: Plan) -> str:
    reason = safe(plan.verdict_reason)
    return f"{reason[:1].upper()}{reason[1:]}. It will probably run out of memory."
