"""What the model answered before and after training, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from core.text import safe
from tui_app.theme import SFTUI_DARK

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from core.runs.events import Answer, SamplesAnswered


class SamplesPanel(VerticalScroll):
    """Prompts with the base model's answers, the tuned model's, and which are as expected."""

    DEFAULT_CSS = """
    SamplesPanel { border: round $border-blurred; border-title-color: $foreground; padding: 0 1; height: 1fr; }
    SamplesPanel:focus { border: round $border; }
    SamplesPanel > Static { height: auto; }
    """
    BINDINGS = [
        Binding("j", "scroll_down", "Down", show=False, tooltip="Scroll down (or ↓)"),
        Binding("k", "scroll_up", "Up", show=False, tooltip="Scroll up (or ↑)"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Answers"
        self._shown: tuple[SamplesAnswered | None, SamplesAnswered | None] = (None, None)
        self._text = Static("No sample prompts were asked yet.", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield self._text

    def show(self, base: SamplesAnswered | None, tuned: SamplesAnswered | None) -> None:
        """Show the answers there are."""
        if (base, tuned) == self._shown:
            return
        self._shown = (base, tuned)
        self.border_title = title(base, tuned)
        self._text.update(answers_table(base, tuned))


def title(base: SamplesAnswered | None, tuned: SamplesAnswered | None) -> str:
    """`Answers as expected: base 0 of 20, tuned 18 of 20`."""
    counts: list[str] = []
    for name, samples in (("base", base), ("tuned", tuned)):
        known = [answer for answer in samples.answers if answer.expected is not None] if samples else []
        if known:
            counts.append(f"{name} {sum(map(is_expected, known))} of {len(known)}")
    return "Answers as expected: " + ", ".join(counts) if counts else "Answers"


def is_expected(answer: Answer) -> bool:
    """Whether an answer is the dataset's own, but for space around it."""
    return answer.expected is not None and answer.answer.strip() == answer.expected.strip()


def answers_table(base: SamplesAnswered | None, tuned: SamplesAnswered | None) -> Table:
    """One row for each prompt; Rich's Text cells keep markup and control characters of the answers out."""
    table = Table(expand=True, box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="dim")
    for name in ("asked", "base", "tuned"):
        table.add_column(name, ratio=2 if name == "asked" else 3, overflow="fold")
    before = {answer.prompt: answer for answer in base.answers} if base else {}
    after = {answer.prompt: answer for answer in tuned.answers} if tuned else {}
    for prompt in dict.fromkeys([*before, *after]):
        asked = Text(safe(prompt.strip()))
        expected = (before.get(prompt) or after[prompt]).expected
        if expected is not None:
            asked.append(f"\nexpected: {safe(expected.strip())}", style="dim")
        table.add_row(asked, _answer(before.get(prompt)), _answer(after.get(prompt), waiting="after training"))
    return table


def _answer(answer: Answer | None, waiting: str = "") -> Text:
    if answer is None:
        return Text(waiting, style="dim")
    text = Text()
    if answer.expected is not None:
        right = is_expected(answer)
        text.append(
            "✓ as expected\n" if right else "✗ differs\n",
            style=SFTUI_DARK.success or "" if right else SFTUI_DARK.warning or "",
        )
    return text.append(safe(answer.answer.strip()) or "(said nothing)")
