"""How far a run is, in four lines: phase, progress, time and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.runs.state import status
from core.text import human_bytes, human_duration, safe, shorten
from tui_app import format as words
from tui_app.partial import changed_parts

if TYPE_CHECKING:
    from textual.app import RenderResult

    from core.runs.state import RunState

# Below it, a line more of figures is a line less of the chart.
_ROOMY_HEIGHT = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"


class ProgressPanel(Widget):
    """The state of a run at a glance."""

    DEFAULT_CSS = """
    ProgressPanel { height: 4; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Content] = []
        self._notice = Content("")

    def show(self, state: RunState, now: float, *, alive: bool, notice: Content) -> None:
        """Show a state as of now; redraws only if a word of it changed."""
        width = max(20, self.content_size.width)
        lines = [bar_line(state, width), Content(words.time_line(state, now, alive=alive))]
        if status(state, alive=alive) not in words.ENDED:
            lines.insert(0, phase_line(state, now, alive=alive, width=width))
        if state.steps or state.evaluations:
            everything = self.screen.size.height >= _ROOMY_HEIGHT
            lines += flowed([*loss_items(state), *figure_items(state, everything=everything)], width)
        if notice:
            lines.append(notice)
        if len(lines) != len(self._lines):
            # A line that comes or goes moves the panes below; that happens at the turns of a run, not at every step.
            self.styles.height = len(lines)
            self._lines = lines
            self.refresh()
        elif parts := changed_parts(self._lines, lines, width):
            self._lines = lines
            self.refresh(*parts)

    def render(self) -> RenderResult:
        """Draw the lines."""
        return Content("\n").join(self._lines)


def phase_line(state: RunState, now: float, *, alive: bool, width: int) -> Content:
    """`preparing ✓  loading ✓  [adapting 3 s]  training  saving`, or the end in one word."""
    current = status(state, alive=alive)
    if current in words.ENDED or current == "starting":
        sign, colour = words.mark(current)
        return Content.styled(f"{sign} {current}", f"bold {colour}")
    if state.queued is not None:
        sign, colour = words.mark("queued")
        return Content.styled(f"{sign} queued: place {state.queued.place}", f"bold {colour}")
    if state.paused is not None:
        sign, colour = words.mark("paused")
        line = Content.styled(f"{sign} paused: {safe(state.paused.reason)}  ", f"bold {colour}")
        return Content.assemble(line, (shorten(safe(state.paused.message), max(0, width - line.cell_length)), ""))
    order = list(words.PHASES)
    # Answering the sample prompts happens before and after training; it is named where it happens.
    if current == "sampling":
        order.insert(order.index("training") + (1 if state.steps else 0), "sampling")
    at = order.index(current)
    parts: list[tuple[str, str]] = []
    for index, phase in enumerate(order):
        if index == at:
            spent = human_duration(round(max(0.0, now - (state.phase_started_at or now))))
            parts.append((f"[{phase} {spent}]  ", "bold $accent"))
        else:
            parts.append((f"{phase}{' ✓' if index < at else ''}  ", "$success" if index < at else "$secondary"))
    line = Content.assemble(*parts)
    room = width - line.cell_length
    detail = shorten(safe(state.phase_detail), room) if room >= 16 else ""
    return Content.assemble(line, (detail, "$secondary"))


def bar_line(state: RunState, width: int) -> Content:
    """`step 1,240 of 4,000 ▕██████▎      ▏  31 %`; before, how much of the data is read, and of the weights loaded."""
    loading = state.load_progress
    if state.phase == "loading" and loading is not None and loading.total_bytes:
        done, size = (human_bytes(count) for count in (loading.done_bytes, loading.total_bytes))
        files = f", {loading.done_files} of {loading.total_files} files" if loading.total_files > 1 else ""
        return _bar(f"{done} of {size}{files} ", loading.done_bytes / loading.total_bytes, width)
    data = state.data_progress
    if state.phase == "preparing" and data is not None and data.total:
        done, size = (human_bytes(n) if data.step == "checking" else f"{n:,}" for n in (data.done, data.total))
        rows = "" if data.step == "checking" else " rows"
        return _bar(f"{data.step} {done} of {size}{rows} ", min(1.0, data.done / data.total), width)
    total = state.max_steps
    text = f"step {words.steps(state.step, total)} "
    if not total or total < 0:
        return Content.styled("no step yet" if not state.steps else text, "$secondary" if not state.steps else "")
    return _bar(text, min(1.0, state.step / total), width)


def _bar(text: str, share: float, width: int) -> Content:
    room = max(4, width - len(text) - 9)
    eighths = int(share * room * 8)
    full, rest = divmod(eighths, 8)
    bar = "█" * full + (_EIGHTHS[rest] if full < room else "")
    return Content.assemble(
        (text, "bold"),
        ("▕", "$secondary"),
        (f"{bar:<{room}}", "$primary"),
        ("▏", "$secondary"),
        f" {int(share * 100):>3} %",
    )


def loss_items(state: RunState) -> list[Content]:
    """`loss 1.042  mean 1.061  ▼ 0.013/100 steps`, `held-out 1.187  best 1.102 at step 1,200`, `accuracy 61.2 %`."""
    last = state.last
    slope = words.trend_words(words.trend(state.steps))
    mean = words.recent_loss(state.steps)
    notes = [f"mean {words.loss(mean)}" if mean is not None else "", slope]
    items = [_item("loss", words.loss(last.loss if last else None), "".join(f"  {note}" for note in notes if note))]
    if state.evaluations:
        best = min(state.evaluations, key=lambda found: found.loss)
        note = f"  best {words.loss(best.loss)} at step {words.number(best.step)}"
        items.append(_item("held-out", words.loss(state.evaluations[-1].loss), note))
    if last is not None and last.token_accuracy is not None:
        items.append(_item("accuracy", f"{last.token_accuracy * 100:.1f} %"))
    return items


def figure_items(state: RunState, *, everything: bool = True) -> list[Content]:
    """The smaller figures, all of them or the most wanted."""
    found = words.figures(state, everything=everything)
    return [Content.assemble((f"{name} ", "$secondary"), value) for name, value in found]


def flowed(items: list[Content], width: int) -> list[Content]:
    """The items in as many lines as they need, each whole."""
    lines: list[Content] = []
    for item in items:
        if lines and lines[-1].cell_length + 3 + item.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], "   ", item)
        else:
            lines.append(item)
    return lines


def _item(name: str, value: str, note: str = "") -> Content:
    return Content.assemble((f"{name} ", "$secondary"), (value, "bold"), note)
