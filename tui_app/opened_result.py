"""A screen that holds results open: loading one, another beside it, and the process that ends with the screen."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast

from textual import work
from textual.message import Message
from textual.screen import Screen

from core.errors import SftuiError
from core.results.asking import Phase, ResultDesk
from core.text import safe
from tui_app import messages
from tui_app.background import in_thread

if TYPE_CHECKING:
    from core.results.asking import Opened
    from core.runs.folder import RunFolder
    from core.runs.launch import WarmRunner

Doing = Literal["loading", "answering", "measuring", ""]
_LONG_SECONDS = 20.0
"""A notice that changes how figures are read stays for longer than one that says what was done."""


class _HasWarm(Protocol):
    def take_warm(self) -> WarmRunner | None: ...


class OpenedResultScreen(Screen[None]):
    """Loads what a run has made when it is shown; the process that holds the models ends with it."""

    class Loaded(Message):
        """The loading is further."""

        def __init__(self, phase: Phase) -> None:
            super().__init__()
            self.phase = phase

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.doing: Doing = "loading"
        self.opened: Opened | None = None
        self._desk: ResultDesk | None = None
        self._gone = False
        self._began = time.monotonic()
        self._phase: Phase | None = None

    def on_unmount(self) -> None:
        """End the process that holds the model."""
        self._gone = True
        if self._desk is not None:
            self._desk.close()

    def _take(self, opened: Opened) -> None:
        """Show what can be asked now."""
        raise NotImplementedError

    def _tell_state(self) -> None:
        """Say what is going on."""
        raise NotImplementedError

    @work(group="open")
    async def _open(self) -> None:
        from core.runs.launch import WarmRunner

        try:
            warm = cast("_HasWarm", self.app).take_warm()
            runner = warm if warm is not None else await in_thread(WarmRunner.start)
            self._desk = desk = ResultDesk(runner)
            if self._gone:
                desk.close()
                return
            opened = await in_thread(partial(desk.open, self.folder, None, self._hear_phase, every=True))
        except SftuiError as error:
            self._fail(error)
        else:
            self._loaded(opened)

    def _load_other(self, folder: RunFolder) -> None:
        """Load another run's result beside what is open."""
        self.doing, self._phase, self._began = "loading", Phase("another run"), time.monotonic()
        self._tell_state()
        self.refresh_bindings()
        self._add(folder)

    @work(group="open")
    async def _add(self, folder: RunFolder) -> None:
        assert self._desk is not None
        try:
            opened = await in_thread(partial(self._desk.add, folder, None, self._hear_phase))
        except SftuiError as error:
            self._fail(error)
        else:
            self._loaded(opened)

    def _loaded(self, opened: Opened) -> None:
        if self._gone:
            return
        self.opened = opened
        self.doing, self._phase = "", None
        for title, message in opened.notices:
            self.notify(safe(message), title=safe(title), markup=False, timeout=_LONG_SECONDS)
        self._take(opened)
        self._tell_state()
        self.refresh_bindings()

    def _hear_phase(self, phase: Phase) -> None:
        if not self._gone:
            self.post_message(self.Loaded(phase))

    def on_opened_result_screen_loaded(self, message: OpenedResultScreen.Loaded) -> None:
        """Show how far it is."""
        if self.doing == "loading":
            self._phase = message.phase
            self._tell_state()

    def _fail(self, error: SftuiError) -> None:
        if self._gone:
            return
        self.doing, self._phase = "", None
        self._tell_state()
        self.refresh_bindings()
        self.post_message(messages.ErrorRaised(error))
