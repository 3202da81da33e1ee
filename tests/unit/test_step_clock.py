"""Where the time of a step goes."""

from core.training.step_clock import StepClock, StepTimes


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_computing_and_the_optimizer_are_told_apart() -> None:
    hand, settled = Hand(), []
    clock = StepClock(lambda: settled.append(hand.now), hand)
    clock.begin()
    assert clock.times.data is None
    clock.wait()
    # A save, after which the batch is waited for.
    hand.now += 50
    clock.wait()
    hand.now += 0.5
    clock.begin()
    hand.now += 3
    clock.begin_optimizer()
    hand.now += 1
    clock.end_optimizer()
    hand.now += 0.25
    clock.end()
    assert clock.times == StepTimes(data=0.5, total=4.25, optimizer=1.0)
    # A GPU is waited for before and after: it is told to work, and the call returns.
    assert settled == [153.5, 154.5]
