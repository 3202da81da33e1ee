"""The runner process: hosts the training worker, and keeps its main thread free for signals, commands and samples.

python -m core.training.runner [--queue] RUN_FOLDER [STEP]

STEP is that of the checkpoint to go on from, instead of the newest. --queue waits for the turn on a device.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from core import permissions
from core.errors import SftuiError
from core.runs import events, queue
from core.runs.checkpoints import committed_checkpoints, is_committed, size_of_last, step_of
from core.runs.commands import CommandReader, Request
from core.runs.folder import RunFolder
from core.runs.journal import JournalWriter
from core.spec.run_spec import RunSpec
from core.spec.yaml_file import read_spec
from core.training.control import Length, RunControl
from core.training.environment import put_down
from core.training.finish import facts, run_command
from core.training.sampler import MemorySampler
from core.training.troubles import TroubleDesk
from core.training.waiting import Wait, take_device
from core.training.watch import MachineWatch
from core.training.worker import TrainingWorker
from core.version import version

_TICK_SECONDS = 0.1
_LAST_WORD_SECONDS = 30.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Runner:
    """One run, from its lock to its terminal event."""

    def __init__(
        self, folder: RunFolder, *, warm: bool = False, queued: bool = False, resume_step: int | None = None
    ) -> None:
        self._folder = folder
        self._warm = warm
        self._queued = queued
        self._pushes_in = False
        self._resume_step = resume_step
        self._control = RunControl()
        self._signal: int | None = None
        self._began = time.monotonic()
        self._step = 0
        self._spec: RunSpec | None = None
        self._machine = MachineWatch()
        self._desk: TroubleDesk | None = None
        self._checkpoint_bytes = 0

    def run(self) -> int:
        """Do the run, then what its user wants done at its end.

        Returns 0, 1 when it failed, 128 + signal when one stopped it.
        """
        exit_status = self._hold_and_run()
        with contextlib.suppress(OSError):
            self._finish(wait=True)
        return exit_status

    def _hold_and_run(self) -> int:
        # Before the lock: from the moment that we hold it, viewers send us commands.
        commands = CommandReader(self._folder.commands_file)
        with self._folder.locked():
            self._journal = JournalWriter(self._folder.journal_file, self._folder.reserve_file)
            for number in _STOP_SIGNALS:
                signal.signal(number, self._on_signal)
            try:
                spec = read_spec(self._folder.spec_file)
                refused = permissions.missing(spec)
                spec = permissions.without(spec, refused)
            except SftuiError as error:
                self._journal.write(_failed(error))
                self._say_last_word()
                return 1
            last = _checkpoint_of_end(self._folder)
            if not self._queued:
                self._take_device(spec)
            elif not self._get_device(spec, commands):
                return self._end_unstarted()
            self._began = time.monotonic()
            self._emit(
                events.RunStarted(
                    run_id=self._folder.id,
                    model=spec.model_name_or_path,
                    method=spec.method,
                    pid=os.getpid(),
                    version=version(),
                    warm=self._warm,
                )
            )
            for one in refused:
                message = f"The run's spec names {one}, and you have not allowed it on this machine."
                self._emit(events.ProblemNoticed("It will not be run", message))
            for title, message in put_down(self._folder):
                self._emit(events.ProblemNoticed(title, message))
            if self._resume_step is None:
                self._resume_step = step_of(last) if last else None
            self._spec = spec
            self._desk = TroubleDesk(spec.sftui, self._emit, self._control)
            self._checkpoint_bytes = size_of_last(self._folder) or 0
            worker = TrainingWorker(spec, self._folder, self._emit, self._control, self._resume_step)
            sampler = MemorySampler(self._folder.path)
            worker.start()
            while worker.is_alive():
                # What serves the run must not end it, as an exception of this thread would.
                with contextlib.suppress(OSError):
                    self._attend(commands, sampler)
                worker.join(_TICK_SECONDS)
            self._say_last_word()
            return self._exit_status(worker)

    def _take_device(self, spec: RunSpec) -> None:
        # Without such a device the run fails with the words for that.
        with contextlib.suppress(SftuiError):
            device = take_device(self._folder, spec.sftui.device)
            # The warm one has seen its GPU alone since it began.
            if not self._warm:
                _show_to_cuda(device)

    def _get_device(self, spec: RunSpec, commands: CommandReader) -> bool:
        """Wait for the turn; False if a stop was asked for before it came."""

        def tell(place: int, waits_for: str) -> None:
            name, method = spec.model_name_or_path, spec.method
            self._emit(events.RunQueued(self._folder.id, name, method, os.getpid(), place, waits_for))

        try:
            wait = Wait(self._folder, spec.sftui.device, tell)
        except SftuiError:
            # There is no such device: the run fails with the words for that, and needs no turn.
            return True
        self._step = self._folder.read_state().step
        while not self._control.stop_requested:
            # A full disk must not end the waiting.
            with contextlib.suppress(OSError):
                self._journal.flush()
                self._obey_all(commands)
                if wait.is_over(push_in=self._pushes_in):
                    _show_to_cuda(wait.device)
                    return True
            time.sleep(_TICK_SECONDS)
        return False

    def _end_unstarted(self) -> int:
        reason, released = self._control.stop_reason, self._control.releases
        self._journal.write(events.RunStopped(self._step, None, reason, 0.0, released=released))
        self._say_last_word()
        return 0 if self._signal is None else 128 + self._signal

    def _say_last_word(self) -> None:
        """Wait a while for a disk that does not take the end: without it the run counts as interrupted."""
        deadline = time.monotonic() + _LAST_WORD_SECONDS
        while not self._journal.flush() and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)
        self._journal.close()

    def _attend(self, commands: CommandReader, sampler: MemorySampler) -> None:
        self._journal.flush()
        self._obey_all(commands)
        sample = sampler.sample()
        if sample is not None:
            self._emit(sample)
        self._look_for_trouble(sampler)

    def _obey_all(self, commands: CommandReader) -> None:
        for request in commands.read_new():
            self._obey(request)

    def _emit(self, event: events.Event) -> None:
        if isinstance(event, events.StepCompleted):
            self._step = event.step
        elif isinstance(event, events.CheckpointCommitted):
            self._checkpoint_bytes = event.size_bytes
        self._journal.write(event)

    def _look_for_trouble(self, sampler: MemorySampler) -> None:
        machine = sampler.take_facts(self._checkpoint_bytes)
        if machine is None or self._spec is None or self._desk is None:
            return
        standstill = self._control.pulse.standstill()
        found = [*self._machine.see(machine), *([standstill] if standstill else [])]
        new = self._desk.take(found, self._step)
        if standstill in new and self._spec.sftui.on_trouble == "stop":
            # Whoever stands still hears nothing.
            newest = committed_checkpoints(self._folder)[-1:]
            place = f"{self._folder.checkpoints.name}/{newest[0].name}" if newest else None
            self._stop_now(standstill.title, 0, place)

    def _finish(self, *, wait: bool) -> None:
        """Run the command of the user's choice, once, if the run has come to its end."""
        spec, self._spec = self._spec, None
        if spec is None or not spec.sftui.on_finish:
            return
        state = self._folder.read_state()
        outcome = state.outcome
        if outcome is None or (isinstance(outcome, events.RunStopped) and outcome.released):
            return
        run_command(spec.sftui.on_finish, facts(self._folder, state, outcome), os.environ, wait=wait)

    def _obey(self, request: Request) -> None:
        self._emit(events.CommandAccepted(request.id, request.command))
        match request.command:
            case "stop":
                self._control.request_stop("stopped by a command")
            case "stop_now":
                self._stop_now("stopped at once by a command", 0)
            case "pause":
                self._control.request_pause()
            case "continue":
                self._control.request_continue()
                self._pushes_in = True
            case "release":
                self._control.request_stop("paused: the device is free", release=True)
            case "checkpoint":
                self._control.request_checkpoint()
            case "sample":
                self._control.request_sample()
            case "set_max_steps" if request.value is not None and request.value >= 1:
                self._control.request_length(Length(int(request.value), None))
            case "set_num_train_epochs" if request.value is not None and request.value > 0:
                self._control.request_length(Length(None, request.value))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._signal is not None:
            self._stop_now(f"stopped at once by a second signal, {name}", 128 + number)
        self._signal = number
        self._control.request_stop(f"stopped by {name}")

    def _stop_now(self, reason: str, exit_status: int, checkpoint: str | None = None) -> None:
        # The worker may be deep in a kernel: a thread cannot be killed, its process can.
        seconds = time.monotonic() - self._began
        self._journal.write(events.RunStopped(self._step, checkpoint, reason, seconds))
        with contextlib.suppress(OSError):
            self._finish(wait=False)
        os._exit(exit_status)

    def _exit_status(self, worker: TrainingWorker) -> int:
        match worker.outcome:
            case events.RunFinished():
                return 0
            case events.RunStopped() if self._signal is not None:
                return 128 + self._signal
            case events.RunStopped():
                return 0
            case _:
                return 1


def _checkpoint_of_end(folder: RunFolder) -> Path | None:
    """The checkpoint that the last end of the run names: newer ones may hold what it was stopped for."""
    outcome = folder.read_state().outcome
    if not isinstance(outcome, events.RunStopped) or outcome.checkpoint is None:
        return None
    checkpoint = folder.path / outcome.checkpoint
    return checkpoint if is_committed(checkpoint) else None


def _show_to_cuda(device: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == queue.CPU else device


def _failed(error: SftuiError) -> events.RunFailed:
    return events.RunFailed(type(error).__name__, error.title, error.message, error.hint, None, 0, 0.0)


def main() -> int:
    """Run the folder named on the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--queue"]
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: python -m core.training.runner [--queue] RUN_FOLDER [STEP]\n")
        return 2
    try:
        step = int(arguments[1]) if len(arguments) == 2 else None
        return Runner(RunFolder(Path(arguments[0])), queued="--queue" in sys.argv, resume_step=step).run()
    except SftuiError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
