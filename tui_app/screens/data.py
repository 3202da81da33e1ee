"""Step 2: which rows are learnt from, what of them, and what the model sees of each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from core.spec.build import value_of
from core.spec.problems import Problem
from tui_app import data_words
from tui_app.background import in_thread
from tui_app.held_out import FIELD
from tui_app.measured_rate import RateKey, measured_rate
from tui_app.messages import REMOVED
from tui_app.rows_screen import RowsScreen, View
from tui_app.source_text import source_texts, typed_sources
from tui_app.template_choices import offers_for
from tui_app.widgets.learnt_row import LearntRow
from tui_app.widgets.path_row import PathRow
from tui_app.widgets.row_view import RowView
from tui_app.widgets.spec_form import SpecForm
from tui_app.widgets.template_row import TemplateRow
from tui_app.widgets.token_numbers import TokenNumbers
from tui_app.widgets.token_view import TokenView

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult
    from textual.widget import Widget

    from core.data.chat_templates import TemplateOffer
    from core.data.rows import DataProblem
    from core.memory.plan import ModelFacts
    from tui_app.draft import Draft
    from tui_app.row_look import Look

_TABS: dict[View, str] = {"files": "Files", "row": "Row", "numbers": "Numbers", "problems": "Problems"}
_PACKING = ("packing", "packing_strategy", "padding_free", "train_sampling_strategy")


class DataScreen(RowsScreen):
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
        Binding("ctrl+t", "stop", show=False, tooltip="Stop reading the rows"),
        Binding("ctrl+r", "again", show=False, tooltip="Read the rows again"),
    ]
    AUTO_FOCUS = "#option-datasets Input"

    def __init__(self) -> None:
        super().__init__()
        self._offers: tuple[TemplateOffer, ...] = ()
        self._offered_to: Path | None = None
        self._refused: tuple[DataProblem, ...] = ()
        self._rate_key: RateKey | None = None
        self._said: object = None

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
        self.watch(self.app, "data_progress", self._show_facts, init=False)
        self._go("files")

    def show_draft(self, draft: Draft) -> None:
        """Show the options, and what the files hold."""
        values, facts = draft.values, draft.data
        problems = draft.problems_of("data")
        of_files = [problem for problem in problems if problem.field.startswith("datasets")]
        self.query_one(PathRow).show_paths(source_texts(values), of_files, data_words.recognised(facts))
        others = [problem for problem in problems if not problem.field.startswith("datasets")]
        if self._look is not None and self._look.seen is not None:
            others += [Problem(*told) for told in self._look.seen.problems]  # type: ignore[arg-type]
            self.query_one(TemplateRow).set_decisions(data_words.decisions(self._look.seen))
        held_out = self.look_at_held_out_rows(draft)
        others += [held_out.problem] if held_out.problem else []
        notes = {**self.reasons(draft), FIELD: held_out.words}
        turns = bool(facts and facts.preview and isinstance(facts.preview[0].get("prompt"), list))
        self.query_one(LearntRow).set_rows(facts.form if facts else "unknown", turns=turns)
        self._offer_templates(draft)
        self._look_for_rate(draft)
        hidden = [] if data_words.left_out(draft) else ["sftui.bad_rows"]
        if value_of(values, "packing") is not True:
            hidden.append("packing_strategy")
        self.query_one(SpecForm).show(values, others, notes, hidden=hidden)
        self._show_facts()
        refused = tuple(row.problem for row in draft.tokens.refused) if draft.tokens else ()
        if facts is not self._facts or refused != self._refused:
            self._refused = refused
            words = data_words.problem_list(facts, refused) if facts else "No problems."
            self.query_one("#problem-list", Static).update(words)
        if facts is not self._facts:
            self._facts = facts
            self._look, self._last_longest = None, -1
        self._look_again()
        self._show_tokens()

    def _take(self, look: Look) -> None:
        super()._take(look)
        said = (look.seen.choices, look.seen.problems) if look.seen is not None else None
        if said is not None and said != self._said:
            # What the tokenizer said of itself stands beside the options, which nothing else may draw again.
            self._said = said
            self.show_draft(self.draft)

    def _offer_templates(self, draft: Draft) -> None:
        model = draft.model
        own = model.architecture.chat_template if model is not None else None
        if model is None or self._offered_to != model.folder:
            self._offers, self._offered_to = (), model.folder if model is not None else None
            if model is not None and not own:
                # Textual takes a partial of a coroutine function; its types do not say so.
                find: Any = partial(self._find_templates, model)
                self.run_worker(find, group="templates", exclusive=True)
        self.query_one(TemplateRow).set_model(own, self._offers)

    def _look_for_rate(self, draft: Draft) -> None:
        key = RateKey.of(draft)
        if key != self._rate_key:
            self._rate_key, self._rate = key, None
            if key is not None:
                find: Any = partial(self._find_rate, key)
                self.run_worker(find, group="rate", exclusive=True)

    async def _find_rate(self, key: RateKey) -> None:
        rate = await in_thread(partial(measured_rate, key))
        if self._rate_key == key:
            self._rate = rate
            self._show_numbers()

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
        elif self._facts is not None and (self._facts.problems or self._refused):
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
        if data_words.left_out(self.draft):
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
