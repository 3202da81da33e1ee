"""What of a row is learnt: one choice for the two options that TRL has for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.data.learn_from import LearnFrom, learn_from
from core.spec.build import value_of
from core.spec.problems import Problem
from tui_app.messages import REMOVED
from tui_app.widgets.editors import ChoiceEditor
from tui_app.widgets.spec_form import FormRow, row_id

if TYPE_CHECKING:
    from core.data.rows import Form

FIELDS = ("assistant_only_loss", "completion_only_loss")
_LABELS: dict[str, str] = {
    "assistant": "assistant turns",
    "completion": "the completion",
    "all": "the whole text",
}
_NOTES: Mapping[LearnFrom, str] = {
    "assistant": "Only what the assistant says is learnt; system, user and tools are read.",
    "completion": "Only the completion is learnt; the prompt is read.",
    "all": "Everything is learnt, also what the user says.",
}


class _Loss:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self.assistant_only_loss = value_of(values, "assistant_only_loss") is True
        completion = value_of(values, "completion_only_loss")
        self.completion_only_loss = completion if isinstance(completion, bool) else None


class LearntRow(FormRow):
    """The choices that the rows leave."""

    def __init__(self) -> None:
        super().__init__("Learnt from", ChoiceEditor({**_LABELS}), stacked=True, id=row_id(FIELDS[0]))
        self.help = "assistant_only_loss, completion_only_loss: which tokens the loss counts."
        self._form: Form = "unknown"

    def concerns(self, field: str) -> bool:
        """Whether a problem is about what is learnt."""
        return field in FIELDS

    def set_rows(self, form: Form, *, turns: bool) -> None:
        """Offer what makes sense for rows in this form; `turns` says whether prompts are messages."""
        assert isinstance(self.editor, ChoiceEditor)
        self._form = form
        offered: dict[Form, tuple[LearnFrom, ...]] = {
            "messages": ("assistant", "all"),
            "prompt-completion": ("completion", *(("assistant",) if turns else ()), "all"),
            "text": ("all",),
            "unknown": ("assistant", "completion", "all"),
        }
        self.editor.show(self.editor.value, {choice: _LABELS[choice] for choice in offered[form]})

    def show(self, values: Mapping[str, Any], problems: Sequence[Problem], note: str = "") -> None:
        """Show what is learnt, and what that means."""
        assert isinstance(self.editor, ChoiceEditor)
        chosen = learn_from(_Loss(values), self._form)
        self.editor.show(chosen)
        self.tell(problems, note or _NOTES[chosen])

    def on_choice_editor_changed(self, event: ChoiceEditor.Changed) -> None:
        """Say it with TRL's two options."""
        event.stop()
        # Left to itself, TRL learns completions only where there are any.
        whole = self._form == "prompt-completion" and event.value == "all"
        changes = {
            "assistant_only_loss": True if event.value == "assistant" else REMOVED,
            "completion_only_loss": False if whole else REMOVED,
        }
        self.post_message(self.Edited(changes))


def learnt_roles(values: Mapping[str, Any], form: Form) -> frozenset[str]:
    """Which roles of a row's turns the loss counts."""
    every = {"system", "developer", "user", "assistant", "tool", "tools", "prompt", "completion", "text"}
    learnt: Mapping[LearnFrom, frozenset[str]] = {
        "assistant": frozenset({"assistant"}),
        "completion": frozenset({"completion", "assistant"}),
        "all": frozenset(every),
    }
    return learnt[learn_from(_Loss(values), form)]
