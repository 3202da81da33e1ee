"""Make the pictures in this folder: drive the app by keys through two real runs of the starter, at 120 × 40.

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
PATIENCE_SECONDS = 900.0
SECOND = {"learning_rate": 5e-4, "lora_r": 4, "max_steps": 20, "sftui.name": "small-steps"}
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
    home = os.environ["HOME"]
    svg = svg.replace(home, "/home/researcher".ljust(len(home), "_")[: len(home)])
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")
    if name == HERO:
        import cairosvg

        # It stretches no line of text to its length: each letter is told its cell, which it fills to the edge.
        svg = _TEXT.sub(_spell, svg).replace("font-size: 20px", "font-size: 20.8px")
        cairosvg.svg2png(bytestring=svg.encode(), write_to=str(HERE / f"{name}.png"), output_width=1600)


def _spell(text: re.Match[str]) -> str:
    """A text with a place for each of its letters."""
    before, x, between, length, after, content = text.groups()
    cell = float(length) / max(1, len(html.unescape(content)))
    places = " ".join(f"{float(x) + index * cell:.1f}" for index in range(len(html.unescape(content))))
    return f'{before}x="{places}"{between}{after}>{content}</text>'


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
    """The starter: set up, in training, ended and put to use; then a second run beside it."""
    from core.runs.folder import all_runs
    from tui_app.app import SftuiApp
    from tui_app.messages import DraftChanged

    app = SftuiApp()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await set_up(pilot)
        await pilot.press("1")
        for name in ("model", "data", "precision", "training", "review"):
            if name == "data":
                await pilot.press("r")
                await wait_until(pilot, lambda: app.tokens is not None and app.tokens.complete, "the tokens")
            await pilot.pause(1.0)
            save(app, name)
            if name != "review":
                await pilot.press("ctrl+n")
        folder = await start(pilot)
        await wait_until(pilot, lambda: share_done(folder) > 0.4, "the middle of the run")
        await pilot.press("A")
        await wait_until(pilot, lambda: folder.read_state().tuned_samples is not None, "answers in the middle of it")
        await wait_until(pilot, lambda: share_done(folder) > 0.6, "more of the run")
        save(app, HERO)
        await picture_of_charts(pilot)
        await end_of(pilot, folder)
        save(app, "finished")
        await pictures_of_use(pilot)

        await pilot.press("h")
        await set_up(pilot)
        app.screen.post_message(DraftChanged(SECOND))
        await wait_until(
            pilot, lambda: app.draft is not None and app.draft.values["lora_r"] == 4, "the second's options"
        )
        await end_of(pilot, await start(pilot))
        await pilot.press("h")
        await wait_until(pilot, lambda: len(all_runs()) == 2, "both runs")
        await pilot.pause(2.0)
        save(app, "runs")
        await pilot.press("up", "space", "space", "v")
        await wait_until(pilot, lambda: "Other settings" in words_of(app, "#table"), "the comparison")
        save(app, "compare")
        await pilot.press("escape")
        await pilot.pause(1.0)
        await picture_of_both(pilot)


async def set_up(pilot: Any) -> None:
    """The starter under review."""
    app = pilot.app
    await pilot.press("t")
    await wait_until(pilot, lambda: app.draft is not None and app.draft.done("review"), "the starter's facts")


async def start(pilot: Any) -> Any:
    """Start what is under review, and give its folder."""
    from core.runs.folder import all_runs

    before = set(all_runs())
    await pilot.press("5", "ctrl+s")
    await wait_until(pilot, lambda: set(all_runs()) > before, "the run")
    (folder,) = set(all_runs()) - before
    return folder


def share_done(folder: Any) -> float:
    """How far a run is."""
    state = folder.read_state()
    return state.step / state.max_steps if state.max_steps else 0.0


async def end_of(pilot: Any, folder: Any) -> None:
    """Wait for the end of a run, and until it is shown."""
    await wait_until(pilot, lambda: folder.read_state().outcome is not None, "the end of the run")
    await pilot.pause(2.0)


async def picture_of_charts(pilot: Any) -> None:
    """The chart on the whole screen, with a cursor on the curve."""
    await pilot.press("g", *["left"] * 8)
    await pilot.pause(1.0)
    save(pilot.app, "charts")
    await pilot.press("g")


async def pictures_of_use(pilot: Any) -> None:
    """Base and result answer the same, both measured; then the merged model, written and compared."""
    app = pilot.app
    await pilot.press("a")
    await wait_until(pilot, lambda: getattr(app.screen, "opened", None) is not None, "the result to be loaded")
    await pilot.press("m")
    await wait_until(pilot, lambda: app.screen.measured and not app.screen.doing, "the measuring")
    await pilot.press("enter")
    await wait_until(pilot, lambda: not app.screen.doing, "both answers")
    await pilot.pause(1.0)
    save(app, "ask")
    await pilot.press("escape")
    await wait_until(pilot, lambda: not hasattr(app.screen, "opened"), "the monitor")
    await pilot.press("E")
    await wait_until(pilot, lambda: bool(getattr(app.screen, "results", ())), "what can be exported")
    await pilot.press("right", "ctrl+s")
    await wait_until(pilot, lambda: app.screen.state is not None and not app.screen.state.alive, "the export")
    await pilot.pause(1.0)
    save(app, "export")
    await pilot.press("escape")


async def picture_of_both(pilot: Any) -> None:
    """The same asked of both runs."""
    app = pilot.app
    await pilot.press("a")
    await wait_until(pilot, lambda: getattr(app.screen, "opened", None) is not None, "the result to be loaded")
    one = len(app.screen.opened.sides)
    await pilot.press("o")
    await wait_until(pilot, lambda: not hasattr(app.screen, "opened"), "the other run to choose")
    await pilot.press("enter")
    await wait_until(pilot, lambda: hasattr(app.screen, "opened") and len(app.screen.opened.sides) > one, "the other")
    await pilot.press("enter")
    await wait_until(pilot, lambda: not app.screen.doing, "both answers")
    await pilot.pause(1.0)
    save(app, "beside")


def words_of(app: Any, name: str) -> str:
    """What a part of the screen says; nothing where it is not there."""
    return "".join(str(part.content) for part in app.screen.query(name))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {f"XDG_{kind}_HOME": f"{home}/{kind.lower()}" for kind in ("DATA", "CACHE", "STATE", "CONFIG")}
        os.environ |= {"HOME": home, "HF_HUB_OFFLINE": "1", "TEXTUAL_ANIMATIONS": "none"}
        asyncio.run(main())
