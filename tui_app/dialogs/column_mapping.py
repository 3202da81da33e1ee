"""Which column of a dataset is what: a key gives the column one is on its part, and a row shows what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from core.data.mapping import ColumnMapping, canonical
from core.data.rows import Fault
from core.text import cell_width, safe, shorten
from tui_app.shown_row import text_of, turn_pieces
from tui_app.widgets.token_view import Piece, TokenView

if TYPE_CHECKING:
    from textual.app import ComposeResult

_SLOTS: dict[str, tuple[str, str]] = {
    "messages": ("m", "conversation"),
    "user": ("u", "user's turn"),
    "assistant": ("a", "answer"),
    "system": ("s", "system message"),
    "input": ("i", "input, after the user's text"),
    "history": ("h", "earlier turns"),
    "prompt": ("p", "prompt, as it stands"),
    "completion": ("c", "completion, as it stands"),
    "text": ("t", "plain text"),
    "tools": ("o", "tools"),
    "images": ("g", "images"),
    "label": ("b", "good or bad answer"),
}
# A row is one thing: giving a column a part of one group takes the parts of the others away.
_GROUPS = (
    {"messages"},
    {"user", "assistant", "input", "history"},
    {"prompt", "completion"},
    {"text"},
)
_LONGEST_NAME = 24
_LEARNT = frozenset({"assistant", "completion", "text"})


class ColumnMappingDialog(ModalScreen[dict[str, str] | None]):
    """Returns slot to column as `sftui.columns` has it; {} leaves it to what is recognised, None changes nothing."""

    DEFAULT_CSS = """
    ColumnMappingDialog { align: center middle; background: $background 60%; }
    ColumnMappingDialog > Vertical {
        width: 140; max-width: 98%; height: 40; max-height: 98%; padding: 0 1;
        background: $surface; border: round $border; border-title-color: $foreground;
    }
    ColumnMappingDialog #columns { height: auto; max-height: 9; }
    ColumnMappingDialog.-tall #columns { max-height: 16; }
    ColumnMappingDialog #keys { color: $secondary; margin: 1 0 0 0; }
    ColumnMappingDialog #what { text-style: bold; margin: 1 0 0 0; }
    ColumnMappingDialog TokenView { height: 1fr; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("left", "sample(-1)", show=False),
        Binding("right", "sample(1)", show=False),
        Binding("pageup", "read(-1)", show=False),
        Binding("pagedown", "read(1)", show=False),
        *(Binding(key, f"give('{slot}')", show=False) for slot, (key, _) in _SLOTS.items()),
        Binding("x,backspace,delete", "give('')", show=False),
        Binding("r", "recognise", show=False),
        Binding("enter", "take", show=False),
        Binding("escape", "dismiss(None)", show=False),
    ]
    AUTO_FOCUS = ""

    def __init__(
        self,
        columns: Sequence[str],
        sample: Sequence[Mapping[str, Any]],
        mapping: ColumnMapping,
        *,
        convert: Callable[[Any, ColumnMapping], dict[str, Any] | Fault] = canonical,
    ) -> None:
        super().__init__()
        self._columns, self._sample, self._convert = list(columns), list(sample), convert
        self._slots = mapping.to_dict()
        self._at = 0
        self._row = 0

    def compose(self) -> ComposeResult:
        """Columns, keys, and what one row becomes."""
        with Vertical() as box:
            box.border_title = "Which column is what?"
            box.border_subtitle = "enter takes it   escape changes nothing   r as recognised"
            with VerticalScroll(id="columns", can_focus=False):
                yield Static(markup=False, id="table")
            yield Static(_key_words(), markup=False, id="keys")
            yield Static(markup=False, id="what")
            yield TokenView()

    def on_mount(self) -> None:
        """Draw it; nothing has the focus, so that every key is ours."""
        self.query_one(TokenView).can_focus = False
        self._draw()

    def on_resize(self) -> None:
        """Samples are cut to the width."""
        self._draw()

    @property
    def mapping(self) -> ColumnMapping:
        """What was chosen so far."""
        return ColumnMapping.from_dict(self._slots)

    def action_move(self, by: int) -> None:
        """Go to another column."""
        if self._columns:
            self._at = (self._at + by) % len(self._columns)
            self._draw()

    def action_sample(self, by: int) -> None:
        """Look at another row."""
        if self._sample:
            self._row = (self._row + by) % len(self._sample)
            self._draw()

    def action_read(self, by: int) -> None:
        """Scroll in what the row becomes."""
        preview = self.query_one(TokenView)
        preview.scroll_relative(y=by * max(1, preview.size.height - 1), animate=False)

    def action_give(self, slot: str) -> None:
        """Give the column one is on a part, or none."""
        if not self._columns:
            return
        self._slots = given(self._slots, self._columns[self._at], slot)
        self._draw()

    def action_recognise(self) -> None:
        """Leave it to what is recognised."""
        self.dismiss({})

    def action_take(self) -> None:
        """Take the choice, if rows become something by it."""
        if self.mapping.form == "unknown":
            self.notify(_missing(self._slots), severity="warning", markup=False)
        else:
            self.dismiss(self._slots)

    def _draw(self) -> None:
        width = max(40, self.query_one("#columns").content_size.width)
        row = self._sample[self._row] if self._sample else {}
        parts = {column: slot for slot, column in self._slots.items()}
        lines = [
            _column_line(name, parts.get(name), row.get(name), width, chosen=number == self._at)
            for number, name in enumerate(self._columns)
        ]
        self.query_one("#table", Static).update(Content("\n").join(lines))
        scroll = self.query_one("#columns", VerticalScroll)
        height = max(1, scroll.size.height)
        if not scroll.scroll_offset.y <= self._at < scroll.scroll_offset.y + height:
            scroll.scroll_to(y=self._at - height // 2, animate=False)
        what, pieces = self._preview(row)
        self.query_one("#what", Static).update(what)
        self.query_one(TokenView).show(pieces)

    def _preview(self, row: Mapping[str, Any]) -> tuple[str, list[Piece]]:
        if not self._sample:
            return "There is no row to look at.", []
        where = f"Row {self._row + 1} of the first {len(self._sample)} (← →) becomes "
        if self.mapping.form == "unknown":
            return f"{where}nothing yet", [Piece(_missing(self._slots), "note")]
        found = self._convert(row, self.mapping)
        if isinstance(found, Fault):
            return f"{where}a problem", [Piece(f"✗ {found.message} {found.fix}", "problem")]
        names = {"messages": "a conversation", "prompt-completion": "a prompt and its answer", "text": "a plain text"}
        pieces = turn_pieces(found, _LEARNT)
        return f"{where}{names[self.mapping.form]}; what is in brackets can be learnt from:", pieces


def given(slots: Mapping[str, str], column: str, slot: str) -> dict[str, str]:
    """Slots to columns after a column was given a slot, or none ("")."""
    left = {name: other for name, other in slots.items() if other != column}
    if not slot:
        return left
    group = next((group for group in _GROUPS if slot in group), None)
    if group is not None:
        others = set().union(*_GROUPS) - group
        left = {name: other for name, other in left.items() if name not in others}
    return {**left, slot: column}


def _missing(slots: Mapping[str, str]) -> str:
    if "user" in slots:
        return "A column must be the answer, too: go to it and press a."
    if "assistant" in slots:
        return "A column must be the user's turn, too: go to it and press u."
    if "prompt" in slots:
        return "A column must be the completion, too: go to it and press c."
    if "completion" in slots:
        return "A column must be the prompt, too: go to it and press p."
    return "Go to a column with ↑ ↓ and say what it is: m a conversation, t a plain text, or u the user's turn."


def _column_line(name: str, slot: str | None, value: Any, width: int, *, chosen: bool) -> Content:
    mark = "▸ " if chosen else "  "
    title = shorten(safe(name), _LONGEST_NAME)
    title += " " * (_LONGEST_NAME - cell_width(title))
    part = f"{_SLOTS[slot][0]} {_SLOTS[slot][1].partition(',')[0]}" if slot else "–"
    sample = "null" if value is None else safe(text_of(value))
    head = f"{mark}{title}  {part:<18}"
    rest = shorten(sample, max(8, width - cell_width(head) - 2))
    style = "$block-cursor-foreground on $block-cursor-background bold" if chosen else "$foreground"
    return Content.assemble((head, style), ("  " + rest, "$secondary"))


def _key_words() -> Content:
    parts: list[str | tuple[str, str]] = [("↑ ↓ column   ", "$secondary")]
    for key, words in _SLOTS.values():
        # A key and its words stay together where the line wraps.
        parts += [(key, "bold $accent"), f"\u00a0{words}   ".replace(" ", "\u00a0").rstrip("\u00a0") + "   "]
    return Content.assemble(*parts, ("x", "bold $accent"), "\u00a0none")
