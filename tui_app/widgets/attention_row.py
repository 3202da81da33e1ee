"""The row for the attention kernel: those that work here, a kernel of the hub by its name, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Label, Static

from core.models.attention import AttentionOption
from core.spec.build import value_of
from core.spec.problems import Problem
from core.spec.run_spec import options
from core.text import safe, shorten
from tui_app.widgets.echoes import Echoes
from tui_app.widgets.editors import ChoiceEditor
from tui_app.widgets.spec_form import FormRow, row_id

if TYPE_CHECKING:
    from textual.app import ComposeResult

_FIELD = "attn_implementation"
_AUTO, _HUB = "<auto>", "<hub>"
_COMPILED = "! Compiled code from the hub: it may do anything on this machine that you may do."


class AttentionRow(FormRow):
    """Choices of what works here; while one is on the row, it lists the others with why and how to get them."""

    DEFAULT_CSS = """
    AttentionRow #kernel { display: none; }
    AttentionRow.-hub #kernel { display: block; }
    AttentionRow .others { display: none; color: $secondary; }
    AttentionRow:focus-within .others { display: block; }
    """

    def __init__(self) -> None:
        option = options()[_FIELD]
        super().__init__(option.title, ChoiceEditor({_AUTO: "auto"}), stacked=True, id=row_id(_FIELD))
        self.help = f"{_FIELD}: {option.help}"
        self.kernels: tuple[AttentionOption, ...] = ()
        """Every kernel there is, and whether it works here."""
        self._kernel = Input(placeholder="kernels-community/flash-attn2", compact=True, id="kernel")
        self._others = Static(markup=False, classes="others")
        self._echoes = Echoes()

    def compose(self) -> ComposeResult:
        """Title, choices, the field for a kernel's name, note, and what does not work here."""
        yield Label(self._label, markup=False)
        with Vertical(classes="right"):
            yield self.editor
            yield self._kernel
            yield self._note
            yield self._others

    def concerns(self, field: str) -> bool:
        """Whether a problem is about attention."""
        return field == _FIELD

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show what works and what is chosen, also one that does not work."""
        value = value_of(values, _FIELD)
        chosen = _AUTO if value is None else str(value)
        labels = {_AUTO: "auto"} | {kernel.name: kernel.name for kernel in self.kernels if _is_offered(kernel)}
        # Half a name, or none yet, is still typed into the field.
        is_half = value is None or chosen not in {kernel.name for kernel in self.kernels}
        is_hub = "/" in chosen or (self._is_hub_chosen and is_half)
        if is_hub or any("/" in kernel.name and (kernel.available or kernel.how_to_get) for kernel in self.kernels):
            labels[_HUB] = "a kernel of the hub"
        if not is_hub and chosen not in labels:
            labels[chosen] = f"✗ {shorten(chosen, 40)}"
        assert isinstance(self.editor, ChoiceEditor)
        self.editor.show(_HUB if is_hub else chosen, labels)
        self.set_class(is_hub, "-hub")
        typed = "" if value is None else chosen
        if is_hub and self._echoes.is_foreign(typed) and self._kernel.value != typed:
            with self.prevent(Input.Changed):
                self._kernel.value = safe(typed)
        self.tell(problems, _COMPILED if "/" in chosen else "", "" if is_hub else note or options()[_FIELD].help)
        self._others.update(Content("\n").join(Content(line) for line in _not_here(self.kernels)))

    @property
    def _is_hub_chosen(self) -> bool:
        assert isinstance(self.editor, ChoiceEditor)
        return self.editor.value == _HUB

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """A choice was made."""
        event.stop()
        self.set_class(event.value == _HUB, "-hub")
        if event.value == _HUB:
            self._send_kernel(self._kernel.value)
        else:
            self.post_message(self.Edited({_FIELD: None if event.value == _AUTO else event.value}))

    def on_input_changed(self, event: Input.Changed) -> None:
        """A kernel's name is typed."""
        event.stop()
        if self.has_class("-hub"):
            self._send_kernel(event.value)

    def _send_kernel(self, text: str) -> None:
        self._echoes.typed(text.strip())
        self.post_message(self.Edited({_FIELD: text.strip() or None}))


def _is_offered(kernel: AttentionOption) -> bool:
    return kernel.available and "/" not in kernel.name


def _not_here(kernels: Sequence[AttentionOption]) -> list[str]:
    """One line for each reason, with the kernels that it keeps away and the way to get them."""
    reasons: dict[str, list[AttentionOption]] = {}
    for kernel in kernels:
        if not kernel.available:
            reasons.setdefault(kernel.reason, []).append(kernel)
    return [
        safe(f"✗ {', '.join(kernel.name for kernel in kept)}: {reason}. {kept[0].how_to_get}".rstrip())
        for reason, kept in reasons.items()
    ]
