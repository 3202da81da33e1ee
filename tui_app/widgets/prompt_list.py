"""The prompts of a run's held-out rows, to ask them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from core.text import safe, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.results.asking import HeldOutPrompt

_SHOWN = 200


class PromptList(OptionList):
    """One prompt a line; enter asks it."""

    DEFAULT_CSS = """
    PromptList { background: $background; border: round $border-blurred; border-title-color: $foreground; }
    PromptList { padding: 0 1; scrollbar-size-vertical: 1; height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    PromptList > .option-list--option { padding: 0; }
    PromptList:focus { border: round $border; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Ask this", tooltip="Ask both this held-out prompt"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g", "first", "First", show=False),
        Binding("G", "last", "Last", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self.border_title = "Held-out prompts"
        self._prompts: tuple[HeldOutPrompt, ...] = ()

    def show(self, prompts: Sequence[HeldOutPrompt]) -> None:
        """List them; those beyond the first 200 are not."""
        self._prompts = tuple(prompts)[:_SHOWN]
        self.set_options([Option(Content(shorten(safe(" ".join(one.shown.split())), 120))) for one in self._prompts])
        self.highlighted = 0 if self._prompts else None
        self.border_subtitle = f"{len(self._prompts):,}" if self._prompts else None

    @property
    def current(self) -> HeldOutPrompt | None:
        """The one under the cursor."""
        return self._prompts[self.highlighted] if self.highlighted is not None else None
