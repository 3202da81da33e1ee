"""What reaches a real terminal when the run that is watched ends."""

import pytest

from core.runs import events
from tests.terminal.terminal import Terminal
from tests.tui.helpers import add, alive, begin, steps, write_run


@pytest.mark.parametrize(("how", "written"), [("all", True), ("off", False)])
def test_the_terminal_is_rung_and_asked_for_a_notification_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, how: str, written: bool
) -> None:
    monkeypatch.setenv("SFTUI_NOTIFY", how)
    folder = write_run("run-aaaa", [*begin("run-aaaa"), *steps(1, 5)])
    with alive(folder), Terminal("tui_app", "attach", folder.id) as terminal:
        terminal.wait_for("step 5 of 100")
        add(folder, [events.RunFailed("E", "Out of memory\x1b]9;canary\x07", "", "", None, 5, 9.0)])
        terminal.wait_for("Out of memory")
        terminal.type("q")
        terminal.wait()
    words = "run-aaaa failed: Out of memory␛]9,canary␇"
    asked = f"\x1b]9;sftui: {words}\x07\x1b]777;notify;sftui;{words}\x07\x07"
    assert (asked in terminal.output) == written
    assert ("\x1b]9;" in terminal.output) == written
