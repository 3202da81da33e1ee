"""Which column of a dataset is what, and rows brought into the one form that is trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from core.data.rows import Fault, Form
from core.errors import SftuiError


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """For each slot the dataset's column that fills it; empty slots are None."""

    messages: str | None = None
    """A conversation: OpenAI messages or ShareGPT turns, or JSON of them in a text."""
    prompt: str | None = None
    """What is given, as it stands: a text without a chat template, or messages."""
    completion: str | None = None
    """What is learnt, as it stands: a text without a chat template, or messages."""
    user: str | None = None
    """A text that becomes the user's turn."""
    assistant: str | None = None
    """A text that becomes the assistant's turn."""
    text: str | None = None
    """A plain text, learnt as it stands."""
    system: str | None = None
    """A text that becomes the system message."""
    input: str | None = None
    """A text that follows the user's after an empty line (Alpaca's input)."""
    history: str | None = None
    """Earlier turns, pairs of a question and its answer."""
    tools: str | None = None
    """Descriptions of the tools that may be called, a list or JSON of one."""
    images: str | None = None
    """One image or a list of them."""

    @property
    def form(self) -> Form:
        """What the rows become; "unknown" while a slot is missing for each."""
        if self.messages is not None:
            return "messages"
        if (self.prompt is not None and self.completion is not None) or (
            self.user is not None and self.assistant is not None
        ):
            return "prompt-completion"
        return "unknown" if self.text is None else "text"

    def to_dict(self) -> dict[str, str]:
        """Slot to column, as `sftui.columns` of a spec holds it."""
        return {slot: column for slot in SLOTS if (column := getattr(self, slot)) is not None}

    @classmethod
    def from_dict(cls, columns: Mapping[str, str]) -> "ColumnMapping":
        """The mapping that a spec holds. Raises SftuiError for a slot that there is not."""
        unknown = [slot for slot in columns if slot not in SLOTS]
        if unknown:
            raise SftuiError(
                "There is no such slot for a column",
                f"`{unknown[0]}` is none of {', '.join(SLOTS)}.",
                "Write what the column is to be as the key, and the column's name as its value.",
            )
        return cls(**columns)


SLOTS = tuple(field.name for field in fields(ColumnMapping))


def canonical(value: Any, mapping: ColumnMapping) -> dict[str, Any] | Fault:
    """The row in the form that is trained on, or what is wrong with it.

    messages: {"messages", "tools"?, "images"?}; prompt-completion: {"prompt", "completion", "tools"?, "images"?},
    both texts or both lists of messages; text: {"text"}. JSON-like throughout. Never raises.
    """
    raise NotImplementedError


def doubt(row: dict[str, Any]) -> Fault | None:
    """What some chat templates refuse about a canonical row: a warning, because the template decides."""
    raise NotImplementedError
