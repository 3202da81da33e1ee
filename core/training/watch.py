"""What trouble is: numbers that are not finite or leap, a worker that hangs, a machine that fails or is full.

Facts go in, what is wrong comes out; nothing is read, waited for or done here.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from core.devices.xid import xid_words
from core.runs.events import TroubleKind
from core.text import human_bytes, human_duration

LEAP = 10.0
"""So many times its moving median is a leap of the loss or of the gradient norm, and a standstill of the time."""

_WINDOW = 50
_LEAST_HISTORY = 5
# A loss that is next to nothing leaps at a single hard row, and means nothing by it.
_LEAST_RISE = 0.2
# Loss scaling of float16 halves its factor, 65,536 at first, at each gradient that overflows: that is how it works.
_OVERFLOWS_OF_FLOAT16 = 16
_LEAST_STANDSTILL_SECONDS = 30.0
# Loading, saving and the first steps, for which kernels may be compiled, take their time; but not for ever.
LONGEST_SECONDS = 1800.0
_LITTLE_MEMORY_SHARE = 0.05
_LITTLE_MEMORY_BYTES = 2 << 30
_DISK_MARGIN_BYTES = 64 << 20
# What is scarce must be plentiful by so much before it counts as over: else it would be told again and again.
_OVER = 1.5
# Heat comes and goes within seconds; slowed is over when nothing has held the clocks down for so many looks.
_CALM_LOOKS = 60

# What may already be in the weights, or keeps them from being saved.
SPOILING: frozenset[TroubleKind] = frozenset(
    {"not_finite", "loss_spike", "gradient_explosion", "gpu_memory_error", "gpu_lost", "gpu_error", "disk"}
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that may need somebody, in words."""

    kind: TroubleKind
    title: str
    message: str
    good_step: int | None = None
    """The last step whose weights are beyond doubt, where the trouble lies in the numbers."""


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """One GPU of the run at one moment; None where the driver does not tell."""

    name: str
    """As people call it: GPU 0."""
    lost: bool
    slowed_by: tuple[str, ...]
    """Why its clocks are held down, in words: heat, power, hardware; not for being idle."""
    temperature_celsius: int | None = None
    memory_errors: int | None = None
    """That could not be corrected, since the driver was loaded."""
    errors: tuple[int, ...] = ()
    """The driver's errors since the last look, by their numbers (Xid)."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The run's machine at one moment."""

    memory_available_bytes: int
    memory_total_bytes: int
    disk: str
    """The path whose disk is meant."""
    disk_free_bytes: int | None
    checkpoint_bytes: int
    """What the last checkpoint took; 0 before the first."""
    gpus: tuple[GpuHealth, ...] = ()


class StepWatch:
    """Looks at each step's loss and gradient norm.

    `max_grad_norm`: what gradients are cut to, 0 if they are not. `scales_loss`: whether float16 is computed in, where
    gradients that are not finite are skipped by themselves.
    """

    def __init__(self, max_grad_norm: float = 1.0, *, scales_loss: bool = False) -> None:
        self._max_grad_norm = max_grad_norm
        self._overflows_allowed = _OVERFLOWS_OF_FLOAT16 if scales_loss else 0
        self._overflows = 0
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._norms: deque[float] = deque(maxlen=_WINDOW)
        self._largest_norm = 0.0

    def see(self, step: int, loss: float, grad_norm: float | None) -> list[Trouble]:
        """All that is wrong with a step."""
        found = [self._not_finite(step, loss, grad_norm), self._spike(step, loss), self._explosion(step, grad_norm)]
        if math.isfinite(loss):
            self._losses.append(loss)
        if grad_norm is not None and math.isfinite(grad_norm):
            self._norms.append(grad_norm)
            self._largest_norm = max(self._largest_norm, grad_norm)
        return [trouble for trouble in found if trouble is not None]

    def see_held_out(self, step: int, loss: float) -> list[Trouble]:
        """What is wrong with an evaluation, which uses the weights of this very step."""
        if math.isfinite(loss):
            return []
        what = "not a number" if math.isnan(loss) else "infinite"
        title = f"The held-out loss is {what} at step {step:,}"
        return [Trouble("not_finite", title, _WHY_NOT_FINITE, max(0, step - 1))]

    def _not_finite(self, step: int, loss: float, grad_norm: float | None) -> Trouble | None:
        overflowed = grad_norm is not None and not math.isfinite(grad_norm)
        self._overflows = self._overflows + 1 if overflowed else 0
        if not math.isfinite(loss):
            # It was computed with the weights of the step before, which are in doubt with it.
            what = "not a number" if math.isnan(loss) else "infinite"
            return Trouble("not_finite", f"The loss is {what} at step {step:,}", _WHY_NOT_FINITE, max(0, step - 2))
        if self._overflows > self._overflows_allowed:
            title = f"The gradient is not finite at step {step:,}"
            return Trouble("not_finite", title, _WHY_NOT_FINITE, max(0, step - 1))
        return None

    def _spike(self, step: int, loss: float) -> Trouble | None:
        usual = _median(self._losses)
        if usual is None or not math.isfinite(loss) or loss <= LEAP * usual or loss - usual < _LEAST_RISE:
            return None
        message = f"It is {loss:.3g}; the median of the last {len(self._losses)} steps is {usual:.3g}."
        return Trouble("loss_spike", f"The loss leapt at step {step:,}", message, max(0, step - 2))

    def _explosion(self, step: int, grad_norm: float | None) -> Trouble | None:
        usual = _median(self._norms)
        if usual is None or grad_norm is None or not math.isfinite(grad_norm):
            return None
        # What is learnt well has tiny gradients that leap by themselves; what the run began with does no harm later on.
        if grad_norm <= max(LEAP * usual, self._max_grad_norm, self._largest_norm):
            return None
        cut = f" It is cut to {self._max_grad_norm:g}." if self._max_grad_norm else " Gradients are not cut."
        message = f"Its norm is {grad_norm:.3g}; the median of the last {len(self._norms)} is {usual:.3g}.{cut}"
        return Trouble("gradient_explosion", f"The gradient exploded at step {step:,}", message, max(0, step - 1))


class Pulse:
    """The worker's signs of life: beaten by its thread, felt by another.

    Plain values and no lock: each is written by one thread, and an old one only costs a moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._long_since: float | None = None
        self._step_began = 0.0
        self._recent: deque[float] = deque(maxlen=20)
        self._usual: float | None = None

    def beat(self) -> None:
        """Something was done."""
        self._last = self._clock()

    def pause(self) -> None:
        """What comes now takes longer than a step."""
        self._last, self._long_since = None, self._clock()

    def rest(self) -> None:
        """What comes now takes as long as it takes."""
        self._last = self._long_since = None

    def begin_step(self) -> None:
        """A step begins."""
        self.beat()
        self._step_began = self._clock()

    def end_step(self) -> None:
        """The step that was begun is done."""
        self._recent.append(self._clock() - self._step_began)
        self._usual = _median(self._recent, least=3)

    def standstill(self) -> Trouble | None:
        """That nothing was done for ten times as long as a step takes, or for very long where nobody knows how long."""
        last, usual, long_since = self._last, self._usual, self._long_since
        if last is None or usual is None:
            since = long_since if last is None else last
            seconds = 0.0 if since is None else self._clock() - since
            longest, takes = LONGEST_SECONDS, ""
        else:
            seconds = self._clock() - last
            longest, takes = max(LEAP * usual, _LEAST_STANDSTILL_SECONDS), f"; a step takes {human_duration(usual)}"
        if seconds <= longest:
            return None
        message = f"Nothing for {human_duration(seconds)}{takes}."
        return Trouble("no_progress", "The run does not get on", message)


class MachineWatch:
    """Looks at the machine of a run, time and again."""

    def __init__(self) -> None:
        self._memory_short = False
        self._disk_short = False
        self._errors: dict[str, int] = {}
        self._slowed_last: Trouble | None = None
        self._calm_looks = 0

    def see(self, facts: MachineFacts) -> list[Trouble]:
        """All that is wrong with the machine."""
        found = [
            self._lost(facts),
            self._driver_errors(facts),
            self._memory_errors(facts),
            self._slowed(facts),
            self._memory(facts),
            self._disk(facts),
        ]
        return [trouble for trouble in found if trouble is not None]

    def _lost(self, facts: MachineFacts) -> Trouble | None:
        names = [gpu.name for gpu in facts.gpus if gpu.lost]
        if not names:
            return None
        message = "It has fallen off the bus, or waits for a reset. `dmesg | grep -i xid` says more, as root."
        return Trouble("gpu_lost", f"{', '.join(names)} is lost", message)

    def _driver_errors(self, facts: MachineFacts) -> Trouble | None:
        """Those of one look; each is told, for the driver tells it once."""
        found = [(gpu.name, *xid_words(code)) for gpu in facts.gpus for code in gpu.errors]
        if not found:
            return None
        title = "; ".join(f"{name}: {what}" for name, what, _ in found)
        return Trouble("gpu_error", title, " ".join(dict.fromkeys(hint for _, _, hint in found)))

    def _memory_errors(self, facts: MachineFacts) -> Trouble | None:
        """New ones since the first look: a GPU may have had some for weeks."""
        new = {}
        for gpu in facts.gpus:
            if gpu.memory_errors is not None:
                before = self._errors.setdefault(gpu.name, gpu.memory_errors)
                if gpu.memory_errors > before:
                    new[gpu.name] = gpu.memory_errors - before
        if not new:
            return None
        title = f"Memory errors on {', '.join(new)}"
        words = ", ".join(f"{count:,} on {name}" for name, count in new.items())
        message = f"{words} could not be corrected since the run began: its numbers may be wrong. Reset the GPU."
        return Trouble("gpu_memory_error", title, message)

    def _slowed(self, facts: MachineFacts) -> Trouble | None:
        slowed = [gpu for gpu in facts.gpus if gpu.slowed_by]
        if not slowed:
            self._calm_looks += 1
            return self._slowed_last if self._calm_looks < _CALM_LOOKS else None
        words = "; ".join(
            f"{', '.join(gpu.slowed_by)} on {gpu.name}"
            + (f" at {gpu.temperature_celsius} °C" if gpu.temperature_celsius is not None else "")
            for gpu in slowed
        )
        names = ", ".join(gpu.name for gpu in slowed)
        self._calm_looks = 0
        self._slowed_last = Trouble("gpu_slowed", f"{names} runs slower than it could", f"Held down by {words}.")
        return self._slowed_last

    def _memory(self, facts: MachineFacts) -> Trouble | None:
        least = min(_LITTLE_MEMORY_BYTES, _LITTLE_MEMORY_SHARE * facts.memory_total_bytes)
        self._memory_short = facts.memory_available_bytes < least * (_OVER if self._memory_short else 1)
        if not self._memory_short:
            return None
        available, total = human_bytes(facts.memory_available_bytes), human_bytes(facts.memory_total_bytes)
        message = f"{available} of {total} are left: the system kills a process when there is none. Close others."
        return Trouble("host_memory", "The machine is nearly out of memory", message)

    def _disk(self, facts: MachineFacts) -> Trouble | None:
        if facts.disk_free_bytes is None:
            return None
        needed = facts.checkpoint_bytes + _DISK_MARGIN_BYTES
        self._disk_short = facts.disk_free_bytes < needed * (_OVER if self._disk_short else 1)
        if not self._disk_short:
            return None
        free = human_bytes(facts.disk_free_bytes)
        message = f"{facts.disk}: {free} are free and {human_bytes(needed)} are needed. Free some space."
        return Trouble("disk", "The disk has no room for the next checkpoint", message)


_WHY_NOT_FINITE = (
    "What is learned from it is lost. A lower learning rate, a warm-up, max_grad_norm, or bfloat16 instead of float16 "
    "mostly help; a row with nothing to learn from does this too."
)


def _median(values: deque[float], least: int = _LEAST_HISTORY) -> float | None:
    return statistics.median(values) if len(values) >= least else None
