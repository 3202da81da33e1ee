"""The first line of every screen: where one is, which steps are done, and on which machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.text import cell_width, safe, shorten

if TYPE_CHECKING:
    from textual.app import RenderResult

    from tui_app.draft import Draft, Step

STEPS: tuple[tuple[Step, str], ...] = (
    ("model", "Model"),
    ("data", "Data"),
    ("precision", "Precision"),
    ("training", "Training"),
    ("review", "Review"),
)


class StepHeader(Widget):
    """` sftui   1 Model ✓   2 Data ✓  [3 Precision]  4 Training   5 Review      host  device`.

    `current` is the step one is on; a screen that is no step of the set-up passes a `title` and gets that instead of
    the steps. The ticks follow the app's `draft`, the right end its `machine` line.
    """

    DEFAULT_CSS = """
    StepHeader { dock: top; height: 1; background: $panel; color: $foreground; }
    """

    def __init__(self, current: str = "", title: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.current = current
        self._title = safe(title)
        self._done: frozenset[str] = frozenset()
        self._machine = ""

    def on_mount(self) -> None:
        """Follow the app's draft and machine."""
        self.watch(self.app, "draft", self._follow_draft)
        self.watch(self.app, "machine", self._follow_machine)

    def _follow_draft(self, draft: Draft | None) -> None:
        if draft is not None and self.current:
            self.show(done=frozenset(name for name, _ in STEPS if draft.done(name)))

    def _follow_machine(self, machine: str) -> None:
        self.show(machine=machine)

    def show(self, *, done: frozenset[str] | None = None, machine: str | None = None, title: str | None = None) -> None:
        """Show which steps are done, the machine in words and, off the set-up, the title; None leaves it."""
        before = (self._done, self._machine, self._title)
        self._done = self._done if done is None else done
        self._machine = self._machine if machine is None else safe(machine)
        self._title = self._title if title is None else safe(title)
        if before != (self._done, self._machine, self._title):
            self.refresh()

    def render(self) -> RenderResult:
        """Draw the line; the machine goes first when room is short, then the ticks' padding."""
        left = self._steps() if self.current else Content.assemble(("sftui", "bold $accent"), "   ", self._title)
        left = Content.assemble(" ", left)
        room = self.size.width - left.cell_length - 2
        machine = shorten(self._machine, room) if room >= 8 else ""
        gap = max(0, self.size.width - left.cell_length - cell_width(machine) - 1)
        return Content.assemble(left, " " * gap, (machine, "$secondary"))

    def _steps(self) -> Content:
        parts: list[Content | str | tuple[str, str]] = [("sftui", "bold $accent"), "  "]
        for number, (name, title) in enumerate(STEPS, start=1):
            tick = " ✓" if name in self._done else ""
            if name == self.current:
                parts.append((f"[{number} {title}{tick}]", "bold $foreground"))
            else:
                parts.append((f" {number} {title}{tick} ", "$success" if tick else "$secondary"))
        return Content("").join([part if isinstance(part, Content) else Content.assemble(part) for part in parts])
