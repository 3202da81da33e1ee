"""Make the pictures in this folder: drive the app by keys through a real run of the starter, at 120 × 40.

python screenshots/make.py        needs cairosvg for the PNG; writes beside itself
"""

import asyncio
import html
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZE = (120, 40)
HERO = "monitor"
PATIENCE_SECONDS = 600.0
# As wide as the folder it stands for, so that nothing moves.
_STAND_IN = "/opt/sftui".ljust(len(str(HERE.parent)), "_")[: len(str(HERE.parent))]
_TEXT = re.compile(r'(<text [^>]*?)x="([\d.]+)"([^>]*?)textLength="([\d.]+)"([^>]*)>([^<]*)</text>')
_DOTS = re.compile("[\u2800-\u28ff]")


async def wait_until(pilot: Any, condition: Callable[[], bool], what: str) -> None:
    """Let the app work until something holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while not condition():
        if loop.time() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        await pilot.pause(0.1)


def save(app: Any, name: str) -> None:
    """One picture that looks the same everywhere: without the web fonts that Textual names, and without our paths."""
    svg = app.export_screenshot(title="sftui")
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    svg = _TEXT.sub(_spell_dots, svg).replace(str(HERE.parent), _STAND_IN)
    svg = svg.replace(os.environ["XDG_DATA_HOME"], "/home/me/.data".ljust(len(os.environ["XDG_DATA_HOME"]), "_"))
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")
    if name == HERO:
        import cairosvg

        cairosvg.svg2png(bytestring=svg.encode(), write_to=str(HERE / f"{name}.png"), output_width=1600)


def _spell_dots(text: re.Match[str]) -> str:
    """Braille dots as a text each in a font that has them: few monospaced fonts do."""
    before, x, between, length, after, content = text.groups()
    characters = html.unescape(content)
    if not _DOTS.search(characters):
        return text.group(0)
    cell = float(length) / len(characters)
    return "".join(
        f'{before}x="{float(x) + index * cell:.1f}"{between}textLength="{cell:.1f}" lengthAdjust="spacingAndGlyphs"'
        f'{after} style="font-family: DejaVu Sans">{html.escape(character)}</text>'
        for index, character in enumerate(characters)
        if not character.isspace()
    )


async def main() -> None:
    """The set-up screens of the starter, the run while it trains and when it has ended, and the list of runs."""
    from core.runs.folder import all_runs
    from tui_app.app import SftuiApp

    app = SftuiApp()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("t")
        await wait_until(pilot, lambda: app.draft is not None and app.draft.done("review"), "the starter's facts")
        await pilot.press("1")
        for name in ("model", "data", "precision", "training", "review"):
            if name == "data":
                await pilot.press("r")
                await wait_until(pilot, lambda: app.tokens is not None and app.tokens.complete, "the tokens")
            await pilot.pause(1.0)
            save(app, name)
            if name != "review":
                await pilot.press("ctrl+n")
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: bool(all_runs()), "the run")
        (folder,) = all_runs()

        def share_done() -> float:
            state = folder.read_state()
            return state.step / state.max_steps if state.max_steps else 0.0

        await wait_until(pilot, lambda: share_done() > 0.5, "half of the run")
        await pilot.pause(1.0)
        save(app, HERO)
        await wait_until(pilot, lambda: folder.read_state().outcome is not None, "the end of the run")
        await pilot.pause(2.0)
        save(app, "finished")
        await pilot.press("h")
        await pilot.pause(2.0)
        save(app, "runs")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {f"XDG_{kind}_HOME": f"{home}/{kind.lower()}" for kind in ("DATA", "CACHE", "STATE", "CONFIG")}
        os.environ |= {"HF_HUB_OFFLINE": "1", "TEXTUAL_ANIMATIONS": "none"}
        asyncio.run(main())
