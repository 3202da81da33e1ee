"""A step that looks at rows one by one, and at the numbers of all of them: keys go from row to row."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from textual.binding import Binding, BindingType
from textual.content import Content

from core.errors import SftuiError
from core.spec.build import value_of
from core.text import safe
from tui_app import data_words, row_look
from tui_app.background import in_thread
from tui_app.row_look import Look
from tui_app.setup_screen import SetupScreen
from tui_app.shown_row import turn_pieces
from tui_app.token_passes import TokenTask
from tui_app.widgets.learnt_row import learnt_roles
from tui_app.widgets.row_view import RowPage, RowView
from tui_app.widgets.token_numbers import TokenNumbers
from tui_app.widgets.token_view import Piece

if TYPE_CHECKING:
    from core.data.facts import DataFacts
    from tui_app.drafting import DraftingApp
    from tui_app.measured_rate import MeasuredRate

_PATIENCE_SECONDS = 0.3
View = Literal["files", "row", "numbers", "problems"]


class RowsScreen(SetupScreen):
    """Subclasses lay out a RowView and TokenNumbers, say which rows in `_facts`, and go between views."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "row(1)", show=False),
        Binding("left", "row(-1)", show=False),
        Binding("g", "ask('number')", show=False, tooltip="Go to a row by its number"),
        Binding("slash", "ask('text')", show=False, tooltip="Go to the next row that holds a text"),
        Binding("l", "listed('longest')", show=False, tooltip="The longest rows, one after the other"),
        Binding("c", "listed('truncated_rows')", show=False, tooltip="Rows that are cut"),
        Binding("e", "listed('unlearnt_rows')", show=False, tooltip="Rows of which nothing is learnt"),
        Binding("t", "borders", show=False, tooltip="Show where tokens end"),
        Binding("v", "turns", show=False, tooltip="Turns instead of tokens"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._view: View = "files"
        self._facts: DataFacts | None = None
        self._look: Look | None = None
        self._borders = self._turns = False
        self._last_longest = -1
        self._has_tokens = False
        self._rate: MeasuredRate | None = None
        self._searching = threading.Event()

    @property
    def _app(self) -> DraftingApp:
        return cast("DraftingApp", self.app)

    def action_view(self, view: View) -> None:
        """Go to a part of the screen."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Follow who can tell tokens, and how many they are."""
        self.watch(self.app, "tokens", self._show_tokens, init=False)
        self.watch(self.app, "figures", self._show_tokens, init=False)
        self.watch(self.app, "warm", self._look_again, init=False)

    def on_unmount(self) -> None:
        """End a search."""
        self._searching.set()

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
            self.action_view("row")
            self.query_one(RowView).ask(question)

    def on_row_view_asked(self, message: RowView.Asked) -> None:
        """Go to the row that was asked for."""
        self.action_view("row")
        if message.answer is None:
            return
        if message.question == "text":
            self._searching.set()
            self._searching = threading.Event()
            # Textual takes a partial of a coroutine function; its types do not say so.
            search: Any = partial(self._search, message.answer, self._searching)
            self.run_worker(search, group="search", exclusive=True)
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
            self.notify(safe(error.message), title=safe(error.title), severity="error", markup=False)
            return
        if found is not None and facts is self._facts:
            self._see(found)
        elif not stopped.is_set():
            self.notify(f"No row holds “{safe(text)}”.", markup=False)

    def action_listed(self, which: str) -> None:
        """The next of the longest rows, of those that are cut, or of those with nothing learnt."""
        rows = getattr(self._app.figures, which) if self._app.figures is not None else ()
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
        unseen = look is not None and look.seen is None and look.asked is not self._app.warm
        if look is None or look.task != task or unseen:
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
        self._look = Look(index, facts.rows, row, task, self._app.warm)
        if known is not None and known.seen is not None and known.task == task:
            # Its tokens come in a moment: turns in between would only flicker.
            self.set_timer(_PATIENCE_SECONDS, self._draw_row)
        else:
            self._has_tokens = False
            self._draw_row()
        read: Any = partial(self._read, self._look, facts)
        self.run_worker(read, group="row", exclusive=True)

    async def _read(self, look: Look, facts: DataFacts) -> None:
        from core.data.seen_row import SeenRow
        from core.runs.launch import NoAnswerError

        assert facts.store is not None
        try:
            if look.row is None:
                look = replace(look, row=await in_thread(partial(row_look.read_row, facts.store, look.index)))
                self._look = look
                if not self._app.warm or look.task is None or not self._has_tokens:
                    self._draw_row()
            if look.task is not None:
                told = await self._app.ask(look.task.question("row", index=look.index))
                self._has_tokens = True
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
            self._show_numbers()

    def _show_numbers(self) -> None:
        draft = self.draft
        length = value_of(draft.values, "max_length")
        state = data_words.counting(draft, self._app.tokens, warm=self._app.warm is not None)
        figures = self._app.figures
        self.query_one(TokenNumbers).show(
            state,
            figures,
            length if isinstance(length, int) else None,
            packing=value_of(draft.values, "packing") is True,
            time=data_words.training_time(draft.planned, figures, self._rate) if figures and draft.planned else "",
        )
