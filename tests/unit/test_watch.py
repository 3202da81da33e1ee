"""What counts as trouble, told once until it is over: steps, standstills and machines as sequences of facts."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.runs import events
from core.runs.events import Event
from core.spec.run_spec import SftuiOptions
from core.training.control import RunControl
from core.training.troubles import TroubleDesk
from core.training.watch import GpuHealth, MachineFacts, MachineWatch, Pulse, StepWatch, Trouble

GB = 10**9
HEALTHY = GpuHealth("GPU 0", lost=False, slowed_by=(), temperature_celsius=61, memory_errors=2)
MACHINE = MachineFacts(64 * GB, 128 * GB, "/runs/one", 500 * GB, 20 * GB, (HEALTHY,))


def kinds(watch: StepWatch, losses: list[float], norms: Sequence[float | None] | None = None) -> list[list[str]]:
    pairs = zip(losses, norms or [1.0] * len(losses), strict=True)
    return [[one.kind for one in watch.see(step, *pair)] for step, pair in enumerate(pairs, start=1)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_noticed_at_its_step_and_puts_the_weights_before_it_in_doubt(loss: float) -> None:
    watch = StepWatch()
    assert watch.see(6, 2.0, 1.0) == []
    (found,) = watch.see(7, loss, math.nan)
    assert (found.kind, found.good_step) == ("not_finite", 5)
    assert "at step 7" in found.title
    assert watch.see(8, 2.0, 1.0) == []


def test_a_gradient_that_is_not_finite_leaves_the_weights_before_it_beyond_doubt() -> None:
    (found,) = StepWatch().see(7, 2.0, math.inf)
    assert (found.kind, found.good_step) == ("not_finite", 6)


def test_float16_may_overflow_while_it_looks_for_its_scale_but_not_for_ever() -> None:
    watch = StepWatch(scales_loss=True)
    told = kinds(watch, [2.0] * 17 + [2.0] * 16, [math.inf] * 16 + [1.0] + [math.nan] * 16)
    assert told == [[]] * 33
    assert [one.kind for one in watch.see(34, 2.0, math.nan)] == ["not_finite"]


def test_a_loss_leaps_at_ten_times_its_moving_median() -> None:
    assert kinds(StepWatch(), [2.0, 2.2, 1.9, 2.1, 2.0, 19.9, 20.6, 2.0])[4:] == [[], [], ["loss_spike"], []]
    # The first steps tell nothing of what is usual, and next to nothing may become ten times as much.
    assert kinds(StepWatch(), [0.5, 8.0, 0.5]) == [[]] * 3
    assert kinds(StepWatch(), [0.001] * 9 + [0.05]) == [[]] * 10


def test_a_lasting_rise_is_usual_after_a_while() -> None:
    told = kinds(StepWatch(), [0.1] * 50 + [2.0] * 40)
    assert told[50] == ["loss_spike"]
    assert told[-1] == []


def test_a_gradient_explodes_beyond_ten_times_its_median_and_what_it_is_cut_to() -> None:
    usual = [0.5] * 6
    assert kinds(StepWatch(1.0), [2.0] * 8, [*usual, 4.9, 5.1])[-2:] == [[], ["gradient_explosion"]]
    small = [0.01] * 6
    assert kinds(StepWatch(1.0), [2.0] * 7, [*small, 0.9])[-1] == []
    assert kinds(StepWatch(0.0), [2.0] * 7, [*small, 0.9])[-1] == ["gradient_explosion"]
    assert kinds(StepWatch(1.0), [2.0] * 3, [None] * 3) == [[]] * 3


def test_a_gradient_no_larger_than_those_of_the_beginning_is_no_explosion() -> None:
    learnt = [3.0, *[0.05] * 60]
    assert kinds(StepWatch(1.0), [2.0] * 63, [*learnt, 2.9, 3.1])[-2:] == [[], ["gradient_explosion"]]


class Clock:
    """Time as the test tells it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pulse_after_steps(clock: Clock, seconds: float) -> Pulse:
    pulse = Pulse(clock)
    for _ in range(3):
        pulse.begin_step()
        clock.now += seconds
        pulse.end_step()
    pulse.beat()
    return pulse


def test_a_worker_that_hangs_is_noticed_after_ten_times_the_usual_time() -> None:
    clock = Clock()
    pulse = pulse_after_steps(clock, 20.0)
    clock.now += 199.0
    assert pulse.standstill() is None
    clock.now += 2.0
    found = pulse.standstill()
    assert found is not None
    assert (found.kind, found.message) == ("no_progress", "Nothing for 3 min 21 s; a step takes 20 s.")
    pulse.beat()
    assert pulse.standstill() is None


def test_short_steps_may_stand_still_for_half_a_minute_savings_for_half_an_hour_and_rests_for_ever() -> None:
    clock = Clock()
    pulse = pulse_after_steps(clock, 0.02)
    clock.now += 29.0
    assert pulse.standstill() is None
    clock.now += 2.0
    assert pulse.standstill() is not None
    pulse.pause()
    clock.now += 1799.0
    assert pulse.standstill() is None
    clock.now += 2.0
    found = pulse.standstill()
    assert found is not None and found.message == "Nothing for 30 min 1 s."
    pulse.rest()
    clock.now += 99_999.0
    assert pulse.standstill() is None


def test_nobody_knows_what_is_usual_before_the_third_step_but_half_an_hour_is_not() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    clock.now += 99_999.0
    assert pulse.standstill() is None
    pulse.begin_step()
    clock.now += 1000.0
    assert pulse.standstill() is None
    clock.now += 1000.0
    assert pulse.standstill() is not None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_held_out_loss_that_is_no_number_puts_the_weights_of_its_step_in_doubt(loss: float) -> None:
    watch = StepWatch()
    assert watch.see_held_out(6, 2.0) == []
    (found,) = watch.see_held_out(7, loss)
    assert (found.kind, found.good_step) == ("not_finite", 6)
    assert "The held-out loss is" in found.title


def gpu(**changes: Any) -> MachineFacts:
    return replace(MACHINE, gpus=(replace(HEALTHY, **changes),))


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        (gpu(lost=True, memory_errors=None), "gpu_lost", "GPU 0 is lost"),
        (gpu(memory_errors=3), "gpu_memory_error", "1 on GPU 0 could not be corrected"),
        (gpu(slowed_by=("heat",), temperature_celsius=91), "gpu_slowed", "Held down by heat on GPU 0 at 91 °C."),
        (replace(MACHINE, memory_available_bytes=GB), "host_memory", "1.00 GB of 128 GB are left"),
        (replace(MACHINE, disk_free_bytes=20 * GB), "disk", "/runs/one: 20.0 GB are free and 20.1 GB are needed."),
    ],
)
def test_a_machine_that_fails_is_noticed_at_the_next_look(facts: MachineFacts, kind: str, words: str) -> None:
    watch = MachineWatch()
    assert watch.see(MACHINE) == []
    (found,) = watch.see(facts)
    assert found.kind == kind
    assert words in f"{found.title}. {found.message}"


def test_an_error_of_the_driver_is_told_by_its_number_with_what_to_do() -> None:
    watch = MachineWatch()
    (found,) = watch.see(gpu(errors=(79,)))
    assert (found.kind, found.title) == ("gpu_error", "GPU 0: Xid 79: the GPU has fallen off the bus")
    assert "Reboot the machine" in found.message
    (found,) = watch.see(gpu(errors=(48, 63, 999)))
    assert "Xid 48" in found.title and "Xid 63" in found.title and "only this number" in found.title
    assert watch.see(gpu()) == []


def test_each_error_of_the_driver_is_told_also_when_one_follows_the_other() -> None:
    taker, told, _ = desk()
    watch = MachineWatch()
    for errors in ((), (13,), (79,), ()):
        taker.take(watch.see(gpu(errors=errors)), 3)
    titles = [event.title for event in told if isinstance(event, events.TroubleNoticed)]
    assert [title.partition(": the")[0].partition(": a")[0] for title in titles] == ["GPU 0: Xid 13", "GPU 0: Xid 79"]
    assert told[-1] == events.TroubleEnded("gpu_error", 3)


def test_what_the_driver_does_not_tell_is_no_trouble() -> None:
    silent = GpuHealth("GPU 0", lost=False, slowed_by=())
    facts = replace(MACHINE, gpus=(silent,), disk_free_bytes=None)
    assert MachineWatch().see(facts) == []


def test_a_small_machine_is_nearly_full_later_than_a_large_one() -> None:
    small = replace(MACHINE, memory_total_bytes=4 * GB, memory_available_bytes=GB // 2)
    assert MachineWatch().see(small) == []
    assert [one.kind for one in MachineWatch().see(replace(small, memory_available_bytes=GB // 10))] == ["host_memory"]


def test_what_comes_and_goes_is_over_only_when_it_is_well_gone() -> None:
    watch = MachineWatch()
    hot = gpu(slowed_by=("heat",))
    assert [bool(watch.see(facts)) for facts in (hot, MACHINE, hot)] == [True] * 3
    assert [bool(watch.see(MACHINE)) for _ in range(60)] == [True] * 59 + [False]
    scarce = replace(MACHINE, disk_free_bytes=20 * GB)
    little = replace(MACHINE, disk_free_bytes=21 * GB)
    assert [bool(watch.see(facts)) for facts in (little, scarce, little, MACHINE)] == [False, True, True, False]


NAN = Trouble("not_finite", "The loss is not a number at step 7", "Lower the rate.", 5)
HOT = Trouble("gpu_slowed", "GPU 0 runs slower than it could", "Heat.")


def desk(**wanted: Any) -> tuple[TroubleDesk, list[Event], RunControl]:
    told: list[Event] = []
    control = RunControl()
    return TroubleDesk(SftuiOptions(**wanted), told.append, control), told, control


def test_a_trouble_is_told_once_until_it_is_over_and_then_anew() -> None:
    taker, told, control = desk()
    for found in ([HOT], [HOT], [], [HOT]):
        taker.take(found, 3)
    noticed = events.TroubleNoticed("gpu_slowed", HOT.title, HOT.message, 3, "go_on")
    assert told == [noticed, events.TroubleEnded("gpu_slowed", 3), noticed]
    assert not control.stop_requested and not control.pause_requested


def test_numbers_that_are_not_finite_stop_the_run_at_the_last_good_step() -> None:
    taker, told, control = desk()
    taker.take([NAN], 7)
    assert isinstance(told[0], events.TroubleNoticed) and told[0].action == "stop"
    assert (control.stop_requested, control.may_save, control.good_step) == (True, False, 5)
    assert "The loss is not a number at step 7" in control.stop_reason


def test_a_stop_for_what_does_not_touch_the_weights_saves_them() -> None:
    taker, _, control = desk(on_trouble="stop")
    taker.take([HOT], 7)
    assert (control.stop_requested, control.may_save, control.stop_reason) == (True, True, HOT.title)


def test_a_rest_says_what_it_is_for() -> None:
    taker, _, control = desk(on_not_finite="pause")
    taker.take([NAN], 7)
    assert control.pause_requested
    assert control.pause_reason == (NAN.title, NAN.message)
    assert control.may_save
