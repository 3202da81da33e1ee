"""The background thread in which a run happens. Works inside any Python program."""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable

from core.diagnosis import diagnose
from core.paths import write_atomically
from core.runs import events
from core.runs.events import Event, TerminalEvent
from core.runs.folder import RunFolder
from core.spec.run_spec import RunSpec
from core.training.control import RunControl, StopRequestedError
from core.training.learned import keep_for_calibration
from core.training.libraries import import_libraries
from core.training.ran_out import what_is_known
from core.training.whereabouts import Whereabouts


class TrainingWorker(threading.Thread):
    """Runs the pipeline once. The last event it emits is the run's terminal one, whatever happens.

    A folder with checkpoints is gone on with, from the newest or that of `resume_step`; 0 begins anew. `emit` is called
    from this thread. Importing torch and its kin happens here too: the thread that starts the worker stays free.
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        emit: Callable[[Event], object],
        control: RunControl | None = None,
        resume_step: int | None = None,
    ) -> None:
        super().__init__(name="sftui-training", daemon=True)
        self.control = control or RunControl()
        self.outcome: TerminalEvent | None = None
        self._spec = spec
        self._folder = folder
        self._emit_outside = emit
        self._resume_step = resume_step
        self._at = Whereabouts()
        self._began = time.monotonic()

    def run(self) -> None:
        """The thread's body; start it with `start`."""
        try:
            self._emit(events.PhaseStarted("preparing", "importing torch, transformers, peft, trl"))
            import_libraries()
            from core.training.pipeline import RunContext, run_pipeline

            self.control.check()
            context = RunContext(self._spec, self._folder, self._emit, self.control, self._resume_step, self._at)
            outcome = run_pipeline(context)
        except StopRequestedError:
            outcome = events.RunStopped(self._at.step, None, self.control.stop_reason, self._seconds())
        except BaseException as error:  # noqa: BLE001 - whatever it was, the run has to end with one event that says so
            outcome = self._failure(error)
        # What serves the next run must not harm this one's end.
        with contextlib.suppress(Exception):
            keep_for_calibration(self._folder, self._at, outcome)
        self.outcome = outcome
        self._emit_outside(outcome)

    def _emit(self, event: Event) -> None:
        if isinstance(event, events.StepCompleted):
            self._at.step = event.step
            self._at.steps_done += 1
        elif isinstance(event, events.PeakMeasured):
            self._at.peak = event
        elif isinstance(event, events.PhaseStarted):
            self._at.phase = event.phase
        self._feel_pulse(event)
        self._emit_outside(event)

    def _feel_pulse(self, event: Event) -> None:
        """What is told between steps is a sign of life too."""
        match event:
            case events.RunPaused() | events.PhaseStarted(phase="sampling"):
                # Whoever waits for people or a disk waits as long as it takes; nobody knows how long answers are.
                self.control.pulse.rest()
            case (
                events.PhaseStarted()
                | events.DataProgressed()
                | events.LoadProgressed()
                | events.ModelLoaded()
                | events.ModelAdapted()
                | events.RunContinued()
            ):
                self.control.pulse.pause()

    def _failure(self, error: BaseException) -> events.RunFailed:
        found = diagnose(error)
        file = self._folder.traceback_file
        try:
            write_atomically(file, "".join(traceback.format_exception(error)))
            name: str | None = file.name
        except OSError:
            name = None
        memory = what_is_known(found, self._spec, self._folder, self._at)
        words = found.kind, found.title, found.message, found.hint
        return events.RunFailed(*words, name, self._at.step, self._seconds(), memory)

    def _seconds(self) -> float:
        return time.monotonic() - self._began
