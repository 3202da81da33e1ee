"""What the run would hold of the device's memory: one bar, its legend, and the verdict in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.text import cell_width, human_bytes, safe, shorten
from tui_app.widgets.memory_parts import letter, short_name

if TYPE_CHECKING:
    from textual.app import RenderResult

    from core.memory.plan import Plan

_FREE = "·"
_IN_USE = "▒"
_END = "┃"
_VERDICTS = {
    "fits": ("✓", "fits", "$success"),
    "tight": ("!", "tight", "$warning"),
    "does_not_fit": ("✗", "does not fit", "$error"),
    "unknown": ("?", "not known", "$secondary"),
}
_STYLES = {
    "W": "$primary",
    "Q": "$primary",
    "E": "$primary",
    "a": "$accent",
    "g": "$accent",
    "o": "$accent",
    _FREE: "$secondary",
    _IN_USE: "$secondary",
    _END: "$error bold",
}


def bar_cells(parts: list[tuple[str, int]], in_use: int, total: int, width: int) -> str:
    """The bar as letters: parts, free room, what others use; where memory is short, a mark at its end.

    A part that is there gets a cell, however small, and the cells never add up to more than `width`.
    """
    if width <= 0 or total <= 0:
        return ""
    needed = sum(size for _, size in parts) + in_use
    overflows = needed > total
    room = width - 1 if overflows else width
    scale = max(needed, total)
    others = round(in_use / scale * room)
    mine = "".join(name * max(1, round(size / scale * room)) for name, size in parts if size > 0)
    if not overflows:
        mine = mine[: room - others]
        return mine + _FREE * (room - others - len(mine)) + _IN_USE * others
    # What others hold comes first here, so that the mark shows how much of the run is beyond the end.
    cells = (_IN_USE * others + mine)[:room].ljust(room, mine[-1:] or _IN_USE)
    end = min(room - 1, round(total / scale * room))
    return cells[:end] + _END + cells[end:]


class MemoryBar(Widget):
    """Four lines that stay at the same place on every step of the set-up."""

    DEFAULT_CSS = """
    MemoryBar { height: 4; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._plan: Plan | None = None
        self._left_out: tuple[str, ...] = ()
        self._problem = ""

    def show(self, plan: Plan | None, *, left_out: tuple[str, ...] = (), problem: str = "") -> None:
        """Show a plan; `left_out` are titles of options it takes at their default, `problem` why there is no plan."""
        if (plan, left_out, problem) != (self._plan, self._left_out, self._problem):
            self._plan, self._left_out, self._problem = plan, left_out, problem
            self.refresh()

    def render(self) -> RenderResult:
        """Draw bar, verdict and legend."""
        width = self.size.width
        if self._plan is None:
            return Content.assemble(("Memory  ", "bold"), (self._problem or "reading the devices …", "$secondary"))
        lines = [self._bar(self._plan, width), self._verdict(self._plan), self._legend(self._plan)]
        wrapped = [part for line in lines for part in line.wrap(width)]
        return Content("\n").join(wrapped[: self.size.height])

    def _parts(self, plan: Plan) -> list[tuple[str, int]]:
        return [(part.name, part.bytes or 0) for part in plan.memory.parts] if plan.memory else []

    def _bar(self, plan: Plan, width: int) -> Content:
        device = plan.device
        total, free = device.total_bytes or 0, device.free_bytes
        in_use = max(0, total - free) if free is not None else 0
        parts = self._parts(plan)
        needed = human_bytes(sum(size for _, size in parts)) if plan.memory else "?"
        numbers = f"{needed} of {human_bytes(total or None)}"
        title = "Memory  "
        room = max(10, width - len(title) - cell_width(numbers) - 2)
        cells = bar_cells([(letter(name), size) for name, size in parts], in_use, total, room)
        pieces: list[tuple[str, str]] = [(title, "bold")]
        for cell in cells:
            style = _STYLES.get(cell, "$foreground")
            if pieces[-1][1] == style:
                pieces[-1] = (pieces[-1][0] + cell, style)
            else:
                pieces.append((cell, style))
        return Content.assemble(*pieces, "  ", numbers)

    def _verdict(self, plan: Plan) -> Content:
        mark, words, style = _VERDICTS[plan.verdict]
        where = shorten(safe(plan.device.name), 30)
        reason = f": {safe(plan.verdict_reason)}" if plan.verdict_reason else ""
        return Content.assemble((f"{where}   ", "$secondary"), (f"{mark} {words}", f"{style} bold"), reason)

    def _legend(self, plan: Plan) -> Content:
        shown = [part for part in plan.memory.parts if part.bytes] if plan.memory else []
        words = "  ".join(f"{letter(part.name)} {short_name(part.name)}" for part in shown)
        words += f"{'  ' if words else ''}{_FREE} free  {_IN_USE} in use"
        if self._left_out:
            words += f"  at its default here: {', '.join(self._left_out)}"
        return Content.styled(words, "$secondary")
