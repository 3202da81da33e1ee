"""The table of runs: which columns fit, and what stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual.binding import Binding
from textual.widgets import DataTable

from core.text import human_bytes, human_duration, safe, shorten
from tui_app import format as words
from tui_app.theme import SFTUI_DARK

if TYPE_CHECKING:
    from core.runs.folder import RunSummary


@dataclass(frozen=True)
class Column:
    """A column of the table: its width, whether numbers stand in it, and who goes first when room is short."""

    name: str
    title: str
    width: int
    order: int
    right: bool = False


COLUMNS = (
    Column("state", "State", 13, 0),
    Column("run", "Run", 22, 1),
    Column("model", "Model", 22, 9),
    Column("method", "Method", 6, 6),
    Column("data", "Data", 18, 10),
    Column("step", "Step", 14, 2, right=True),
    Column("loss", "Loss", 7, 3, right=True),
    Column("held_out", "Held-out", 8, 5, right=True),
    Column("peak", "Peak, planned", 17, 8, right=True),
    Column("started", "Started", 12, 7, right=True),
    Column("took", "Took", 11, 4, right=True),
    Column("tags", "Tags", 16, 11),
)
# The table draws with Rich, which knows no theme variables.
_STYLES = {
    "failed": SFTUI_DARK.error or "",
    "interrupted": SFTUI_DARK.error or "",
    "paused": SFTUI_DARK.warning or "",
    "released": SFTUI_DARK.warning or "",
    "stopped": SFTUI_DARK.warning or "",
    "finished": SFTUI_DARK.success or "",
}
_WIDEST_RUN = 44
# The machine stands beside the runs, or below them.
SIDE_WIDTH, SIDE_FROM = 42, 160
BELOW_FROM = (100, 34)


def fitting(width: int) -> dict[str, int]:
    """The columns that fit into a terminal this wide, and how wide they are; what is left over goes to the name."""
    room = width - 2 - (SIDE_WIDTH if width >= SIDE_FROM else 0)
    chosen: set[str] = set()
    for column in sorted(COLUMNS, key=lambda column: column.order):
        if column.width + 2 > room and len(chosen) >= 4:
            break
        chosen.add(column.name)
        room -= column.width + 2
    widths = {column.name: column.width for column in COLUMNS if column.name in chosen}
    widths["run"] = min(_WIDEST_RUN, widths["run"] + max(0, room))
    return widths


class RunTable(DataTable[Text]):
    """The table of runs, with vi keys."""

    BINDINGS = [
        Binding("enter", "select_cursor", "Watch", tooltip="Watch the run"),
        Binding("j", "cursor_down", "Down", show=False, tooltip="Down (or ↓)"),
        Binding("k", "cursor_up", "Up", show=False, tooltip="Up (or ↑)"),
    ]


def cells(run: RunSummary, *, marked: bool = False) -> dict[str, Text]:
    """A run's cells, as text that is never read as markup."""
    sign, _ = words.mark(run.state)
    style = _STYLES.get(run.state, "bold")
    model = run.model.rstrip("/").rpartition("/")[2]
    took = human_duration(round(run.seconds)) if run.seconds is not None else "–"
    method = {"qlora": "QLoRA", "lora": "LoRA", "full": "full"}
    name = Text(shorten(safe(run.id), _WIDEST_RUN), no_wrap=True, overflow="ellipsis")
    return {
        "state": Text(f"{sign} {run.state}" + (f" {run.place}" if run.place else ""), style=style),
        "run": Text.assemble(("◆ ", SFTUI_DARK.accent or ""), name) if marked else name,
        "model": Text(shorten(safe(model), 22)),
        "method": Text(method.get(run.method, safe(run.method) or "–")),
        "data": Text(shorten(safe(run.data), 18)),
        "step": Text(words.steps(run.step, run.max_steps), justify="right"),
        "loss": Text(words.short_loss(run.loss), justify="right"),
        "held_out": Text(words.short_loss(run.held_out), justify="right"),
        "peak": Text(_peak(run), justify="right"),
        "started": Text(words.clock(run.started) if run.started else "–", justify="right"),
        "took": Text(took, justify="right"),
        "tags": Text(shorten(_tags(run), 16)),
    }


def _peak(run: RunSummary) -> str:
    """What it held at most, and how far that is from what was planned: "8.10 GB  +3 %"."""
    if run.peak is None:
        return "–"
    planned = run.peak.predicted_bytes
    return human_bytes(run.peak.bytes) + (
        f" {run.peak.bytes / planned - 1:+5.0%}".replace("%", " %") if planned else ""
    )


def _tags(run: RunSummary) -> str:
    notes = f"✎{run.notes}" if run.notes else ""
    return " ".join(word for word in (notes, safe(" ".join(run.tags))) if word)
