"""A run's state is what its entries say, and nothing else."""

from typing import get_args

import pytest

from core.runs import events
from core.runs.events import Entry, Event, Phase
from core.runs.state import RunState, Series, Status, reduce, reduce_all, seconds_per_step, status

STARTED = events.RunStarted("run", "model", "lora", 1, "0.1.0", warm=False)


def step(number: int, seconds: float = 1.0) -> events.StepCompleted:
    return events.StepCompleted(number, 0.0, 3.0 - number / 10, 1e-4, 0.5, number, 1.0, seconds)


def after(*happened: Event, state: RunState | None = None) -> RunState:
    state = state or RunState()
    for event in happened:
        state = reduce(state, Entry(state.last_seq + 1, 100.0 + state.last_seq, event))
    return state


def test_nothing_has_happened_to_a_new_run() -> None:
    state = RunState()
    assert (state.step, state.last, state.outcome, state.stop_requested) == (0, None, None, False)
    assert seconds_per_step(state) is None


def test_a_run_is_told_from_its_start_to_its_end() -> None:
    sample = events.MemorySampled(1, 2, 3, 4.0)
    checkpoint = events.CheckpointCommitted(2, "checkpoints/checkpoint-2", 10, 0.1)
    base, tuned = (events.SamplesAnswered("base", 0, ()), events.SamplesAnswered("tuned", 2, ()))
    state = after(
        STARTED,
        events.PhaseStarted("loading", "LlamaForCausalLM"),
        events.ChoiceMade("dtype", "float32", "on the CPU"),
        events.DataPrepared("text", 5, 1),
        events.ModelLoaded("AutoModelForCausalLM", "llama", 1, 2, "float32", "cpu", "sdpa"),
        events.ModelAdapted(1, 2, ("q_proj",)),
        events.PhaseStarted("training"),
        events.TrainingStarted(4, 2.0),
        sample,
        step(1),
        step(2),
        events.EvaluationCompleted(2, 1.5, 0.1),
        checkpoint,
        events.ProblemNoticed("title", "message"),
        base,
        tuned,
        events.CommandAccepted("id", "checkpoint"),
    )
    assert (state.run_id, state.model, state.method, state.started_at) == ("run", "model", "lora", 100.0)
    assert (state.phase, state.phase_detail, state.phase_started_at) == ("training", "", 106.0)
    assert [choice.value for choice in state.choices] == ["float32"]
    assert state.data is not None and state.data.train_rows == 5
    assert state.loaded is not None and state.adapted is not None
    assert (state.max_steps, state.epochs, state.training_started_at) == (4, 2.0, 107.0)
    assert (state.step, state.last) == (2, step(2))
    assert [point.loss for point in state.evaluations] == [1.5]
    assert [(point.time, point.use) for point in state.memory] == [(108.0, sample)]
    assert state.checkpoints == (checkpoint,)
    assert (state.base_samples, state.tuned_samples) == (base, tuned)
    assert not state.stop_requested
    assert (state.last_seq, state.last_time) == (17, 116.0)
    ended = after(events.RunFinished(4, "adapter", 9.0), state=state)
    assert ended.outcome == events.RunFinished(4, "adapter", 9.0)
    assert state.outcome is None


def test_the_same_entries_give_the_same_state() -> None:
    happened: list[Event] = [STARTED, events.TrainingStarted(9, 1.0), *map(step, range(1, 10))]
    assert after(*happened) == after(*happened)
    assert hash(after(*happened)) == hash(after(*happened))


def test_two_successors_of_one_state_do_not_see_each_other() -> None:
    state = after(STARTED, step(1))
    left, right = after(step(2, seconds=2.0), state=state), after(step(2, seconds=7.0), step(3), state=state)
    assert list(state.steps) == [step(1)]
    assert list(left.steps) == [step(1), step(2, seconds=2.0)]
    assert list(right.steps) == [step(1), step(2, seconds=7.0), step(3)]


def test_appending_to_a_long_series_shares_its_storage() -> None:
    series: Series[int] = Series()
    for number in range(1000):
        series = series.append(number)
    longer = series.append(1000)
    assert longer._items is series._items
    assert (len(series), len(longer), series[-1], longer[-1]) == (1000, 1001, 999, 1000)


def test_a_series_reads_like_a_list() -> None:
    short = Series([1, 2, 3])
    long = short.append(4)
    assert (list(short), short[0], short[-1], short[1:], short[-2:]) == ([1, 2, 3], 1, 3, [2, 3], [2, 3])
    assert (long[::-1], 4 in short, 4 in long, long.index(4)) == ([4, 3, 2, 1], False, True, 3)
    assert short == Series([1, 2, 3])
    assert short not in (long, [1, 2, 3])
    assert hash(short) == hash(Series([1, 2, 3]))
    assert repr(short) == "Series([1, 2, 3])"
    for index in (3, -4):
        with pytest.raises(IndexError):
            short[index]


def test_a_choice_made_again_replaces_the_first() -> None:
    state = after(events.ChoiceMade("a", "1", ""), events.ChoiceMade("b", "2", ""), events.ChoiceMade("a", "3", ""))
    assert [(choice.name, choice.value) for choice in state.choices] == [("b", "2"), ("a", "3")]


@pytest.mark.parametrize("command", ["stop", "stop_now"])
def test_a_stop_is_asked_for_until_another_runner_takes_over(command: events.Command) -> None:
    state = after(STARTED, events.CommandAccepted("id", command))
    assert state.stop_requested
    assert not after(STARTED, state=state).stop_requested


def test_a_run_that_goes_on_from_a_checkpoint_does_the_later_steps_anew() -> None:
    state = after(
        STARTED,
        events.PhaseStarted("training"),
        events.TrainingStarted(9, 1.0),
        *map(step, range(1, 6)),
        events.EvaluationCompleted(2, 1.0, 0.1),
        events.EvaluationCompleted(4, 0.9, 0.1),
        events.RunStopped(5, "checkpoints/checkpoint-3", "asked", 1.0),
    )
    again = after(STARTED, state=state)
    assert (again.outcome, again.phase, again.started_at) == (None, None, 100.0)
    assert status(again, alive=True) == "starting"
    again = after(events.TrainingStarted(9, 1.0, first_step=3), state=again)
    assert [point.step for point in again.steps] == [1, 2, 3]
    assert [point.step for point in again.evaluations] == [2]
    assert after(step(4), state=again).step == 4
    assert [point.step for point in state.steps] == [1, 2, 3, 4, 5]


def test_a_resumed_run_stands_at_its_first_step_though_the_journal_before_is_gone() -> None:
    assert after(STARTED, events.TrainingStarted(9, 1.0, first_step=5)).step == 5


@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_live_run_is_in_its_phase_and_a_dead_one_was_interrupted(phase: Phase) -> None:
    state = after(STARTED, events.PhaseStarted(phase))
    assert status(state, alive=True) == phase
    assert status(state, alive=False) == "interrupted"


def test_before_its_first_event_a_run_is_starting() -> None:
    assert status(RunState(), alive=False) == "starting"
    assert status(RunState(), alive=True) == "starting"
    assert status(after(STARTED), alive=True) == "starting"
    assert status(after(STARTED), alive=False) == "interrupted"


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (events.RunFinished(1, "adapter", 1.0), "finished"),
        (events.RunStopped(1, None, "asked", 1.0), "stopped"),
        (events.RunFailed("E", "t", "m", "h", None, 1, 1.0), "failed"),
    ],
)
@pytest.mark.parametrize("alive", [True, False])
def test_the_end_comes_from_the_last_event_whoever_lives(outcome: Event, word: Status, alive: bool) -> None:
    assert status(after(STARTED, events.PhaseStarted("training"), outcome), alive=alive) == word


def test_every_status_can_be_reached() -> None:
    ends = {"released", "finished", "stopped", "failed", "interrupted"}
    assert {"queued", "starting", "paused", *ends, *get_args(Phase)} == set(get_args(Status))


def test_a_run_waits_for_its_turn() -> None:
    def place(number: int) -> Event:
        return events.RunQueued("run", "model", "lora", 42, number, "the CPU")

    ended = after(STARTED, step(7), events.CommandAccepted("1", "stop"), events.RunStopped(7, None, "asked", 1.0))
    waiting = after(place(2), state=ended)
    assert status(waiting, alive=True) == "queued"
    assert status(waiting, alive=False) == "interrupted"
    assert status(after(place(1)), alive=False) == "interrupted", "it has never begun"
    assert not waiting.stop_requested, "that was another runner"
    asked = after(events.CommandAccepted("2", "stop"), place(1), state=waiting)
    assert asked.stop_requested
    assert asked.queued == place(1)
    left = after(events.RunStopped(7, None, "asked", 0.0), state=asked)
    assert (status(left, alive=False), left.queued) == ("stopped", None)
    begun = after(STARTED, state=waiting)
    assert (status(begun, alive=True), begun.queued) == ("starting", None)


def test_a_run_rests_and_goes_on() -> None:
    state = after(STARTED, events.PhaseStarted("training"), step(1), events.RunPaused(1, "by request"))
    assert status(state, alive=True) == "paused"
    assert status(state, alive=False) == "interrupted"
    assert status(after(events.RunContinued(1, 60.0), state=state), alive=True) == "training"
    freed = after(events.RunStopped(1, "checkpoints/checkpoint-1", "paused", 5.0, released=True), state=state)
    assert status(freed, alive=False) == "released"
    assert status(after(STARTED, state=freed), alive=True) == "starting"


def test_a_deleted_checkpoint_is_no_longer_listed_and_one_made_anew_is_listed_once() -> None:
    first, second = (events.CheckpointCommitted(n, f"checkpoints/checkpoint-{n}", 10, 0.1) for n in (1, 2))
    state = after(STARTED, first, second, events.CheckpointDeleted(first.path), second)
    assert state.checkpoints == (second,)


def test_one_slow_step_does_not_move_what_is_left() -> None:
    state = after(STARTED, events.TrainingStarted(10, 1.0), step(1, seconds=60.0), *map(step, range(2, 6)))
    assert seconds_per_step(state) == 1.0
    assert seconds_per_step(state, window=1) == 1.0


def test_a_resumed_run_counts_its_loading_anew() -> None:
    half = events.LoadProgressed(5, 10, 1, 2)
    state = reduce(RunState(), Entry(1, 1.0, half))
    assert state.load_progress == half
    started = events.RunStarted("run", "model", "lora", 1, "0.1.0", False)
    assert reduce(state, Entry(2, 2.0, started)).load_progress is None


def test_many_entries_at_once_are_the_same_as_one_after_the_other() -> None:
    sample = events.MemorySampled(1, 2, 3, 4.0)
    happened: list[Event] = [
        STARTED,
        events.TrainingStarted(6, 1.0),
        *(step(1), step(2), sample, step(3)),
        events.CheckpointCommitted(3, "checkpoints/checkpoint-3", 10, 0.1),
        *(step(4), sample),
        events.TrainingStarted(6, 1.0, 3),
        *(step(4), step(5), step(6), sample),
    ]
    entries = [Entry(number, 100.0 + number, event) for number, event in enumerate(happened, 1)]
    one_by_one = RunState()
    for entry in entries:
        one_by_one = reduce(one_by_one, entry)
    assert reduce_all(RunState(), entries) == one_by_one
    assert [done.step for done in one_by_one.steps] == [1, 2, 3, 4, 5, 6]
    half = reduce_all(RunState(), entries[:5])
    assert reduce_all(half, entries[5:]) == one_by_one
    assert len(half.steps) == 2
    assert reduce_all(half, []) is half
