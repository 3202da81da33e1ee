"""Ask what a run has made, beside what it was made of: the same prompt, the same seed, two answers."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from core.errors import SftuiError
from core.results.asking import BASE, Measured, MeasureProgress, ResultDesk, Sampling, Turns
from core.text import human_duration, safe
from tui_app import messages
from tui_app.background import in_thread
from tui_app.dialogs.sampling import SamplingDialog
from tui_app.opened_result import OpenedResultScreen
from tui_app.widgets.answer_pane import AnswerPane
from tui_app.widgets.key_footer import KeyFooter
from tui_app.widgets.prompt_list import PromptList
from tui_app.widgets.step_header import StepHeader

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.results.asking import HeldOutPrompt, Opened
    from core.runs.folder import RunFolder

VIEWS = (("left", "Left"), ("right", "Right"), ("prompts", "Prompts"))
_MOST_MEASURED = 200
_LONGEST_ANSWER = 256


class CompareScreen(OpenedResultScreen):
    """Base against result, or one run's result against another's, side by side."""

    CSS_PATH = "compare.tcss"
    HELP = (
        "The model before and after the run, asked the same with the same seed, through the run's chat template and in "
        "its precision. Enter asks the prompt under the cursor, i lets you type one; what you type goes on with the "
        "conversation, a held-out prompt begins anew. o puts another run beside it: on the same base model, where it "
        "started from that.\n"
        "The model is in memory while this screen is open, and gone when you leave it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i,slash", "type", "Type", key_display="i", tooltip="Type something to ask both sides"),
        Binding("x", "stop", "Stop", tooltip="Stop the answer, or the measuring"),
        Binding("s", "sampling", "Sampling", tooltip="Temperature, seed, and how long answers may be"),
        Binding("m", "measure", "Measure", tooltip="Perplexity, token accuracy and exact answers on held-out rows"),
        Binding("o", "other", "Other run", tooltip="Ask another run the same, beside this one"),
        Binding("n", "anew", "Anew", show=False, tooltip="Forget the conversation"),
        Binding("a", "side('left')", "Left", show=False, tooltip="Another one on the left: the base, or a checkpoint"),
        Binding("b", "side('right')", "Right", show=False, tooltip="Another one on the right"),
        Binding("v,right", "view(1)", "Next view", key_display="v", tooltip="Show the next view (small terminals)"),
        Binding("left", "view(-1)", "Previous view", show=False),
        Binding("escape", "leave", "Leave", tooltip="Leave, and free the memory"),
    ]

    class Heard(Message):
        """More of an answer, which is told by its number from those before it."""

        def __init__(self, place: str, number: int, text: str) -> None:
            super().__init__()
            self.place = place
            self.number = number
            self.text = text

    class MeasureMoved(Message):
        """The measuring is further."""

        def __init__(self, progress: MeasureProgress) -> None:
            super().__init__()
            self.progress = progress

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.sampling = Sampling(max_new_tokens=_LONGEST_ANSWER)
        self.measured: dict[str, Measured] = {}
        self.view = "right"
        self._stopping = False
        self._own: tuple[str, ...] = ()
        """The sides of this run."""
        self._turns: dict[str, list[dict[str, str]]] = {}
        self._number = 0
        """Of the answer that is coming, or came last."""

    def compose(self) -> ComposeResult:
        """Prompts, two panes, what was measured, and a line to type in."""
        yield StepHeader(title=f"Ask   {self.folder.id}")
        yield Static("", id="state", markup=False)
        yield Static("", id="views", markup=False)
        with Horizontal(id="body"):
            yield PromptList(id="prompts")
            with Vertical(id="answers"):
                with Horizontal(id="sides"):
                    yield AnswerPane(id="left")
                    yield AnswerPane(id="right")
                yield Static("", id="expected", markup=False)
                yield Static("", id="measured", markup=False)
        yield Input(placeholder="ask both; escape for the keys", id="ask", compact=True)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Begin to load."""
        self._show_view("right")
        self.query_one("#ask", Input).display = False
        self._tell_state()
        self.set_interval(1.0, self._tick)
        self._open()

    def on_resize(self) -> None:
        """One view at a time where there is no room for three."""
        self.set_class(self.size.width < 100, "-compact")
        self.refresh_bindings()

    @property
    def compact(self) -> bool:
        """Whether one view is shown at a time."""
        return self.has_class("-compact")

    # Loading.

    def _fail(self, error: SftuiError) -> None:
        super()._fail(error)
        if self.opened is None and not self._gone:
            self._say(f"✗ {error.title}: {error.message}", "$error")

    def _take(self, opened: Opened) -> None:
        left, right = (self.query_one(f"#{place}", AnswerPane) for place in ("left", "right"))
        if not self._own:
            self._own = opened.sides
            self.query_one("#ask", Input).display = True
            self._show_side(left, BASE)
            self._show_side(right, opened.sides[1])
            self.query_one(PromptList).show(opened.prompts)
            self._show_view("prompts" if opened.prompts else "right")
            if not opened.prompts:
                self.query_one("#ask", Input).focus()
            return
        self._begin_anew()
        self._show_side(left, opened.sides[1] if left.side == BASE else left.side)
        self._show_side(right, opened.sides[-1])
        self._show_view(self.view)

    def _show_side(self, pane: AnswerPane, side: str) -> None:
        """Beside another run's, this one's results say whose they are."""
        assert self.opened is not None
        is_beside = len(self.opened.sides) > len(self._own)
        pane.show_side(side, f"{side} of {self.folder.id}" if is_beside and side in self._own[1:] else side)

    @work(group="choose", exclusive=True)
    async def action_other(self) -> None:
        """Ask for another run, to be asked the same."""
        from tui_app.dialogs.choose_run import ChooseRun, runs_to_ask

        runs, alike = await in_thread(partial(runs_to_ask, self.folder))
        if self.doing or self._gone:
            return
        if not runs:
            self.notify("No other run has made something that could be asked.", markup=False)
            return

        def chosen(folder: RunFolder | None) -> None:
            if folder is not None and not self.doing:
                self._load_other(folder)

        self.app.push_screen(ChooseRun(runs, alike), chosen)

    # Asking.

    @on(OptionList.OptionSelected)
    def ask_held_out(self) -> None:
        """Ask the prompt under the cursor, as the beginning of a conversation."""
        prompt = self.query_one(PromptList).current
        if prompt is not None and self._may_ask():
            self._begin_anew()
            self._show_expected(prompt)
            self._ask(prompt.turns, prompt.shown, prompt.expected)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask what was typed."""
        event.stop()
        text = event.value.strip()
        if text and self._may_ask():
            event.input.value = ""
            self._show_expected(None)
            self._ask(None, text, None)

    def _may_ask(self) -> bool:
        if self.doing:
            self.notify("Wait for it, or stop it: x", markup=False)
        return self.opened is not None and not self.doing

    def _ask(self, turns: Turns | None, shown: str, expected: str | None) -> None:
        self.doing, self._stopping = "answering", False
        if self.compact and self.view == "prompts":
            self._show_view("right")
        self._tell_state()
        self.refresh_bindings()
        self._answer(turns, shown, expected)

    @work(group="answer")
    async def _answer(self, turns: Turns | None, shown: str, expected: str | None) -> None:
        panes = [self.query_one(f"#{place}", AnswerPane) for place in ("left", "right")]
        for pane in panes:
            pane.begin(shown)
        try:
            for pane in panes:
                await self._answer_in(pane, turns, shown, expected)
                if self._stopping:
                    # The other side is not asked any more.
                    break
        finally:
            self.doing = ""
            if not self._gone:
                self._tell_state()
                self.refresh_bindings()

    async def _answer_in(self, pane: AnswerPane, turns: Turns | None, shown: str, expected: str | None) -> None:
        assert self._desk is not None and self.opened is not None
        side, place = pane.side, str(pane.id)
        known = self._turns.setdefault(side, [])
        asked: Turns = turns if turns is not None else [*known, {"role": "user", "content": shown}]
        if turns is None and not self.opened.speaks_turns:
            asked = shown
        self._number += 1
        chat = partial(self._desk.chat, side, asked, self.sampling, partial(self._hear, place, self._number))
        try:
            said = await in_thread(chat)
        except SftuiError as error:
            if not self._gone:
                pane.fail(f"{error.title}: {error.message}")
            return
        # Parts of it that are still on their way here come too late.
        self._number += 1
        if not self._gone and pane.side == side:
            pane.end(said, expected)
            if not isinstance(asked, str):
                self._turns[side] = [*(dict(turn) for turn in asked), {"role": "assistant", "content": said.text}]

    def _hear(self, place: str, number: int, text: str) -> None:
        if not self._gone:
            self.post_message(self.Heard(place, number, text))

    def on_compare_screen_heard(self, message: CompareScreen.Heard) -> None:
        """Show more of an answer."""
        if message.number == self._number:
            self.query_one(f"#{message.place}", AnswerPane).hear(message.text)

    # Measuring.

    def action_measure(self) -> None:
        """Measure both sides on held-out rows."""
        if self.opened is None or not self._may_ask():
            return
        self.doing = "measuring"
        self._tell_state()
        self.refresh_bindings()
        self._measure(min(_MOST_MEASURED, self.opened.held_out_rows))

    @work(group="measure")
    async def _measure(self, rows: int) -> None:
        assert self._desk is not None
        sides = [self.query_one(f"#{place}", AnswerPane).side for place in ("left", "right")]
        try:
            found = await in_thread(partial(self._desk.measure, list(dict.fromkeys(sides)), rows, self._hear_measure))
        except SftuiError as error:
            if not self._gone:
                self.post_message(messages.ErrorRaised(error))
        else:
            self.measured |= found
            self._show_measured()
        self.doing = ""
        if not self._gone:
            self._tell_state()
            self.refresh_bindings()

    def _hear_measure(self, progress: MeasureProgress) -> None:
        if not self._gone:
            self.post_message(self.MeasureMoved(progress))

    def on_compare_screen_measure_moved(self, message: CompareScreen.MeasureMoved) -> None:
        """Show how far it is."""
        if self.doing == "measuring":
            at = message.progress
            what = "reading rows" if at.what == "perplexity" else "answering prompts"
            self._say(f"● measuring {at.side}: {what}, {at.done:,} of {at.total:,}", "$accent")

    def _show_measured(self) -> None:
        if self._gone:
            return
        width = max(16, *(len(safe(side)) + 2 for side in self.measured))
        head = f"{'':{width}}{'perplexity':>12}{'token accuracy':>17}{'exactly right':>18}"
        lines = [Content.styled(head, "$secondary")]
        for side, figures in self.measured.items():
            perplexity = "n/a" if figures.perplexity is None else f"{figures.perplexity:.4g}"
            accuracy = "n/a" if figures.token_accuracy is None else f"{figures.token_accuracy:.1%}"
            exact = f"{figures.exact:,} of {figures.prompts:,}"
            cut = "" if figures.whole else "   (cut short)"
            lines.append(Content(f"{safe(side):{width}}{perplexity:>12}{accuracy:>17}{exact:>18}{cut}"))
        shown = self.query_one("#measured", Static)
        shown.display = True
        shown.update(Content("\n").join(lines))

    # Keys.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now."""
        ready = self.opened is not None
        match action:
            case "view":
                return self.compact and ready
            case "stop":
                return self.doing in ("answering", "measuring") or (ready and self.doing == "loading")
            case "side":
                return self.opened is not None and len(self.opened.sides) > 2 and not self.doing
            case "measure":
                return self.opened is not None and self.opened.held_out_rows > 0 and not self.doing
            case "other":
                return ready and not self.doing
            case "type" | "sampling" | "anew":
                return ready
        return True

    def action_type(self) -> None:
        """Go to the line to type in."""
        self.query_one("#ask", Input).focus()

    def action_stop(self) -> None:
        """Stop what is going on; what there is of it stays."""
        if self._desk is not None:
            self._stopping = True
            self._cancel(self._desk)

    @work(group="cancel")
    async def _cancel(self, desk: ResultDesk) -> None:
        await in_thread(desk.cancel)

    def action_sampling(self) -> None:
        """Ask how answers are to be drawn."""

        def chosen(sampling: Sampling | None) -> None:
            if sampling is not None:
                self.sampling = sampling
                self._tell_state()

        self.app.push_screen(SamplingDialog(self.sampling), chosen)

    def action_anew(self) -> None:
        """Forget the conversation."""
        if self._may_ask():
            self._begin_anew()

    def action_side(self, place: str) -> None:
        """Show the next of the sides in a pane."""
        assert self.opened is not None
        pane = self.query_one(f"#{place}", AnswerPane)
        sides = self.opened.sides
        self._begin_anew()
        self._show_side(pane, sides[(sides.index(pane.side) + 1) % len(sides)])
        self._show_view(self.view)

    def action_view(self, by: int) -> None:
        """Show the next or previous view."""
        names = [name for name, _ in VIEWS]
        self._show_view(names[(names.index(self.view) + by) % len(names)])

    def action_leave(self) -> None:
        """Leave the line to type in, or the screen."""
        if self.query_one("#ask", Input).has_focus:
            self._show_view(self.view)
            return
        self.app.pop_screen()

    def _begin_anew(self) -> None:
        self._turns.clear()
        for pane in self.query(AnswerPane):
            pane.clear()
        self._show_expected(None)

    # What is shown.

    def _show_view(self, view: str) -> None:
        self.view = view
        for name, _ in VIEWS:
            self.set_class(name == view, f"-view-{name}")
        titles = {name: self.query_one(f"#{name}", AnswerPane).side or title for name, title in VIEWS[:2]}
        titles["prompts"] = "Prompts"
        parts = [
            (f"[{safe(title)}] " if name == view else f" {safe(title)}  ", "bold" if name == view else "")
            for name, title in titles.items()
        ]
        self.query_one("#views", Static).update(Content.assemble(*parts))
        if self.compact:
            self.query_one(f"#{view}").focus()
        elif self.opened is not None and self.opened.prompts:
            self.query_one(PromptList).focus()
        else:
            self.query_one("#right").focus()

    def _show_expected(self, prompt: HeldOutPrompt | None) -> None:
        shown = self.query_one("#expected", Static)
        shown.display = prompt is not None
        if prompt is not None:
            shown.update(Content.assemble(("expected  ", "$secondary"), safe(prompt.expected, keep_newlines=True)))

    def _tick(self) -> None:
        if self.doing == "loading":
            self._tell_state()

    def _tell_state(self) -> None:
        if self.doing == "loading":
            phase = self._phase
            share = f" {phase.done / phase.total:.0%}" if phase is not None and phase.total else ""
            name = phase.name if phase is not None else "starting a process for the model"
            self._say(f"● {name}{share}, {human_duration(int(time.monotonic() - self._began))}", "$accent")
        elif self.doing == "answering":
            self._say(f"● answering: {self.sampling}", "$accent")
        elif self.doing == "measuring":
            self._say("● measuring", "$accent")
        elif self.opened is not None:
            stored = "" if self.opened.quantization == "none" else f"{self.opened.quantization}, "
            self._say(f"{stored}{self.opened.dtype} on {self.opened.device}   {self.sampling}", "$secondary")

    def _say(self, words: str, style: str) -> None:
        self.query_one("#state", Static).update(Content.styled(safe(words), style))
