"""Following a run from a thread: what is told first, and what in the end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest
from textual.message_pump import MessagePump

from core.runs import events
from tests.tui.helpers import begin, home_in, steps, write_run
from tui_app.follow import RunFollower
from tui_app.messages import RunUpdated


class Listener:
    """Stands where a screen stands."""

    def __init__(self) -> None:
        self.told: list[RunUpdated] = []
        self.enough = threading.Event()

    def post_message(self, message: Any) -> bool:
        self.told.append(message)
        if len(self.told) == 2:
            self.enough.set()
        return True


def test_of_a_long_run_the_end_is_told_before_the_history_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home_in(monkeypatch, tmp_path)
    folder = write_run("r-aaaa", [*begin("r-aaaa"), *steps(1, 5000), events.RunFinished(5000, "adapter", 61.0)])
    listener = Listener()
    follower = RunFollower(cast("MessagePump", listener), folder)
    follower.start()
    try:
        assert listener.enough.wait(30)
    finally:
        follower.stop()
    first, whole = listener.told
    assert first.state.step == 5000
    assert first.state.outcome == whole.state.outcome == events.RunFinished(5000, "adapter", 61.0)
    assert len(first.state.steps) < 2000
    assert [one.step for one in whole.state.steps] == list(range(1, 5001))
