"""What would make a run fit, or faster: each change with its reason and its saving, to be taken or left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from core.memory.fit import missing_bytes, way_speed, with_changes
from core.text import human_bytes, safe
from tui_app.prices import signed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from core.memory.fit import Change, Fit
    from core.memory.plan import Plan
    from core.spec.run_spec import RunSpec

_TITLE_WIDTH = 28
_SIZE_WIDTH = 9
_VERDICTS = {
    "fits": ("✓ fits", "$success bold"),
    "tight": ("! tight", "$warning bold"),
    "does_not_fit": ("✗ does not fit", "$error bold"),
    "unknown": ("? not known", "$secondary bold"),
}


class MakeFitDialog(ModalScreen[dict[str, Any] | None]):
    """Returns the options to set, by name; None changes nothing. A value of None takes an argument away."""

    DEFAULT_CSS = """
    MakeFitDialog { align: center middle; background: $background 60%; }
    MakeFitDialog > Vertical {
        width: 100; max-width: 98%; height: auto; max-height: 98%; padding: 0 1;
        background: $surface; border: round $border; border-title-color: $foreground;
    }
    MakeFitDialog #changes { height: auto; max-height: 1fr; margin: 1 0; }
    MakeFitDialog .change { height: auto; border-left: blank; }
    MakeFitDialog .change.-at { border-left: outer $accent; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("space,x", "turn", show=False),
        Binding("enter", "take", show=False),
        Binding("escape,f,f5", "dismiss(None)", show=False),
    ]
    AUTO_FOCUS = ""

    def __init__(self, fit: Fit, plan_of: Callable[[RunSpec], Plan]) -> None:
        super().__init__()
        self._fit, self._plan_of = fit, plan_of
        self._taken = [not change.suggested for change in fit.changes]
        self._at = 0

    def compose(self) -> ComposeResult:
        """Where it stands, the changes, and where they lead."""
        with Vertical() as box:
            box.border_title = "Make it fit" if self._fit.goal == "fit" else "Make it fast"
            box.border_subtitle = "space takes or leaves one   enter applies them   escape changes nothing"
            yield Static(self._standing(), markup=False, id="before")
            with VerticalScroll(id="changes", can_focus=False):
                for number in range(len(self._fit.changes)):
                    yield Static(markup=False, classes="change", id=f"change-{number}")
            yield Static(markup=False, id="after")

    def on_mount(self) -> None:
        """Draw it; nothing has the focus, so that every key is ours."""
        self._draw()

    def action_move(self, by: int) -> None:
        """Go to another change."""
        if self._fit.changes:
            self._at = (self._at + by) % len(self._fit.changes)
            self._draw()
            self.query_one(f"#change-{self._at}").scroll_visible(animate=False)

    def action_turn(self) -> None:
        """Take the change one is on, or leave it."""
        if self._fit.changes:
            self._taken[self._at] = not self._taken[self._at]
            self._draw()

    def action_take(self) -> None:
        """Apply what is taken."""
        sets = {name: value for change in self._chosen for name, value in change.sets.items()}
        self.dismiss(sets or None)

    @property
    def _chosen(self) -> list[Change]:
        return [change for change, taken in zip(self._fit.changes, self._taken, strict=True) if taken]

    def _draw(self) -> None:
        for number, change in enumerate(self._fit.changes):
            row = self.query_one(f"#change-{number}", Static)
            row.set_class(number == self._at, "-at")
            row.update(_row(change, taken=self._taken[number], at=number == self._at))
        self.query_one("#after", Static).update(self._end())

    def _standing(self) -> Content:
        return Content.assemble("Now: ", *_size(self._fit.before))

    def _end(self) -> Content:
        spec = with_changes(self._fit.spec, self._chosen)
        plan = self._plan_of(spec)
        speed = way_speed(self._fit.spec, self._fit.before, spec, plan)
        pieces: list[str | tuple[str, str]] = ["Then: ", *_size(plan)]
        if speed:
            pieces.append(f"  {speed} (from published figures, not measured)")
        if missing := missing_bytes(plan):
            smallest = "This is the smallest: " if all(self._taken) and not self._fit.fits else ""
            pieces.append(f"  {smallest}{missing / 1e6:,.0f} MB are still missing.")
        errors = [problem for problem in plan.problems if problem.level == "error"]
        pieces += [("\n✗ " + safe(str(problem)), "$error") for problem in errors]
        return Content.assemble(*pieces)


def _size(plan: Plan) -> list[str | tuple[str, str]]:
    needed = human_bytes(plan.memory.known_bytes if plan.memory is not None else None)
    return [f"{needed} of {human_bytes(plan.device.free_bytes)} free   ", _VERDICTS[plan.verdict]]


def _row(change: Change, *, taken: bool, at: bool) -> Content:
    mark = "[x]" if taken else "[ ]"
    head = f"{change.title:<{_TITLE_WIDTH}} {signed_bytes(-change.saved_bytes):>{_SIZE_WIDTH}}"
    cursor = "$block-cursor-foreground on $block-cursor-background bold" if at else "$foreground"
    return Content.assemble(
        (mark, cursor),
        f" {head}",
        (f"   {change.speed}" if change.speed else ""),
        (f"\n    {change.reason}", "$secondary"),
    )
