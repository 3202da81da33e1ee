"""The `sftui` command, and running the app in this terminal."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.runs.folder import RunFolder

_MIDDLE_COLLECTIONS_TO_A_FULL_ONE = 1000


def run(*, open_screen: str = "runs", draft_values: dict[str, Any] | None = None, run: RunFolder | None = None) -> int:
    """Show the app until the user leaves; returns the exit status."""
    from tui_app.app import SftuiApp

    _collect_garbage_seldom()
    app = SftuiApp(open_screen=open_screen, draft_values=draft_values, run=run)
    app.run()
    going_on = _live_runs()
    if going_on:
        count = "1 run goes on" if len(going_on) == 1 else f"{len(going_on)} runs go on"
        print(f"{count}: sftui attach {going_on[0]}")  # noqa: T201 - the terminal is the user's again
    # Textual leaves 0 after a crash unless it is asked.
    return app.return_code or 0


def _collect_garbage_seldom() -> None:
    """Let no key wait for Python's full collections: each goes through all objects, and takes as long as five keys."""
    # What is imported by now stays.
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _MIDDLE_COLLECTIONS_TO_A_FULL_ONE)


def _live_runs() -> list[str]:
    from core.runs.folder import all_runs
    from core.text import safe

    return [safe(folder.id) for folder in all_runs() if folder.is_alive()]


def main() -> None:
    """The `sftui` command: the app without arguments, one command of core's command line with them."""
    from core import cli

    sys.exit(cli.main(open_app=run))


if __name__ == "__main__":
    main()
