"""The bar of a run: bytes while its weights are loaded, steps from then on."""

from core.runs import events
from core.runs.state import RunState
from tui_app.widgets.progress_panel import bar_line


def test_while_the_weights_are_loaded_the_bar_counts_their_bytes() -> None:
    progress = events.LoadProgressed(3 * 10**9, 4 * 10**9, 2, 3)
    line = bar_line(RunState(phase="loading", load_progress=progress), 60)
    assert line.plain.startswith("3.00 GB of 4.00 GB, 2 of 3 files ▕")
    assert line.plain.endswith(" 75 %")
    assert line.cell_length <= 60
    one = bar_line(RunState(phase="loading", load_progress=events.LoadProgressed(0, 10, 0, 1)), 60)
    assert one.plain.startswith("0 B of 10 B ▕")


def test_while_the_data_is_prepared_the_bar_says_how_far_it_is() -> None:
    checking = RunState(phase="preparing", data_progress=events.DataProgressed("checking", 120 * 10**6, 387 * 10**6))
    assert bar_line(checking, 60).plain.startswith("checking 120 MB of 387 MB ▕")
    rows = RunState(phase="preparing", data_progress=events.DataProgressed("tokenizing", 40_000, 400_000))
    assert bar_line(rows, 60).plain.startswith("tokenizing 40,000 of 400,000 rows ▕")
    assert bar_line(rows, 60).plain.endswith(" 10 %")
    assert bar_line(RunState(phase="preparing"), 60).plain == "no step yet"


def test_before_and_after_it_counts_steps() -> None:
    done = events.LoadProgressed(10, 10, 1, 1)
    assert bar_line(RunState(phase="loading"), 60).plain == "no step yet"
    assert (
        bar_line(RunState(phase="loading", load_progress=events.LoadProgressed(0, 0, 0, 0)), 60).plain == "no step yet"
    )
    assert bar_line(RunState(phase="training", load_progress=done, max_steps=10), 60).plain.startswith("step 0 of 10")
