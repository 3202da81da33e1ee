"""Step 2: which rows are learnt from, what of them, and what the model sees of each."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from core.errors import SftuiError
from core.spec.build import value_of
from core.spec.problems import Problem
from tui_app import data_words, row_look
from tui_app.background import in_thread
from tui_app.held_out import FIELD
from tui_app.messages import REMOVED
from tui_app.row_look import Look
from tui_app.setup_screen import SetupScreen
from tui_app.shown_row import turn_pieces
from tui_app.source_text import source_texts, typed_sources
from tui_app.template_choices import offers_for
from tui_app.token_figures import TokenFigures
from tui_app.token_passes import TokenTask
from tui_app.widgets.learnt_row import LearntRow, learnt_roles
from tui_app.widgets.path_row import PathRow
from tui_app.widgets.row_view import RowPage, RowView
from tui_app.widgets.spec_form import SpecForm
from tui_app.widgets.template_row import TemplateRow
from tui_app.widgets.token_numbers import TokenNumbers
from tui_app.widgets.token_view import Piece, TokenView

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult
    from textual.widget import Widget

    from core.data.chat_templates import TemplateOffer
    from core.data.facts import DataFacts
    from core.memory.plan import ModelFacts
    from tui_app.draft import Draft
    from tui_app.drafting import DraftingApp

View = Literal["files", "row", "numbers", "problems"]
_TABS: dict[View, str] = {"files": "Files", "row": "Row", "numbers": "Numbers", "problems": "Problems"}
_PACKING = ("packing", "packing_strategy", "padding_free", "train_sampling_strategy")


class DataScreen(SetupScreen):
    """Which rows shall it learn from, and what will it see of them?"""

    CSS_PATH = "data.tcss"
    STEP = "data"
    HELP = """Name the rows to learn from: files, folders, patterns such as data/*.jsonl, or datasets of the hub
    (owner/name:config@split); several are separated by commas, and 50% after one takes its share.
    Enter goes to the rows. What is learnt stands in [brackets] on lines that begin with +; ✂ is cut off.
    f r n p go to files, row, numbers and problems. m says which column is what; b leaves bad rows out."""
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(view[0], f"view('{view}')", show=False, tooltip=f"Go to {view}") for view in ("files", "row")),
        Binding("n", "view('numbers')", show=False, tooltip="Go to the numbers of all rows"),
        Binding("p", "problems", "Problems", tooltip="The rows that cannot be used, and why"),
        Binding("m", "map", "Columns", tooltip="Say which column is what"),
        Binding("b", "bad_rows", show=False, tooltip="Leave bad rows out of the run, or stop at them"),
        Binding("right", "row(1)", show=False),
        Binding("left", "row(-1)", show=False),
        Binding("g", "ask('number')", show=False, tooltip="Go to a row by its number"),
        Binding("slash", "ask('text')", show=False, tooltip="Go to the next row that holds a text"),
        Binding("l", "listed('longest')", show=False, tooltip="The longest rows, one after the other"),
        Binding("c", "listed('truncated_rows')", show=False, tooltip="Rows that are cut"),
        Binding("e", "listed('untrained_rows')", show=False, tooltip="Rows of which nothing is learnt"),
        Binding("t", "borders", show=False, tooltip="Show where tokens end"),
        Binding("v", "turns", show=False, tooltip="Turns instead of tokens"),
        Binding("ctrl+t", "stop", show=False, tooltip="Stop reading the rows"),
        Binding("ctrl+r", "again", show=False, tooltip="Read the rows again"),
    ]
    AUTO_FOCUS = "#option-datasets Input"

    def __init__(self) -> None:
        super().__init__()
        self._view: View = "files"
        self._look: Look | None = None
        self._facts: DataFacts | None = None
        self._borders = self._turns = False
        self._last_longest = -1
        self._searching = threading.Event()
        self._offers: tuple[TemplateOffer, ...] = ()
        self._offered_to: Path | None = None
        self._figures = TokenFigures(self, self._show_numbers)

    @property
    def _app(self) -> DraftingApp:
        return cast("DraftingApp", self.app)

    def compose_step(self) -> ComposeResult:
        """Facts over files, row, numbers and problems: beside each other, or as tabs where it is narrow."""
        yield Static(id="facts", markup=False)
        yield Static(id="tabs", markup=False)
        with Container(id="data-panes"):
            with VerticalScroll(id="files", classes="first", can_focus=False):
                yield SpecForm(
                    [
                        PathRow(
                            "datasets",
                            "Training rows",
                            "Files, folders, patterns (data/*.jsonl), hub datasets (owner/name:config@split); "
                            "several are separated by commas.",
                        ),
                        "sftui.held_out_file",
                        "test_split_size",
                        "sftui.bad_rows",
                        "#What is learnt",
                        LearntRow(),
                        TemplateRow(),
                        "max_length",
                        "#How rows are put together",
                        *_PACKING,
                    ]
                )
            with Container(id="looking"):
                with Container(id="row-and-numbers"):
                    yield RowView()
                    yield TokenNumbers()
                yield VerticalScroll(Static(id="problem-list", markup=False), id="problems", can_focus=True)

    def on_mount(self) -> None:
        """Follow what is read and counted, too."""
        super().on_mount()
        self.watch(self.app, "data_progress", self._show_facts, init=False)
        self.watch(self.app, "tokens", self._show_tokens, init=False)
        self.watch(self.app, "warm", self._look_again, init=False)
        self._go("files")

    def on_unmount(self) -> None:
        """End a search."""
        self._searching.set()

    def show_draft(self, draft: Draft) -> None:
        """Show the options, and what the files hold."""
        values, facts = draft.values, draft.data
        problems = draft.problems_of("data")
        of_files = [problem for problem in problems if problem.field.startswith("datasets")]
        self.query_one(PathRow).show_paths(source_texts(values), of_files, data_words.recognised(facts))
        others = [problem for problem in problems if not problem.field.startswith("datasets")]
        if self._look is not None and self._look.seen is not None:
            others += [Problem(*told) for told in self._look.seen.problems]  # type: ignore[arg-type]
        held_out = self.look_at_held_out_rows(draft)
        others += [held_out.problem] if held_out.problem else []
        notes = {**self.reasons(draft), FIELD: held_out.words}
        turns = bool(facts and facts.preview and isinstance(facts.preview[0].get("prompt"), list))
        self.query_one(LearntRow).set_rows(facts.form if facts else "unknown", turns=turns)
        self._offer_templates(draft)
        hidden = [] if facts and facts.bad_rows else ["sftui.bad_rows"]
        if value_of(values, "packing") is not True:
            hidden.append("packing_strategy")
        self.query_one(SpecForm).show(values, others, notes, hidden=hidden)
        self._show_facts()
        if facts is not self._facts:
            self._facts = facts
            words = data_words.problem_list(facts) if facts and facts.problems else "No problems."
            self.query_one("#problem-list", Static).update(words)
            self._look, self._last_longest = None, -1
        self._look_again()
        self._show_tokens()

    def _offer_templates(self, draft: Draft) -> None:
        model, facts = draft.model, draft.data
        own = model.architecture.chat_template if model is not None else None
        if model is None or self._offered_to != model.folder:
            self._offers, self._offered_to = (), model.folder if model is not None else None
            if model is not None and not own:
                self.run_worker(self._find_templates(model), group="templates", exclusive=True)
        first = facts.preview[0] if facts and facts.preview else {}
        needed = "messages" in first or isinstance(first.get("prompt"), list)
        self.query_one(TemplateRow).set_model(own, self._offers, needed=needed)

    async def _find_templates(self, model: ModelFacts) -> None:
        offers = await in_thread(partial(offers_for, model))
        if self._offered_to == model.folder:
            self._offers = offers
            self._follow()

    def _show_facts(self) -> None:
        self.query_one("#facts", Static).update(data_words.headline(self.draft, self._app.data_progress))

    # Moving between what is shown.

    def _go(self, view: View) -> None:
        self._view = view
        for name in _TABS:
            self.set_class(name == view, f"-at-{name}")
        tabs: list[str | tuple[str, str]] = []
        for name, title in _TABS.items():
            chosen = name == view
            tabs += [
                (name[0], "bold $accent"),
                (f" [{title}]" if chosen else f"  {title} ", "bold" if chosen else "$secondary"),
                "   ",
            ]
        self.query_one("#tabs", Static).update(Content.assemble(*tabs))

    def action_view(self, view: View) -> None:
        """Go to a part of the screen."""
        self._go(view)
        targets: dict[View, Widget] = {
            "files": self.query_one(PathRow).editor,
            "row": self.query_one(TokenView),
            "numbers": self.query_one(TokenNumbers),
            "problems": self.query_one("#problems"),
        }
        # At once: the next key is meant for what is shown then.
        self.set_focus(targets[view])

    def action_problems(self) -> None:
        """Go to the list of problems, or back from it."""
        if self._view == "problems":
            self.action_view("row")
        elif self._facts is not None and self._facts.problems:
            self.action_view("problems")
        else:
            self.notify("Every row can be used." if self._facts else "No rows are read yet.")

    def submit(self, field: Input) -> None:
        """Enter in the field of the files goes to the rows first; to the problems if there are no rows for them."""
        if field is not self.query_one(PathRow).editor or not field.value.strip():
            self.action_next_step()
        elif self._facts is not None and self._facts.problems and not self._facts.rows and not self._facts.sample:
            self.action_view("problems")
        else:
            self.action_view("row")

    # What is named and how it is read.

    def on_path_row_changed(self, message: PathRow.Changed) -> None:
        """Other files are named."""
        self.change({"datasets": typed_sources(message.paths, self.draft.values) or REMOVED})

    def action_stop(self) -> None:
        """Stop reading, or searching."""
        self._searching.set()
        self._app.data_passes.stop()

    def action_again(self) -> None:
        """Read the rows again."""
        self._app.read_data_again()

    def action_bad_rows(self) -> None:
        """Leave bad rows out, or stop at them."""
        if self._facts is not None and self._facts.bad_rows:
            skips = data_words.bad_rows_are_skipped(self.draft)
            self.change({"sftui.bad_rows": REMOVED if skips else "skip"})

    def action_map(self) -> None:
        """Ask which column is what."""
        from tui_app.dialogs.column_mapping import ColumnMappingDialog

        facts = self._facts
        if facts is None or not facts.sample:
            self.notify("There are no rows with columns yet.")
            return
        columns = [column.name for column in facts.columns]
        self.app.push_screen(ColumnMappingDialog(columns, facts.sample, facts.mapping), self._map)

    def _map(self, columns: dict[str, str] | None) -> None:
        if columns is not None:
            self.change({"sftui.columns": columns or REMOVED})

    # The row on show.

    def on_row_view_moved(self, message: RowView.Moved) -> None:
        """The next or the previous row."""
        self.action_row(message.by)

    def action_row(self, by: int) -> None:
        """Show another row."""
        if self._facts is not None and self._facts.rows:
            self._see((self._look.index if self._look else 0) + by)

    def action_ask(self, question: Literal["number", "text"]) -> None:
        """Have the number of a row, or a text, typed."""
        if self._facts is not None and self._facts.rows:
            self._go("row")
            self.query_one(RowView).ask(question)

    def on_row_view_asked(self, message: RowView.Asked) -> None:
        """Go to the row that was asked for."""
        self.action_view("row")
        if message.answer is None:
            return
        if message.question == "text":
            self._searching.set()
            self._searching = threading.Event()
            self.run_worker(self._search(message.answer, self._searching), group="search", exclusive=True)
        elif (number := message.answer.replace(",", "").replace(" ", "")).isdecimal():
            self._see(int(number) - 1)
        else:
            self.notify("A row has a number, such as 8213.", severity="warning")

    async def _search(self, text: str, stopped: threading.Event) -> None:
        facts, at = self._facts, self._look.index if self._look else -1
        if facts is None or facts.store is None:
            return
        start = (at + 1) % facts.rows
        try:
            found = await in_thread(partial(row_look.find_text, facts.store, text, start, stopped.is_set))
        except SftuiError as error:
            self.notify(error.message, title=error.title, severity="error", markup=False)
            return
        if found is not None and facts is self._facts:
            self._see(found)
        elif not stopped.is_set():
            self.notify(f"No row holds “{text}”.", markup=False)

    def action_listed(self, which: str) -> None:
        """The next of the longest rows, of those that are cut, or of those with nothing learnt."""
        rows = self._figures.rows(which)
        if not rows:
            words = {"longest": "No rows are counted yet.", "truncated_rows": "No row that was counted is cut."}
            self.notify(words.get(which, "Something is learnt of every row that was counted."))
            return
        if self._view != "row":
            self.action_view("row")
        at = self._look.index if self._look else -1
        if which != "longest":
            row = next((row for row in rows if row > at), rows[0])
        else:
            # The one after the longest that it led to before; from anywhere else, the longest of all.
            row = rows[(rows.index(at) + 1) % len(rows)] if at == self._last_longest else rows[0]
            self._last_longest = row
        self._see(row)

    def action_borders(self) -> None:
        """Show where tokens end, or hide it."""
        self._borders = not self._borders
        self._draw_row()

    def action_turns(self) -> None:
        """Turns instead of tokens, or back."""
        self._turns = not self._turns
        self._draw_row()

    def _look_again(self) -> None:
        if not self.is_current:
            return
        task, look = TokenTask.of(self.draft), self._look
        if look is None or look.task != task or (look.seen is None and look.problem is None and task):
            self._see(look.index if look else 0)
        else:
            self._draw_row()

    def _see(self, index: int) -> None:
        facts = self._facts
        if facts is None or facts.store is None or not facts.rows:
            self._look = None
            self._draw_row()
            return
        index = max(0, min(facts.rows - 1, index))
        task = TokenTask.of(self.draft)
        known = self._look
        row = known.row if known is not None and known.index == index else None
        self._look = Look(index, facts.rows, row, task)
        self._draw_row()
        self.run_worker(self._read(self._look, facts), group="row", exclusive=True)

    async def _read(self, look: Look, facts: DataFacts) -> None:
        from core.data.seen_row import SeenRow
        from core.runs.launch import NoAnswerError

        assert facts.store is not None
        try:
            if look.row is None:
                look = replace(look, row=await in_thread(partial(row_look.read_row, facts.store, look.index)))
                self._take(look)
            if look.task is not None:
                told = await self._app.ask(look.task.question("row", index=look.index))
                self._take(replace(look, seen=SeenRow.from_json(told)))
        except NoAnswerError as error:
            warm = self._app.warm
            if warm is not None and warm.is_idle:
                self._take(replace(look, problem=error))
        except SftuiError as error:
            self._take(replace(look, problem=error))

    def _take(self, look: Look) -> None:
        self._look = look
        self._draw_row()

    def _draw_row(self) -> None:
        draft, view = self.draft, self.query_one(RowView)
        if self._look is None:
            sample = self._facts.sample[0] if self._facts and self._facts.sample and not self._facts.rows else {}
            pieces = turn_pieces(sample, frozenset()) if sample else []
            view.show(
                RowPage(
                    Content(data_words.no_row(draft)),
                    [Piece("The first row as it is:", "note"), *pieces] if pieces else [],
                    Content(""),
                )
            )
            return
        waiting = data_words.waiting_for_tokens(draft, warm=self._app.warm is not None)
        learnt = learnt_roles(draft.values, self._facts.form if self._facts else "unknown")
        length = value_of(draft.values, "max_length")
        view.show(
            self._look.page(
                learnt, length if isinstance(length, int) else None, waiting, turns=self._turns, borders=self._borders
            )
        )

    # The numbers of all rows.

    def _show_tokens(self) -> None:
        if self.is_current:
            self._figures.follow(self._app.tokens, self.draft.planned)
            self._show_numbers()

    def _show_numbers(self) -> None:
        draft = self.draft
        length = value_of(draft.values, "max_length")
        state = data_words.counting(draft, self._app.tokens, warm=self._app.warm is not None)
        self.query_one(TokenNumbers).show(
            state,
            self._figures.found,
            length if isinstance(length, int) else None,
            packing=value_of(draft.values, "packing") is True,
        )
