"""What one side says: questions and answers, the last one as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.text import human_duration, safe

if TYPE_CHECKING:
    from core.results.asking import Said

_ENDS = {"length": "cut at its longest", "stopped": "stopped"}


class AnswerPane(VerticalScroll):
    """A conversation with the base or with a result; stays at its end unless scrolled up."""

    DEFAULT_CSS = """
    AnswerPane { border: round $border-blurred; border-title-color: $foreground; padding: 0 1; }
    AnswerPane { border-subtitle-color: $secondary; }
    AnswerPane { height: 1fr; width: 1fr; }
    AnswerPane:focus { border: round $border; }
    AnswerPane > Static { height: auto; margin: 0 0 1 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, tooltip="Scroll down (or ↓)"),
        Binding("k", "scroll_up", "Up", show=False, tooltip="Scroll up (or ↑)"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.side = ""
        self.answer = ""
        """The last answer, as far as it has come."""
        self._asked = ""
        self._last: Static | None = None

    def show_side(self, side: str, title: str) -> None:
        """Say whose pane it is, and begin anew."""
        self.side = side
        self.border_title = Content(safe(title))
        self.clear()

    def clear(self) -> None:
        """Forget what was said."""
        self.remove_children()
        self._last, self._asked, self.answer = None, "", ""
        self.border_subtitle = None

    def begin(self, asked: str) -> None:
        """A question was asked; its answer is to come."""
        self._asked, self.answer = asked, ""
        self._last = Static(self._content("…", "$secondary"), markup=False)
        self.mount(self._last)
        self.border_subtitle = None
        self.call_after_refresh(self.scroll_end, animate=False)

    def hear(self, text: str) -> None:
        """More of the answer."""
        self.answer += text
        self._show(self._content(self.answer))

    def end(self, said: Said, expected: str | None) -> None:
        """The answer is whole: say how it ended, how fast it came and whether it is the one that was expected."""
        self.answer = said.text
        rate = f"{said.tokens / said.seconds:,.0f} tokens/s" if said.seconds > 0 else ""
        words = [_ENDS.get(said.end, ""), f"{said.tokens:,} tokens in {human_duration(said.seconds)}", rate]
        self.border_subtitle = Content(", ".join(filter(None, words)))
        content = self._content(said.text or "(said nothing)")
        if expected is not None:
            right = said.text.strip() == expected.strip()
            mark = ("✓ as expected", "$success") if right else ("✗ differs", "$warning")
            content = Content.assemble(content, "\n", mark)
        self._show(content)

    def fail(self, words: str) -> None:
        """There is no answer, and why."""
        self._show(self._content(words, "$error"))

    def _show(self, content: Content) -> None:
        if self._last is None:
            return
        at_end = self.scroll_y >= self.max_scroll_y - 1
        self._last.update(content)
        if at_end:
            self.call_after_refresh(self.scroll_end, animate=False)

    def _content(self, text: str, style: str = "") -> Content:
        asked = Content.styled(f"› {safe(self._asked, keep_newlines=True)}", "$secondary")
        return Content.assemble(asked, "\n", (safe(text, keep_newlines=True), style))
