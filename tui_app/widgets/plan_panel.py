"""What the run costs, part by part, and what sftui chose by itself and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from core.text import human_bytes, human_count, safe
from tui_app.widgets.memory_parts import long_name

if TYPE_CHECKING:
    from core.memory.plan import Plan

_NAME_WIDTH = 24
_SIZE_WIDTH = 9


class PlanPanel(Static):
    """A list of memory parts with bytes and basis; those that nobody estimated say so."""

    DEFAULT_CSS = """
    PlanPanel { height: auto; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(markup=False, id=id)
        self._plan: Plan | None = None

    def show(self, plan: Plan | None) -> None:
        """Show a plan, or that there is none."""
        self._plan = plan
        self._draw()

    def on_resize(self) -> None:
        """The basis wraps within its column."""
        self._draw()

    def _draw(self) -> None:
        if self._plan is None or self._plan.memory is None:
            self.update(Content.styled("Choose a model to see what it costs.", "$secondary"))
            return
        memory = self._plan.memory
        lines = [
            self._row(long_name(part.name), human_bytes(part.bytes), part.basis)
            if part.bytes is not None
            else self._row(long_name(part.name), "–", f"not estimated yet{_because(part.basis)}")
            for part in memory.parts
        ]
        unknown = any(part.bytes is None for part in memory.parts)
        total = sum(part.bytes or 0 for part in memory.parts)
        lines.append(self._row("At least" if unknown else "Together", human_bytes(total), "", "bold"))
        trained = f"{human_count(memory.trainable_parameters)} of {human_count(memory.total_parameters)}"
        lines.append(self._row("Trained parameters", "", trained))
        if self._plan.choices:
            lines += [Content(""), Content.styled("Chosen by sftui", "$accent bold")]
            lines += [
                Content.assemble(
                    f"{safe(choice.name)} ",
                    (safe(str(choice.value)), "bold"),
                    (f"  {safe(choice.reason)}", "$secondary"),
                )
                for choice in self._plan.choices
            ]
        self.update(Content("\n").join(lines))

    def _row(self, name: str, size: str, basis: str, style: str = "") -> Content:
        head = f"{name:<{_NAME_WIDTH}}{size:>{_SIZE_WIDTH}}  "
        width = self.content_size.width - len(head)
        if width < 12 or not basis:
            words = f"\n    {safe(basis)}" if basis else ""
            return Content.assemble((head.rstrip(), style), (words, "$secondary"))
        first, *rest = Content(safe(basis)).wrap(width)
        hanging = "".join(f"\n{' ' * len(head)}{line.plain.strip()}" for line in rest)
        return Content.assemble((head, style), (first.plain.strip() + hanging, "$secondary"))


def _because(basis: str) -> str:
    return f": {basis}" if basis and not basis.startswith("not ") else ""
