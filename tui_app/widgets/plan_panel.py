"""What the run costs, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from core.text import human_bytes, human_count
from tui_app.widgets.fact_list import Fact, FactList
from tui_app.widgets.memory_parts import ShownPart, shown_parts

if TYPE_CHECKING:
    from core.memory.estimate import MemoryEstimate
    from core.memory.plan import Plan

_SIZE_WIDTH = 8
_LEVEL_WIDTH = len("estimated")


class PlanPanel(FactList):
    """A list of memory parts with bytes, how sure they are, and why; those that nobody estimated say so."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(25, id=id)

    def show_plan(self, plan: Plan | None) -> None:
        """Show a plan, or that there is none."""
        if plan is None:
            self.show([Fact("", Content.styled("There is no plan yet.", "$secondary"))])
            return
        costs = _costs(plan.memory) if plan.memory else [Fact("", Content.styled(plan.verdict_reason, "$secondary"))]
        self.show(costs)


def _costs(memory: MemoryEstimate) -> list[Fact]:
    facts = [
        Fact(f"{part.letter} {part.title}", _size(part), part.basis)
        if part.bytes is not None
        else Fact(f"{part.letter} {part.title}", f"{'–':>{_SIZE_WIDTH}}", _missing(part.basis))
        for part in shown_parts(memory)
    ]
    title = "  Together" if memory.total_is_complete else "  At least"
    facts.append(Fact(title, Content.styled(f"{human_bytes(memory.known_bytes):>{_SIZE_WIDTH}}", "bold")))
    trained = f"{human_count(memory.trainable_parameters):>{_SIZE_WIDTH}}"
    return [*facts, Fact("  Trained parameters", trained, f"of {human_count(memory.total_parameters)}")]


def _size(part: ShownPart) -> Content:
    style = "$accent" if part.level in ("estimated", "simulated") else "$foreground"
    return Content.assemble(f"{human_bytes(part.bytes):>{_SIZE_WIDTH}}  ", (f"{part.level:<{_LEVEL_WIDTH}}", style))


def _missing(basis: str) -> str:
    return basis if basis.startswith("not ") else f"not estimated yet: {basis}"
