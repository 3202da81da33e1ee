"""The chat template: the tokenizer's own, or for a base model one that is offered with what it changes, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textual.containers import Vertical
from textual.widgets import Input, Label

from core.data.chat_templates import BUILT_IN, TemplateOffer
from core.spec.build import value_of
from core.spec.problems import Problem
from core.text import human_bytes, human_count, safe
from tui_app.messages import REMOVED
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.editors import ChoiceEditor
from tui_app.widgets.spec_form import FormRow, row_id

if TYPE_CHECKING:
    from textual.app import ComposeResult

FIELD = "chat_template_path"
_OWN, _FILE = "<own>", "<file>"


class TemplateRow(FormRow):
    """Choices, a field for a file or a folder, and what the chosen one changes."""

    DEFAULT_CSS = """
    TemplateRow #template-file { display: none; }
    TemplateRow.-file #template-file { display: block; }
    """

    def __init__(self) -> None:
        super().__init__("Chat template", ChoiceEditor({_OWN: "own"}), stacked=True, id=row_id(FIELD))
        self.help = f"{FIELD}: turns become one text by it. It is saved with the result."
        self._file = Input(placeholder="template.jinja, or a folder with a tokenizer", compact=True, id="template-file")
        self._echoes = Echoes()
        self._own: bool | None = None
        self._offers: dict[str, TemplateOffer] = {}
        self._decisions = ""

    def compose(self) -> ComposeResult:
        """Title, choices, the field for a file, note."""
        yield Label(self._label, markup=False)
        with Vertical(classes="right"):
            yield self.editor
            yield self._file
            yield self._note

    def concerns(self, field: str) -> bool:
        """Whether a problem is about the template."""
        return field == FIELD

    def set_model(self, own: bool | None, offers: Sequence[TemplateOffer]) -> None:
        """Offer what suits the model; `own` says whether it has a template, None while there is no model."""
        self._own = own
        self._offers = {offer.template.name: offer for offer in offers}

    def set_decisions(self, words: str) -> None:
        """Say what was decided and mended about template and tokenizer, once a row was tokenized."""
        self._decisions = words

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show which one is set, and what it means."""
        assert isinstance(self.editor, ChoiceEditor)
        value = value_of(values, FIELD)
        labels = {_OWN: "none" if self._own is False else "the model's own"}
        labels |= {name: offer.template.title for name, offer in self._offers.items()}
        if value in BUILT_IN and value not in labels:
            labels[str(value)] = BUILT_IN[str(value)].title
        chosen = _OWN if value is None else str(value) if value in labels else _FILE
        self.editor.show(chosen, {**labels, _FILE: "a file"})
        self.set_class(chosen == _FILE, "-file")
        if chosen == _FILE and self._echoes.is_foreign(value) and self._file.value != value:
            with self.prevent(Input.Changed):
                self._file.value = safe(str(value))
        notes = [note] if note else [self._meaning(chosen), *self._decisions.splitlines()]
        self.tell(problems, *notes)

    def _meaning(self, chosen: str) -> str:
        if chosen == _OWN:
            return "A base model has none." if self._own is False else "Turns become one text by it."
        offer = self._offers.get(chosen)
        return "Saved with the result." if offer is None else offer_words(offer)

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """Another one was chosen."""
        event.stop()
        value: Any = event.value
        if value == _OWN:
            value = REMOVED
        elif value == _FILE:
            value = self._file.value
            self._echoes.typed(value)
        self.post_message(self.Edited({FIELD: value}))

    def on_input_changed(self, event: Input.Changed) -> None:
        """A file was typed."""
        event.stop()
        self._echoes.typed(event.value)
        self.post_message(self.Edited({FIELD: event.value}))


def offer_words(offer: TemplateOffer) -> str:
    """What taking a template changes."""
    words = [f"{offer.template.title}: {offer.reason}."]
    if offer.new_tokens:
        words.append(f"New: {', '.join(offer.new_tokens)}.")
        if offer.added_rows:
            words.append(
                f"The embedding grows by {offer.added_rows} rows ({human_bytes(offer.weight_bytes)}), "
                "and the result holds all of it."
            )
        elif offer.spare_rows:
            words.append(f"They take {offer.spare_rows} spare rows of the embedding.")
        words.append(f"{human_count(offer.trained_parameters)} weights of theirs are trained.")
    return " ".join([*words, "Saved with the result."])
