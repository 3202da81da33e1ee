"""Step 2: which rows are learnt from, and what of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from core.spec.build import value_of
from core.text import human_count, safe
from tui_app.draft import file_names
from tui_app.held_out import FIELD
from tui_app.messages import REMOVED
from tui_app.setup_screen import SetupScreen
from tui_app.widgets.path_row import PathRow
from tui_app.widgets.row_view import RowView
from tui_app.widgets.spec_form import SpecForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from textual.app import ComposeResult

    from core.data.formats import DataFacts, DataProblem
    from tui_app.draft import Draft

_SHOWN_PROBLEMS = 200
_FORMS = {
    "messages": "conversations (messages)",
    "prompt-completion": "prompts and completions",
    "text": "plain text",
    "unknown": "not recognised",
}


class DataScreen(SetupScreen):
    """Which rows shall it learn from?"""

    CSS_PATH = "data.tcss"
    STEP = "data"
    HELP = """Name the rows to learn from: local .jsonl or .json files with messages, prompt and completion, or text.
    Enter goes to the rows, ← and → move between them; what the model learns from is marked by +.
    p goes to the rows that cannot be used, each with its file, its line and what to do."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "problems", "Problems", tooltip="Go to the rows that cannot be used"),
        Binding("left", "row(-1)", "Previous row", show=False),
        Binding("right", "row(1)", "Next row", show=False),
    ]
    AUTO_FOCUS = "#option-datasets Input"

    def compose_step(self) -> ComposeResult:
        """Files and options on the left, the rows on the right; one above the other where it is narrow."""
        with VerticalScroll(classes="panes", can_focus=False):
            with VerticalScroll(classes="pane first", can_focus=False):
                yield SpecForm(
                    [
                        PathRow(
                            "datasets", "Training rows", "A .jsonl or .json file; several are separated by commas."
                        ),
                        "sftui.held_out_file",
                        "test_split_size",
                        "#Learnt from",
                        "assistant_only_loss",
                        "completion_only_loss",
                        "max_length",
                        "packing",
                    ]
                )
            with VerticalScroll(classes="pane second rows", can_focus=False):
                yield Static(id="facts", markup=False)
                yield RowView()
                yield VerticalScroll(Static(id="problem-list", markup=False), id="problems", can_focus=True)

    def show_draft(self, draft: Draft) -> None:
        """Show the options, and what the files hold."""
        values = draft.values
        problems = draft.problems_of("data")
        of_files = [problem for problem in problems if problem.field.startswith("datasets")]
        self.query_one(PathRow).show_paths(file_names(values), of_files)
        others = [problem for problem in problems if not problem.field.startswith("datasets")]
        held_out = self.look_at_held_out_rows(draft)
        others += [held_out.problem] if held_out.problem else []
        notes = {**self.reasons(draft), FIELD: held_out.words}
        self.query_one(SpecForm).show(values, others, notes)
        facts = draft.data
        self.query_one("#facts", Static).update(_summary(facts, waiting=draft.needs_data))
        rows = self.query_one(RowView)
        rows.show(facts.preview if facts else (), facts.rows if facts else 0, trained_roles(values, facts))
        rows.display = bool(facts and facts.preview)
        found = facts.problems if facts else ()
        self.query_one("#problems").display = bool(found)
        self.query_one("#problem-list", Static).update(_problem_list(found))

    def on_path_row_changed(self, message: PathRow.Changed) -> None:
        """Other files are named."""
        self.change({"datasets": [{"path": path} for path in message.paths] or REMOVED})

    def submit(self, field: Input) -> None:
        """Enter in the field of the files goes to the rows first."""
        rows = self.query_one(RowView)
        if field is self.query_one(PathRow).editor and rows.display:
            rows.focus()
        else:
            self.action_next_step()

    def action_row(self, by: int) -> None:
        """Show another row."""
        self.query_one(RowView).action_move(by)

    def action_problems(self) -> None:
        """Go to the list of problems."""
        problems = self.query_one("#problems")
        if problems.display:
            problems.focus()
        else:
            self.notify("Every row can be used.")


def trained_roles(values: Mapping[str, Any], facts: DataFacts | None) -> frozenset[str]:
    """Which roles of a row the loss counts, as TRL decides it."""
    roles = {"system", "developer", "user", "assistant", "tool", "prompt", "completion", "text"}
    if value_of(values, "assistant_only_loss") is True:
        return frozenset({"assistant"})
    completion_only = value_of(values, "completion_only_loss")
    if facts is not None and facts.form == "prompt-completion" and completion_only is not False:
        return frozenset({"completion", "assistant"})
    return frozenset(roles)


def _summary(facts: DataFacts | None, *, waiting: bool) -> Content:
    if facts is None:
        words = "Reading the rows …" if waiting else "Name a file to see its rows."
        return Content.styled(words, "$secondary")
    count = len(facts.problems)
    bad = f", {human_count(count)} {'problem' if count == 1 else 'problems'} (p)" if count else ", no problems"
    return Content.assemble(
        (f"{human_count(facts.rows)} rows", "bold"),
        (bad, "$warning" if count else ""),
        f": {_FORMS[facts.form]}",
        (f"  {safe(facts.reason)}", "$secondary"),
    )


def _problem_list(problems: Sequence[DataProblem]) -> Content:
    lines = [
        Content.assemble(
            (f"✗ {safe(problem.file.name)}:{problem.line} ", "bold $warning"),
            safe(problem.message),
            (f" {safe(problem.fix)}", "$secondary"),
        )
        for problem in problems[:_SHOWN_PROBLEMS]
    ]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(Content(f"and {len(problems) - _SHOWN_PROBLEMS:,} more"))
    return Content("\n").join(lines)
