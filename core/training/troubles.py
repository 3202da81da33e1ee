"""What is done about trouble: it is told once, and the run rests, stops or goes on, as its spec says."""

from collections.abc import Callable, Iterable

from core.runs import events
from core.runs.events import Event, TroubleAction, TroubleKind
from core.spec.run_spec import SftuiOptions
from core.training.control import RunControl
from core.training.watch import SPOILING, Trouble

# One may follow the other before the first is over.
_EACH_TOLD: frozenset[TroubleKind] = frozenset({"gpu_error"})


def action_for(kind: TroubleKind, options: SftuiOptions) -> TroubleAction:
    """What the spec wants done about a kind of trouble."""
    return options.on_not_finite if kind == "not_finite" else options.on_trouble


class TroubleDesk:
    """Takes what one watch finds. Each watch has its own, and each is used by one thread."""

    def __init__(self, options: SftuiOptions, emit: Callable[[Event], object], control: RunControl) -> None:
        self._options = options
        self._emit = emit
        self._control = control
        self._present: dict[TroubleKind, str] = {}

    def take(self, found: Iterable[Trouble], step: int) -> list[Trouble]:
        """Tell what is new and what is over among all that is wrong now, and act. Returns what is new."""
        now = {trouble.kind: trouble for trouble in found}
        for kind in sorted(self._present.keys() - now.keys()):
            self._emit(events.TroubleEnded(kind, step))
        new = [trouble for kind, trouble in now.items() if self._is_new(trouble)]
        self._present = {kind: trouble.title for kind, trouble in now.items()}
        for trouble in new:
            action = action_for(trouble.kind, self._options)
            self._emit(events.TroubleNoticed(trouble.kind, trouble.title, trouble.message, step, action))
            if action == "pause":
                self._control.request_pause(trouble.title, trouble.message)
            elif action == "stop":
                self._stop(trouble, step)
        return new

    def _is_new(self, trouble: Trouble) -> bool:
        if trouble.kind not in self._present:
            return True
        return trouble.kind in _EACH_TOLD and self._present[trouble.kind] != trouble.title

    def _stop(self, trouble: Trouble, step: int) -> None:
        if trouble.kind not in SPOILING:
            self._control.request_stop(trouble.title)
            return
        good_step = step if trouble.good_step is None else trouble.good_step
        self._control.request_stop(f"{trouble.title}; what came after the last good checkpoint is not kept")
        self._control.forbid_saving(good_step)
