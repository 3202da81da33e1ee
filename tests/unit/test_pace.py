"""How fast a run is, how long it takes, and what share of its GPU it uses."""

from __future__ import annotations

from typing import Any

import pytest

from core.devices.utilization import flops_per_token, peak_flops, utilization
from core.runs import events
from core.runs.events import Entry, Event
from core.runs.pace import best_checkpoint, phase_left, rows_per_second, split, step_seconds, time_left
from core.runs.state import RunState, reduce
from tui_app.format import figures, time_line

STARTED = events.RunStarted("run", "model", "qlora", 1, "0.1.0", warm=False)


def step(number: int, seconds: float = 1.0, **more: Any) -> events.StepCompleted:
    return events.StepCompleted(number, 0.0, 2.0, 1e-4, 0.5, number * 100, 100.0, seconds, **more)


def after(*happened: Event, seconds: float = 1.0) -> RunState:
    state = RunState()
    for number, event in enumerate(happened):
        state = reduce(state, Entry(number + 1, 100.0 + number * seconds, event))
    return state


def test_an_outlier_does_not_move_the_pace_and_steps_of_two_lengths_do() -> None:
    assert step_seconds(RunState()) is None
    assert step_seconds(after(step(1, 60.0), *map(step, range(2, 6)))) == 1.0
    uneven = [step(number, 1.0 if number % 10 else 5.0) for number in range(1, 101)]
    assert step_seconds(after(*uneven)) == pytest.approx(1.0, abs=0.2)
    halves = [step(number, 1.0 if number % 2 else 3.0) for number in range(1, 101)]
    assert step_seconds(after(*halves)) == pytest.approx(2.0)


def test_waiting_for_data_evaluating_and_saving_are_counted_in() -> None:
    begun = events.TrainingStarted(100, 1.0, rows_per_step=8, evaluate_every=10, save_every=50)
    steps = [step(number, 1.0, data_seconds=1.0, optimizer_seconds=0.25) for number in range(1, 21)]
    state = after(STARTED, begun, *steps)
    left = time_left(state)
    assert left is not None
    assert left.seconds == pytest.approx(160.0)
    assert left.untimed == ("8 evaluations",)
    state = after(STARTED, begun, *steps, events.EvaluationCompleted(20, 1.0, 5.0))
    left = time_left(state)
    assert left is not None
    assert left.seconds == pytest.approx(200.0)
    assert left.untimed == ()
    state = after(
        STARTED,
        begun,
        *steps,
        events.EvaluationCompleted(20, 1.0, 5.0),
        events.CheckpointCommitted(20, "checkpoints/checkpoint-20", 1, 10.0),
    )
    left = time_left(state)
    assert left is not None
    assert left.seconds == pytest.approx(220.0)
    assert rows_per_second(state) == pytest.approx(4.0)
    assert best_checkpoint(state) == 20
    found = split(state)
    assert found is not None
    assert (found.data, found.compute, found.optimizer, found.between) == pytest.approx((1.0, 0.75, 0.25, 15 / 20))
    words = dict(figures(state))
    assert words["samples/s"] == "4"
    assert words["time goes to"].startswith("data 36 %, forward and backward 27 %, optimizer 9 %, evaluating")
    assert words["checkpoints"] == "1, best of step 20"


def test_what_was_not_timed_yet_is_said_beside_the_end() -> None:
    begun = events.TrainingStarted(100, 1.0, evaluate_every=100)
    state = after(STARTED, events.PhaseStarted("training"), begun, *map(step, range(1, 21)))
    line = time_line(state, 100.0 + 22, alive=True)
    assert "left, done at" in line
    assert line.endswith("and 1 evaluation not timed yet")


def test_phases_before_training_say_how_long_they_take() -> None:
    loading = after(
        STARTED,
        events.PhaseStarted("loading"),
        events.LoadProgressed(1, 100, 0, 1),
        events.LoadProgressed(25, 100, 0, 1),
        seconds=4.0,
    )
    assert phase_left(loading, 112.0) == pytest.approx(24.0)
    assert "loading takes another 22 s" in time_line(loading, 114.0, alive=True)
    rows = after(
        STARTED,
        events.PhaseStarted("preparing"),
        events.DataProgressed("checking", 90, 100),
        events.DataProgressed("tokenizing", 0, 100),
        events.DataProgressed("tokenizing", 50, 100),
        seconds=4.0,
    )
    assert phase_left(rows, 116.0) == pytest.approx(4.0)
    assert phase_left(after(STARTED, events.PhaseStarted("preparing")), 105.0) is None


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA RTX A2000", None),
        ("Somebody's GPU", None),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, teraflops: float | None) -> None:
    known = peak_flops(name, "bfloat16")
    assert known == (None if teraflops is None else pytest.approx(teraflops * 1e12))
    assert peak_flops(name, "float32") is None


def test_utilization_counts_four_to_eight_flops_a_parameter_and_token() -> None:
    costs = [flops_per_token(10, frozen=frozen, recomputes=recomputes) for frozen, recomputes in _KINDS]
    assert costs == [40, 60, 60, 80]
    use = events.GpuUse(0, "NVIDIA H100 80GB HBM3", 80, 40, 40, 97, 54, 612.0)
    state = after(
        STARTED,
        events.ModelLoaded("AutoModelForCausalLM", "llama", 8_000_000_000, 1, "bfloat16", "cuda:0", "sdpa"),
        events.TrainingStarted(10, 1.0, recomputes=True),
        events.MemorySampled(1, 2, 3, 4.0, (use,)),
        step(1),
    )
    assert utilization(state, 7180.0) == pytest.approx(7180 * 48e9 / 989e12)
    assert utilization(state, None) is None
    assert utilization(after(STARTED), 7180.0) is None


_KINDS = ((True, False), (True, True), (False, False), (False, True))
