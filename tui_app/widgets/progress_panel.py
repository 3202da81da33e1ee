"""How far a run is, in four lines: phase, progress, time and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from core.runs.state import status
from core.text import human_duration, safe, shorten
from tui_app import format as words

if TYPE_CHECKING:
    from textual.app import RenderResult

    from core.runs.state import RunState

_EIGHTHS = " ▏▎▍▌▋▊▉"


class ProgressPanel(Widget):
    """The state of a run at a glance."""

    DEFAULT_CSS = """
    ProgressPanel { height: 6; padding: 0 1; background: $surface; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Content] = []
        self._notice = Content("")

    def show(self, state: RunState, now: float, *, alive: bool, notice: Content) -> None:
        """Show a state as of now; redraws only if a word of it changed."""
        width = max(20, self.content_size.width)
        lines = [
            phase_line(state, now, alive=alive, width=width),
            bar_line(state, width),
            Content(words.time_line(state, now, alive=alive)),
            loss_line(state),
            figure_line(state, width),
            notice,
        ]
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render(self) -> RenderResult:
        """Draw the lines."""
        return Content("\n").join(self._lines)


def phase_line(state: RunState, now: float, *, alive: bool, width: int) -> Content:
    """`preparing ✓  loading ✓  [adapting 3 s]  training  saving`, or the end in one word."""
    current = status(state, alive=alive)
    if current in words.ENDED or current == "starting":
        sign, colour = words.mark(current)
        return Content.styled(f"{sign} {current}", f"bold {colour}")
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
    """`step 1,240 of 4,000 ▕██████▎      ▏  31 %`."""
    total = state.max_steps
    text = f"step {words.steps(state.step, total)} "
    if not total or total < 0:
        return Content.styled("no step yet" if not state.steps else text, "$secondary" if not state.steps else "")
    share = min(1.0, state.step / total)
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


def loss_line(state: RunState) -> Content:
    """`loss 1.042  ▼ 0.013/100 steps    held-out 1.187  best 1.102 at step 1,200`."""
    last = state.last
    parts: list[str | tuple[str, str]] = [
        ("loss ", "$secondary"),
        (words.loss(last.loss if last else None), "bold"),
        f"  {words.trend_words(words.trend(state.steps))}",
    ]
    if state.evaluations:
        best = min(state.evaluations, key=lambda found: found.loss)
        parts += [
            ("     held-out ", "$secondary"),
            (words.loss(state.evaluations[-1].loss), "bold"),
            f"  best {words.loss(best.loss)} at step {words.number(best.step)}",
        ]
    if last is not None and last.token_accuracy is not None:
        parts += [("     accuracy ", "$secondary"), f"{last.token_accuracy:.1%}".replace("%", " %")]
    return Content.assemble(*parts)


def figure_line(state: RunState, width: int) -> Content:
    """The smaller figures, as many as fit whole."""
    line = Content("")
    for name, value in words.figures(state):
        item = Content.assemble("   " if line.cell_length else "", (f"{name} ", "$secondary"), value)
        if line.cell_length + item.cell_length > width:
            break
        line = line + item
    return line
