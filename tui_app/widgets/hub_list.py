"""The models that the hub has under a name, shown as they come."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content

from core.errors import SftuiError
from core.models.hub import HubModel, search_models
from core.text import human_bytes, human_count, safe
from tui_app.background import batches
from tui_app.widgets.found_list import NARROWEST_NAME, FoundList, columns

if TYPE_CHECKING:
    from collections.abc import Collection

# Half a name is not worth a request.
TYPING_SECONDS = 0.4
MOST_RESULTS = 60


class HubList(FoundList[HubModel]):
    """Results of a search; a later search takes the place of an earlier one."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.text: str | None = None
        """What was last searched for; None before the first search."""
        self.is_searching = False
        self.is_stale = True
        """Whether what is listed was found for another text."""
        self.problem: SftuiError | None = None
        self._results: list[HubModel] = []
        self._marks: tuple[str, frozenset[str]] = ("", frozenset())

    def search(self, text: str, wait: float = TYPING_SECONDS) -> None:
        """Search after a while, unless something else is to be searched for by then."""
        self.text, self.is_searching, self.is_stale = text, True, True
        self.run_worker(self._search(text, wait), group="search", exclusive=True)
        self.post_message(self.Changed())

    def stop(self) -> None:
        """Ask for nothing more."""
        self.workers.cancel_group(self, "search")
        if self.is_searching:
            self.text, self.is_searching = None, False

    async def _search(self, text: str, wait: float) -> None:
        await asyncio.sleep(wait)
        results: list[HubModel] = []
        self.problem = None
        try:
            async for batch in batches(partial(search_models, text, MOST_RESULTS)):
                results += batch
                self._results, self.is_stale = results, False
                self.post_message(self.Changed())
        except SftuiError as error:
            self.problem = error
        self._results, self.is_searching, self.is_stale = results, False, False
        self.post_message(self.Changed())

    def show(self, chosen: str, here: Collection[str]) -> None:
        """List what was found; the chosen one is marked, and those that are on this machine."""
        before = self.current.id if self.current is not None else None
        self._marks = (chosen, frozenset(here))
        named = [model.id for model in self._results]
        at = named.index(before) if before in named else 0 if named else None
        self.put(self._results, at, self._marks)

    def line(self, item: HubModel, width: int) -> Content:
        """Mark, id, size, downloads, whether it is gated, and the license."""
        chosen, here = self._marks
        mark = "●" if item.id == chosen else "✓" if item.id in here else " "
        size = human_bytes(item.size_bytes) if item.size_bytes else "?"
        cells = [
            (size, -8, "$secondary"),
            ("gated" if item.gated else "", 5, "$warning"),
            (f"↓{human_count(item.downloads)}", -8, "$secondary"),
            (item.license or "", 14, "$secondary"),
        ]
        return columns(mark, item.id, cells, width)

    def about(self) -> Content:
        """The highlighted one in words."""
        model = self.current
        if model is None:
            return Content("")
        facts = [
            # In a narrow list the end of it is cut off, which tells variants apart.
            model.id if len(model.id) > NARROWEST_NAME else "",
            "on this machine" if model.id in self._marks[1] else "",
            f"{human_count(model.parameters)} parameters" if model.parameters else "",
            f"{human_count(model.downloads)} downloads in 30 days",
            f"license {model.license}" if model.license else "no license named",
            "gated: its terms must be accepted first" if model.gated else "",
            "reads images too" if model.pipeline_tag == "image-text-to-text" else "",
        ]
        return Content.styled(safe(", ".join(filter(None, facts))), "$secondary")

    def status(self) -> str:
        """How the search is doing."""
        if self.is_searching:
            return "searching …"
        if self.text is None:
            return ""
        if self.problem is not None:
            return "ctrl+r: search again"
        if not self._results:
            return f"nothing to train is called “{safe(self.text)}”" if self.text else "nothing to train is there"
        return f"{len(self._results)} found" if len(self._results) < MOST_RESULTS else f"the first {MOST_RESULTS}"
