"""What the model answered before and after training, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from core.text import safe
from tui_app.format import number
from tui_app.theme import SFTUI_DARK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from core.runs.events import Answer, SamplesAnswered

_MOST_COUNTS = 4


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
        self._shown: tuple[object, ...] = ()
        self._base: SamplesAnswered | None = None
        self._tuned: tuple[SamplesAnswered, ...] = ()
        self._back = 0
        self._text = Static("No sample prompts were asked yet.", markup=False)

    def compose(self) -> ComposeResult:
        """Lay out the text."""
        yield self._text

    def show(self, base: SamplesAnswered | None, tuned: Sequence[SamplesAnswered]) -> None:
        """Show the base's answers beside the newest of those in training, or those that were gone back to."""
        if self._back and len(tuned) > len(self._tuned):
            # What is looked at stays while newer ones come.
            self._back += len(tuned) - len(self._tuned)
        self._base, self._tuned = base, tuple(tuned)
        self._draw()

    def go(self, by: int) -> None:
        """Show earlier (-1) or later (1) answers."""
        self._back = min(max(0, self._back - by), max(0, len(self._tuned) - 1))
        self._draw()

    def _draw(self) -> None:
        chosen = self._tuned[-1 - self._back] if self._tuned else None
        if (self._base, chosen, len(self._tuned)) == self._shown or (self._base is None and chosen is None):
            return
        self._shown = (self._base, chosen, len(self._tuned))
        self.border_title = title(self._base, self._tuned, chosen)
        if len(self._tuned) > 1:
            self.border_subtitle = f"{len(self._tuned) - self._back} of {len(self._tuned)}   [ earlier   ] later"
        self._text.update(answers_table(self._base, chosen, several=len(self._tuned) > 1))


def title(base: SamplesAnswered | None, tuned: Sequence[SamplesAnswered], chosen: SamplesAnswered | None = None) -> str:
    """`Answers as expected: base 0 of 20, tuned 18 of 20`; over time `As expected of 20: base 0, step 50: 9, …`."""
    counts: list[tuple[str, int, int]] = []
    for samples in (*((base,) if base else ()), *tuned[-_MOST_COUNTS:]):
        known = [answer for answer in samples.answers if answer.expected is not None]
        if known:
            name = samples.who if len(tuned) < 2 or samples.who == "base" else f"step {number(samples.step)}"
            mark = "▸" if samples is chosen and len(tuned) > 1 else ""
            counts.append((mark + name, sum(map(is_expected, known)), len(known)))
    if not counts:
        return "Answers"
    if len(tuned) < 2:
        return "Answers as expected: " + ", ".join(f"{name} {right} of {known}" for name, right, known in counts)
    return f"As expected of {counts[-1][2]}: " + ", ".join(f"{name} {right}" for name, right, _ in counts)


def is_expected(answer: Answer) -> bool:
    """Whether an answer is the dataset's own, but for space around it."""
    return answer.expected is not None and answer.answer.strip() == answer.expected.strip()


def answers_table(base: SamplesAnswered | None, tuned: SamplesAnswered | None, *, several: bool = False) -> Table:
    """One row for each prompt; Rich's Text cells keep markup and control characters of the answers out."""
    table = Table(expand=True, box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="dim")
    after_steps = f"step {number(tuned.step)}" if tuned is not None and several else "tuned"
    for name in ("asked", "base", after_steps):
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
