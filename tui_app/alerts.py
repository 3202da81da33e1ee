"""Calls people back to the terminal when a run ends or needs them: the bell, and a notification where there is one.

SFTUI_NOTIFY in the environment says how: all (the default), bell, or off.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from core.text import safe, shorten
from tui_app.format import ENDED

if TYPE_CHECKING:
    from typing import Any

    from textual.app import App

    from core.runs.state import Status

_BELL = "\x07"
_LONGEST = 200
# A Linux console has no notifications, and older ones would print them.
_BELL_ALONE = ("linux", "dumb", "vt100", "vt220")


def call_for(name: str, before: Status, now: Status, why: str = "") -> str | None:
    """What to call somebody with when a run's state has changed so; None where nobody needs to come.

    A rest counts where `why` tells what it is for.
    """
    rests = now == "paused" and before != "paused" and bool(why)
    ended = now in ENDED and now != "released" and before not in ENDED
    if not rests and not ended:
        return None
    words = "rests" if rests else f"is {now}" if now in ("finished", "interrupted") else now
    return f"{name} {words}: {why}" if why else f"{name} {words}"


def sequences(words: str, how: str, terminal: str) -> str:
    """What is written to the terminal: the bell, and both ways there are to ask a terminal for a notification.

    Those who know neither pass over them. No character of `words` can end them or begin another.
    """
    if how == "off":
        return ""
    if how == "bell" or terminal.startswith(_BELL_ALONE):
        return _BELL
    # A semicolon divides the parts of the second one.
    text = shorten(safe(words), _LONGEST).replace(";", ",")
    return f"\x1b]9;sftui: {text}\x07\x1b]777;notify;sftui;{text}\x07{_BELL}"


def ring(app: App[Any], words: str) -> None:
    """Call somebody, if the app has a terminal."""
    driver = app._driver
    if driver is not None and not app.is_headless:
        driver.write(sequences(words, os.environ.get("SFTUI_NOTIFY", "all"), os.environ.get("TERM", "")))
        driver.flush()
