"""The screen with the process that it really asks: it loads, answers, and is gone when one leaves."""

from pathlib import Path

from core.results.asking import ResultDesk
from core.runs.folder import RunFolder
from tests.tui.helpers import shown, until, until_shown
from tui_app.app import SftuiApp
from tui_app.screens.compare import CompareScreen
from tui_app.widgets.answer_pane import AnswerPane


async def test_base_and_result_answer_side_by_side(qlora: RunFolder) -> None:
    app = SftuiApp(warm=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = CompareScreen(qlora)
        await app.push_screen(screen)
        await until_shown(pilot, "nf4, float32 on cpu", "Held-out prompts")
        await pilot.press("enter")
        await until(pilot, lambda: screen.doing == "")
        left, right = screen.query_one("#left", AnswerPane), screen.query_one("#right", AnswerPane)
        assert left.answer and right.answer != left.answer
        assert "expected" in shown(app)
        desk = screen._desk
        assert isinstance(desk, ResultDesk)
        process = desk._runner._process  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert process.wait(timeout=60) == 0
        assert not Path(f"/proc/{process.pid}").exists()
