"""A form made from the declared options: for each one its title, an editor, and why, what it costs or what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static

from core.spec.build import parse_value, value_of
from core.spec.option import Option
from core.spec.problems import Problem
from core.spec.run_spec import options
from core.text import safe
from tui_app.messages import REMOVED
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.editors import ChoiceEditor, SwitchEditor

if TYPE_CHECKING:
    from textual.app import ComposeResult

_UNSET = "<unset>"
_UNSET_LABEL = "auto"
# Sentences hold commas.
_SEPARATORS = {"sftui.sample_prompts": " | "}


def shown_value(value: Any, name: str = "") -> str:
    """A value as one would type it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) >= 1e-3 or not value else _scientific(value)
    if isinstance(value, list | tuple):
        return _SEPARATORS.get(name, ", ").join(str(item) for item in value)
    return str(value)


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def problem_lines(problems: Sequence[Problem]) -> list[Content]:
    """Problems in words, errors marked ✗ and warnings !, each followed by what mends it."""
    lines = []
    for problem in problems:
        mark, style = ("✗", "$error") if problem.level == "error" else ("!", "$warning")
        words = f"{mark} {safe(problem.message)}" + (f" {safe(problem.fix)}" if problem.fix else "")
        lines.append(Content.styled(words, style))
    return lines


class FormRow(Horizontal):
    """A title, an editor and a note; the note stands below a `stacked` editor, else beside it."""

    DEFAULT_CSS = """
    FormRow { height: auto; padding: 0 1 0 0; border-left: blank; }
    FormRow:focus-within { border-left: outer $accent; }
    FormRow > Label { width: 22; color: $foreground; }
    FormRow:focus-within > Label { text-style: bold; }
    FormRow > .right { width: 1fr; height: auto; layout: horizontal; }
    FormRow.-stacked > .right { layout: vertical; }
    FormRow .note { color: $secondary; width: 1fr; }
    FormRow Input { width: 12; margin: 0 2 0 0; }
    FormRow.-stacked Input { width: 1fr; margin: 0; }
    FormRow SwitchEditor { margin: 0 11 0 0; }
    FormRow Input, FormRow Input:focus { background: $panel; }
    """

    class Edited(Message):
        """The user typed or chose; a change is REMOVED where an option is to fall back to its default."""

        def __init__(self, changes: Mapping[str, Any]) -> None:
            super().__init__()
            self.changes = dict(changes)

    def __init__(
        self, title: str, editor: Input | ChoiceEditor | SwitchEditor, *, stacked: bool, id: str | None = None
    ) -> None:
        super().__init__(id=id, classes="-stacked" if stacked else "")
        self.editor = editor
        self.help = ""
        """Shown while one is on this row."""
        self._label = title
        self._note = Static(markup=False, classes="note")
        self._lines: list[Content] = []
        self._price = ""

    def compose(self) -> ComposeResult:
        """Title, editor, note."""
        yield Label(self._label, markup=False)
        with Vertical(classes="right"):
            yield self.editor
            yield self._note

    def tell(self, problems: Sequence[Problem], *notes: str) -> None:
        """Say what is wrong, or if nothing is, the notes."""
        lines = problem_lines(problems)
        if not lines:
            lines = [Content(safe(note)) for note in notes if note]
        self._lines = lines
        self._draw_note()
        self.set_class(any(problem.level == "error" for problem in problems), "-error")

    def tell_price(self, words: str) -> None:
        """Say beside the note what other values would cost; empty takes it back."""
        if words != self._price:
            self._price = words
            self._draw_note()

    def _draw_note(self) -> None:
        price = [Content.styled(safe(self._price), "$foreground")] if self._price else []
        self._note.update(Content("\n").join([*self._lines, *price]))

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show what is set, what is wrong with it, and why or at what price it is so."""
        raise NotImplementedError

    def concerns(self, field: str) -> bool:
        """Whether a problem's field is set in this row."""
        raise NotImplementedError


class OptionRow(FormRow):
    """One declared option."""

    def __init__(self, option: Option, *, title: str | None = None) -> None:
        self.option = option
        self._echoes = Echoes()
        editor = _editor(option)
        narrow = {int, float, bool} & set(option.kinds) and list not in option.kinds
        super().__init__(
            title or option.title,
            editor,
            stacked=isinstance(editor, ChoiceEditor) or not narrow,
            id=row_id(option.name),
        )
        numeric = {int, float} & set(option.kinds)
        self.help = f"{option.name}: {option.help}" + (f" It may be {option.allowed()}." if numeric else "")

    def concerns(self, field: str) -> bool:
        """Whether a problem's field is this option."""
        return field.partition("[")[0] in (self.option.name, self.option.name.removeprefix("sftui."))

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show what is set, what is wrong with it, and why or at what price it is so."""
        self._show_value(value_of(values, self.option.name))
        self.tell(problems, note or self.option.help)

    def _show_value(self, value: Any) -> None:
        if isinstance(self.editor, SwitchEditor):
            self.editor.show(value is True)
        elif isinstance(self.editor, ChoiceEditor):
            self.editor.show(_UNSET if value is None else shown_value(value))
        elif self._echoes.is_foreign(value) and (not self.editor.value or self._meant(self.editor.value) != value):
            with self.prevent(Input.Changed):
                self.editor.value = safe(shown_value(value, self.option.name))
            if self.editor.has_focus:
                # As if one had come to the field after it was filled: typing replaces the value.
                self.editor.select_all()

    def _meant(self, text: str) -> Any:
        # An empty field stands for the default, which its placeholder shows.
        value = typed_value(self.option, text)
        return value_of({}, self.option.name) if value is REMOVED else value

    def on_input_changed(self, event: Input.Changed) -> None:
        """Every key counts."""
        event.stop()
        self._echoes.typed(self._meant(event.value))
        self.post_message(self.Edited({self.option.name: typed_value(self.option, event.value)}))

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """A choice was made."""
        event.stop()
        value = None if event.value == _UNSET else parse_value(self.option.name, event.value)
        self.post_message(self.Edited({self.option.name: value}))

    def on_switch_editor_changed(self, event: SwitchEditor.Changed) -> None:
        """A switch was turned."""
        event.stop()
        self.post_message(self.Edited({self.option.name: event.value}))


class SpecForm(Vertical):
    """Rows in the given order: the name of an option, a row of its own, or a heading that starts with #."""

    DEFAULT_CSS = """
    SpecForm { height: auto; width: 1fr; }
    SpecForm > .heading { color: $accent; text-style: bold; padding: 0 0 0 1; margin: 1 0 0 0; }
    SpecForm > .heading.-first { margin: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "app.focus_next", "Next option", show=False),
        Binding("up,k", "app.focus_previous", "Previous option", show=False),
    ]

    def __init__(self, entries: Sequence[str | FormRow], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._entries = tuple(entries)

    def compose(self) -> ComposeResult:
        """A row for each option."""
        declared = options()
        for number, entry in enumerate(self._entries):
            if isinstance(entry, FormRow):
                yield entry
            elif entry.startswith("#"):
                yield Label(entry[1:], markup=False, classes="heading -first" if number == 0 else "heading")
            else:
                yield OptionRow(declared[entry])

    def show(
        self,
        values: Mapping[str, Any],
        problems: Sequence[Problem],
        notes: Mapping[str, str] | None = None,
        *,
        hidden: Collection[str] = (),
    ) -> None:
        """Show all options as they are set, each with its problems and its note; leave out those that do nothing."""
        hidden_rows = {row_id(name) for name in hidden}
        told = {row_id(name): note for name, note in (notes or {}).items()}
        for row in self.query(FormRow):
            own = [problem for problem in problems if row.concerns(problem.field)]
            row.show(values, own, told.get(row.id or "", ""))
            row.display = row.id not in hidden_rows or bool(own)
        # From the last to the first: a heading over nothing goes too.
        below = False
        for child in reversed(self.children):
            if child.has_class("heading"):
                child.display, below = below, False
            else:
                below = below or child.display

    def row(self, name: str) -> FormRow:
        """The row of one option."""
        return self.query_one(f"#{row_id(name)}", FormRow)


def row_id(name: str) -> str:
    """The id of an option's row in the DOM."""
    return "option-" + name.replace(".", "-")


def _editor(option: Option) -> Input | ChoiceEditor | SwitchEditor:
    if option.kinds == (bool,):
        if not option.optional:
            return SwitchEditor()
        return ChoiceEditor({_UNSET: _UNSET_LABEL, "true": "on", "false": "off"})
    if option.choices and list not in option.kinds:
        unset = {_UNSET: _UNSET_LABEL} if option.optional else {}
        return ChoiceEditor(unset | {choice: choice for choice in option.choices})
    default = shown_value(value_of({}, option.name))
    if option.optional:
        return Input(placeholder="none", compact=True)
    return Input(placeholder=default, compact=True)


def typed_value(option: Option, text: str) -> Any:
    """What typed text means for an option; REMOVED if it means the default."""
    if not text.strip():
        default = value_of({}, option.name)
        return None if option.optional and default is not None else REMOVED
    separator = _SEPARATORS.get(option.name)
    if separator is not None:
        return [part.strip() for part in text.split(separator.strip()) if part.strip()]
    return parse_value(option.name, text)
