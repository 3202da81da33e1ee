"""The steps of the set-up on which one key makes a run fit, or fast where memory is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType

from core.errors import SftuiError
from tui_app.messages import REMOVED
from tui_app.setup_screen import SetupScreen

if TYPE_CHECKING:
    from tui_app.draft import Draft

_OFFERS = {"fits": "f makes it fast", "tight": "f makes it fit", "does_not_fit": "f makes it fit"}


class FittingScreen(SetupScreen):
    """A step that offers it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # A field takes the letter; F5 works there, too.
        Binding(
            "f,f5",
            "fit",
            "Fit or fast",
            key_display="f",
            tooltip="Make it fit the memory, or faster where some is left",
        ),
    ]

    def offer(self, draft: Draft) -> str:
        """The key, and what it would do."""
        return _OFFERS.get(draft.plan.verdict, "") if draft.plan is not None else ""

    def action_fit(self) -> None:
        """Show what would make it fit, or faster."""
        from tui_app.dialogs.make_fit import MakeFitDialog

        draft = self.draft
        try:
            fit = draft.find_fit()
        except SftuiError as error:
            self.notify(f"{error.message} {error.hint}", title=error.title, severity="warning", markup=False)
            return
        if not fit.changes:
            said = "It fits, and no change would make it faster within this memory."
            self.notify(said if fit.fits else "Nothing would make it smaller.", markup=False)
            return
        self.app.push_screen(MakeFitDialog(fit, draft.plan_of_valid), self._take_changes)

    def _take_changes(self, sets: dict[str, Any] | None) -> None:
        if sets:
            self.change({name: REMOVED if value is None else value for name, value in sets.items()})
