"""Has the draft's run simulated once it stands still on a step that shows what it costs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from textual.message import Message

from core.errors import SftuiError
from tui_app.background import in_thread

if TYPE_CHECKING:
    from textual.app import App
    from textual.timer import Timer

    from core.data.token_statistics import TokenStatistics
    from core.memory.plan import ModelFacts, Plan
    from core.memory.simulated import Simulation, SimulationTask
    from core.runs.launch import WarmRunner
    from core.spec.run_spec import RunSpec
    from tui_app.draft import Draft

_STILL_SECONDS = 1.0
_LONGEST_SECONDS = 600.0
_STEPS = ("precision", "training", "review")


class Simulated(Message):
    """How far the simulation of a task is, or what it found."""

    def __init__(self, task: SimulationTask, simulation: Simulation | None = None, words: str = "") -> None:
        super().__init__()
        self.task = task
        self.simulation = simulation
        self.words = words
        """Why there is none, or not yet."""


def task_of(
    spec: RunSpec, model: ModelFacts | None, plan: Plan, tokens: TokenStatistics | None
) -> SimulationTask | None:
    """What there is to simulate for a spec as it is planned; None while too little is known."""
    from core.memory.batch_shape import batch_shape
    from core.memory.simulation_plan import simulation_task

    # A count that is not complete would have another simulation every second.
    shape = batch_shape(spec, tokens if tokens is not None and tokens.counted == tokens.rows else None)
    if model is None or plan.memory is None or shape is None:
        return None
    return simulation_task(spec, model, plan, shape)


class Simulating:
    """Asks the warm runner, one task at a time, and posts Simulated to the app."""

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self._timer: Timer | None = None
        self._task: SimulationTask | None = None
        self._warm: WarmRunner | None = None

    def follow(self, draft: Draft | None, warm: WarmRunner | None) -> None:
        """Wait until this draft stands still; does nothing for one that costs the same."""
        task = draft.simulation_task if draft is not None else None
        if task is not None and task.asks_the_same(self._task) and warm is self._warm:
            return
        self._task, self._warm = task, warm
        self._stop()
        if task is not None and warm is not None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self._app.set_timer(_STILL_SECONDS, self._begin)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()

    def _begin(self) -> None:
        from tui_app.setup_screen import SetupScreen

        task, warm = self._task, self._warm
        # The last timer may come when the app is on its way out and has no screen any more.
        if task is None or warm is None or not self._app.screen_stack:
            return
        screen = self._app.screen
        if not isinstance(screen, SetupScreen) or screen.STEP not in _STEPS:
            # Elsewhere nobody looks at what it costs; the step may come yet.
            self._wait()
            return
        self._app.run_worker(self._simulate(task, warm), group="simulate", exclusive=True)

    async def _simulate(self, task: SimulationTask, warm: WarmRunner) -> None:
        from core.runs.launch import NoAnswerError

        self._app.post_message(Simulated(task, words="being simulated"))
        try:
            found = Simulated(task, await in_thread(partial(_answer, task, warm)))
        except NoAnswerError:
            # A run has the runner; the next one is asked anew.
            found = Simulated(task, words="not simulated: the runner has a run")
        except SftuiError as error:
            found = Simulated(task, words=f"not simulated: {error.message}")
        except (OSError, ValueError) as error:
            found = Simulated(task, words=f"not simulated: {error}")
        self._app.post_message(found)


def _answer(task: SimulationTask, warm: WarmRunner) -> Simulation:
    """What was found before, or is found now. Raises SftuiError; OSError or ValueError for what makes no sense."""
    from core.memory.simulated import Simulation, cached_simulation

    known = cached_simulation(task.key)
    return known or Simulation.from_json(warm.ask(task.question(), timeout=_LONGEST_SECONDS))
