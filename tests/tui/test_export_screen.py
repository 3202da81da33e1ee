"""Exporting from the app: the form, the process that does it, and what is told of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from core.errors import SftuiError
from core.results import export_log, exporting
from core.results.beside import MARK
from core.results.export_log import newest, read_export
from core.results.exporting import Exported, ExportProgress, ExportRequest, line_of
from core.runs import events
from core.runs.folder import RunFolder
from tests.tui.helpers import begin, shown, steps, until, until_shown, write_run
from tui_app.app import SftuiApp
from tui_app.dialogs.confirm import ConfirmDialog
from tui_app.screens.export import ExportScreen

PROGRESS = line_of(ExportProgress("merging", 3, 4))


def finished() -> RunFolder:
    name = "20260101-tickets-abcd"
    run = write_run(name, [*begin(name), *steps(1, 3), events.RunFinished(3, "adapter", 9.0)])
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")
    (run.adapter / "adapter_model.safetensors").write_bytes(bytes(2000))
    return run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def does(monkeypatch: pytest.MonkeyPatch, *lines: str, then: str = "") -> None:
    """Let the process print these lines; it gets its request as a real one does."""
    script = f"import json, sys, time\nfor line in {list(lines)!r}:\n    print(line, flush=True)\n{then}"
    popen = exporting.subprocess.Popen  # type: ignore[attr-defined]

    def start(command: list[str], **how: Any) -> Any:
        return popen([sys.executable, "-c", script, *command[3:]], **how)

    monkeypatch.setattr(exporting.subprocess, "Popen", start)  # type: ignore[attr-defined]


async def test_from_the_list_of_runs_to_a_merged_model(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    run = finished()
    made = Exported("merged", "/there/out", 4_000_000, (("merged against the adapter on its base", "max 0.12"),))
    does(monkeypatch, PROGRESS, line_of(made))
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, run.id)
        await pilot.press("E")
        await until_shown(pilot, "What", "The adapter as PEFT writes it", "takes about 2.00 kB", "are free there")
        assert app.screen.query_one("#target", Input).value == str(home / "sftui-exports" / f"{run.id}-adapter")
        await pilot.press("right")
        await until_shown(pilot, "The whole model in 16 bits", "takes about 4.00 MB")
        await pilot.press("ctrl+s")
        await until_shown(pilot, "✓ merging", "✓ /there/out   4.00 MB", "max 0.12")
        assert "75%" not in shown(app), "a step that is done has no bar that ends before its end"
        log = newest(run)
        assert log is not None
        asked = json.loads(log.read_text().splitlines()[0])["request"]
        assert (asked["kind"], asked["target"]) == ("merged", str(home / "sftui-exports" / f"{run.id}-merged"))
        assert asked["compare"] is True


async def test_leaving_does_not_end_it_and_coming_back_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished()
    does(monkeypatch, PROGRESS, then="time.sleep(300)")
    app = SftuiApp(open_screen="monitor", run=run, warm=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(pilot, "Finished")
        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, ExportScreen))
        await pilot.press("ctrl+s")
        await until_shown(pilot, "● merging", "75%")
        await pilot.press("escape")
        log = newest(run)
        assert log is not None
        state = read_export(log)
        assert state is not None and state.alive
        await pilot.press("E")
        await until_shown(pilot, "● merging", "Cancel")
        await pilot.press("ctrl+s")
        assert [*log.parent.iterdir()] == [log], "one at a time"
        await pilot.press("x")
        await until_shown(pilot, "ended without a word")
        await until(pilot, lambda: not export_log._is_alive(log))


async def test_what_is_there_is_replaced_only_when_it_is_an_export(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    run = finished()
    does(monkeypatch, line_of(Exported("adapter", "/there", 1)))
    target = home / "sftui-exports" / f"{run.id}-adapter"
    target.mkdir(parents=True)
    (target / "thesis.tex").touch()
    app = SftuiApp(warm=False)
    async with app.run_test(size=(100, 40)) as pilot:
        await app.push_screen(ExportScreen(run))
        await until_shown(pilot, "are free there")
        await pilot.press("ctrl+s")
        await until_shown(pilot, "Something is there already")
        await pilot.press("escape")
        (target / MARK).touch()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("n")
        await pilot.pause()
        assert newest(run) is None
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await until_shown(pilot, "✓ /there")
        log = newest(run)
        assert log is not None
        assert json.loads(log.read_text().splitlines()[0])["request"]["force"] is True


async def test_a_refusal_is_told_and_a_push_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished()
    does(monkeypatch, line_of(SftuiError("The login is not accepted", "It is not known.", "hf auth login")))
    app = SftuiApp(warm=False)
    async with app.run_test(size=(100, 40), notifications=True) as pilot:
        await app.push_screen(ExportScreen(run))
        await until_shown(pilot, "are free there")
        await pilot.press("left")
        await until_shown(pilot, "Everybody sees it", "OWNER/NAME")
        await pilot.press("ctrl+s")
        await until_shown(pilot, "Say where to.")
        await pilot.press(*"acme/tickets", "ctrl+s")
        await until_shown(pilot, "✗ The login is not accepted: It is not known.", "hf auth login")
        assert "✓" not in shown(app).split("The login")[0].splitlines()[-1]


def test_a_log_that_is_damaged_is_no_export(tmp_path: Path) -> None:
    for content in ("", "noise", '{"request": {"kind": 1, "x": 2}}', "[]"):
        (tmp_path / "log").write_text(content)
        assert read_export(tmp_path / "log") is None
    assert read_export(tmp_path / "none") is None
    request = ExportRequest("adapter", "/out")
    assert request.step is None
