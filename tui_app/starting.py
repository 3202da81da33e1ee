"""Starts a run: its folder, then the runner that is warm, or a cold one; all of it for a background thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.memory.plan import Plan
    from core.runs.events import Mend
    from core.runs.folder import RunFolder
    from core.runs.launch import WarmRunner
    from core.spec.run_spec import RunSpec


def start_warm() -> WarmRunner | None:
    """A warm runner for the next run; None while a run needs the CPU."""
    from core.runs import launch

    return None if launch.trains_on_cpu() else launch.WarmRunner.start()


def start(spec: RunSpec, plan: Plan | None, warm: WarmRunner | None, *, queue: bool = False) -> RunFolder:
    """The folder of the run that was started, or waits in the queue. Raises SftuiError or OSError."""
    from core import permissions
    from core.runs import launch
    from core.runs.folder import create_run

    # What was typed on the screens was said once more before the start.
    permissions.allow(permissions.wanted(spec))
    folder = create_run(spec, plan.to_json() if plan is not None else None)
    if queue:
        # The warm runner stays for whoever starts at once.
        launch.start_run(folder, queue=True)
    elif warm is None or not warm.run(folder):
        launch.start_run(folder)
        if warm is not None:
            warm.close()
    return folder


def resume(folder: RunFolder, step: int | None = None) -> None:
    """Go on with a run that has ended, from its newest checkpoint or that of `step`; wait while another has its device.

    Raises SftuiError, DamagedCheckpointError or OSError.
    """
    from core.runs import launch
    from core.runs.checkpoints import checkpoint_to_resume

    checkpoint_to_resume(folder, step)
    launch.start_run(folder, step, queue=bool(_before(folder)))


def _before(folder: RunFolder) -> str:
    """The run that has the device of this one, or waits for it; empty if it is free."""
    from core.devices.gpu import GpuMonitor
    from core.runs.launch import wished_device
    from core.runs.queue import needed_bytes
    from tui_app.queueing import before_a_new_run

    monitor = GpuMonitor()
    gpus = monitor.read()
    monitor.close()
    return before_a_new_run(wished_device(folder), gpus, needed_bytes(folder))


def mend(folder: RunFolder, change: Mend) -> None:
    """Go on with a run whose memory ran out, with a change that makes it smaller; some changes begin anew.

    Raises SftuiError, DamagedCheckpointError or OSError.
    """
    from core.runs.checkpoints import checkpoint_to_resume
    from core.runs.mending import apply_mend

    # What is damaged is said before anything is changed.
    checkpoint_to_resume(folder, 0 if change.begins_anew else None)
    resume(folder, apply_mend(folder, change))
