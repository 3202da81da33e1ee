"""What the run would hold of the device's memory: one bar, its legend, and the verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.text import cell_width, human_bytes, safe, shorten
from tui_app.widgets.memory_parts import STYLES, shown_parts

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
_STYLES = STYLES | {_FREE: "$secondary", _IN_USE: "$secondary", _END: "$error bold"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the lines under the bar say besides the plan."""

    left_out: tuple[str, ...] = ()
    """Titles of options that the plan takes at their default."""
    problem: str = ""
    """Why there is no plan."""
    holders: str = ""
    """Who else holds memory of the device."""
    room: str = ""
    """What would still fit."""
    offer: str = ""
    """The key that makes it fit, or fast."""


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
    """Five lines that stay at the same place on every step of the set-up."""

    DEFAULT_CSS = """
    MemoryBar { height: 5; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._plan: Plan | None = None
        self._told = Told()

    def show(self, plan: Plan | None, told: Told) -> None:
        """Show a plan."""
        if (plan, told) != (self._plan, self._told):
            self._plan, self._told = plan, told
            self.refresh()

    def render(self) -> RenderResult:
        """Draw bar, verdict, legend and what would still fit."""
        width, height = self.size
        if self._plan is None:
            return Content.assemble(("Memory  ", "bold"), (self._told.problem or "reading the devices …", "$secondary"))
        above = [self._bar(self._plan, width), *self._verdict(self._plan, width)]
        below = Content.styled(self._told.room, "$secondary").wrap(width) if self._told.room else []
        legend = self._legend(self._plan, width, height - len(above) - len(below))
        return Content("\n").join([*above, *legend, *below][:height])

    def _bar(self, plan: Plan, width: int) -> Content:
        device = plan.device
        total, free = device.total_bytes or 0, device.free_bytes
        in_use = max(0, total - free) if free is not None else 0
        parts = shown_parts(plan.memory) if plan.memory else []
        needed = human_bytes(plan.memory.known_bytes) if plan.memory else "?"
        numbers = f"{needed} of {human_bytes(total or None)}"
        title = "Memory  "
        room = max(10, width - len(title) - cell_width(numbers) - 2)
        cells = bar_cells([(part.letter, part.bytes or 0) for part in parts], in_use, total, room)
        pieces: list[tuple[str, str]] = [(title, "bold")]
        for cell in cells:
            style = _STYLES.get(cell, "$foreground")
            if pieces[-1][1] == style:
                pieces[-1] = (pieces[-1][0] + cell, style)
            else:
                pieces.append((cell, style))
        return Content.assemble(*pieces, "  ", numbers)

    def _verdict(self, plan: Plan, width: int) -> list[Content]:
        """How it fits, and the key that helps, which is never broken."""
        mark, words, style = _VERDICTS[plan.verdict]
        where = shorten(safe(plan.device.name), 30)
        reason = f": {safe(plan.verdict_reason)}" if plan.verdict_reason else ""
        told = Content.assemble((f"{where}   ", "$secondary"), (f"{mark} {words}", f"{style} bold"), reason)
        lines = told.wrap(width)
        if self._told.offer:
            offer = Content.styled(self._told.offer, "$accent")
            if lines[-1].cell_length + 3 + offer.cell_length <= width:
                lines[-1] = Content.assemble(lines[-1], "   ", offer)
            else:
                lines.append(offer)
        return lines

    def _legend(self, plan: Plan, width: int, height: int) -> list[Content]:
        """What the letters stand for, as much of it as there is room for: no entry is cut."""
        entries = [f"at its default here: {', '.join(self._told.left_out)}"] if self._told.left_out else []
        entries += [f"{_FREE} free", f"{_IN_USE} {self._told.holders or 'in use'}"]
        # Letters come last: the list of parts has them too, should there be no room for all.
        parts = shown_parts(plan.memory) if plan.memory else []
        entries += [f"{part.letter} {part.words}" for part in parts if part.bytes]
        lines: list[str] = []
        for entry in entries:
            if lines and cell_width(lines[-1]) + 2 + cell_width(entry) <= width:
                lines[-1] += f"  {entry}"
            else:
                lines += [line.plain for line in Content(entry).wrap(width)]
        return [Content.styled(line, "$secondary") for line in lines[: max(0, height)]]
