"""What the counted tokens say about the draft's run: worked out beside the screen, which never waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.app import App

from tui_app.background import in_thread

if TYPE_CHECKING:
    from core.data.token_statistics import Batching, TokenStatistics
    from core.spec.run_spec import RunSpec
    from tui_app.token_passes import TokenState

_AT_ONCE = 2000
"""Rows whose figures take a few milliseconds."""


class TokenFigures:
    """Figures that follow the counting and the options; the last ones stay until there are newer ones."""

    def __init__(self, owner: App[Any], tell: Callable[[], None]) -> None:
        self._owner, self._tell = owner, tell
        self.found: TokenStatistics | None = None
        self._wanted: tuple[TokenState, Batching] | None = None
        self._working = False

    def follow(self, state: TokenState | None, spec: RunSpec | None) -> None:
        """Work out what these counts mean for this spec."""
        if state is None or not state.counted or spec is None:
            self._wanted = None
            if self.found is not None:
                self.found = None
                self._tell()
            return
        from core.data.token_statistics import Batching

        wanted = state, Batching.of(spec)
        if wanted == self._wanted:
            return
        if self._wanted is not None and self._wanted[0].task != state.task:
            self.found = None
        self._wanted = wanted
        if len(state.counts) <= _AT_ONCE:
            self._work_out(*wanted)
            self._tell()
        elif not self._working:
            self._working = True
            self._owner.run_worker(self._keep_up(), group="figures")

    def _work_out(self, state: TokenState, batching: Batching) -> None:
        from core.data.token_statistics import statistics

        self.found = statistics(state.counts, batching)

    async def _keep_up(self) -> None:
        """Work until nothing newer is wanted."""
        try:
            done: Any = None
            while self._wanted is not None and self._wanted != done:
                done, began = self._wanted, time.monotonic()
                await in_thread(lambda wanted=done: self._work_out(*wanted))  # type: ignore[misc]
                self._tell()
                # Half of a core is for whoever presses keys.
                await asyncio.sleep(time.monotonic() - began)
        finally:
            self._working = False
