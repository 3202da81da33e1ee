"""The models on this machine: found in the background, filtered by what is typed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from core.models.catalog import LocalModel, find_models
from core.models.folders import remembered_folders
from core.paths import data_home, expand
from core.text import human_bytes, safe
from tui_app.background import batches
from tui_app.widgets.found_list import NARROWEST_NAME, FoundList, columns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_DAY = 86_400


class LocalList(FoundList[LocalModel]):
    """What needs no download, or only the rest of one."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.models: tuple[LocalModel, ...] = ()
        self.is_looking = True
        self._passing: set[Path] = set()
        self._chosen = ""

    def find(self) -> None:
        """Look for models, in the folders of one's choice too."""
        self.run_worker(self._find(), group="find", exclusive=True)

    async def _find(self) -> None:
        found: list[LocalModel] = []
        first, self.is_looking = not self.models, True
        async for batch in batches(_everywhere):
            found += batch
            if first:
                self.models = in_order(found)
                self.post_message(self.Changed())
        self.models, self.is_looking = in_order(found), False
        self._passing = set()
        self.post_message(self.Changed())

    def include(self, models: Collection[LocalModel]) -> None:
        """List these as well, until the next time that models are looked for."""
        known = {model.path for model in self.models}
        self._passing |= {model.path for model in models} - known
        self.models = in_order([*self.models, *(model for model in models if model.path not in known)])

    def lists_again(self, folder: Path) -> bool:
        """Whether the model in this folder is listed the next time too, whatever is typed then."""
        return folder not in self._passing and any(model.path == folder for model in self.models)

    def named(self, name: str) -> LocalModel | None:
        """The model that a spec names so."""
        return next((model for model in self.models if reference(model) == name), None)

    @property
    def remembered(self) -> Path | None:
        """The folder of one's choice that lists the highlighted model."""
        model = self.current
        around = (model.path, model.path.parent) if model is not None and model.source == "folder" else ()
        return next((folder for folder in remembered_folders() if folder in around), None)

    def show(self, text: str, chosen: str, *, is_settled: bool) -> None:
        """List what the typed text fits; the chosen one is marked, and what a settled choice leaves is not lost."""
        listed = self.models
        if text and self.named(text) is None:
            # A path may be that of a folder which holds models; one that is elsewhere filters nothing.
            listed = matching(listed, text) or (listed if text == chosen else ())
        unsettled = not chosen or (not is_settled and listed is not self.models)
        before = self.current
        self._chosen = chosen
        at = next((number for number, model in enumerate(listed) if reference(model) == chosen), None)
        if at is None and listed and unsettled:
            # A model that is on no list must not be lost to the first one by Enter.
            at = next((number for number, model in enumerate(listed) if before and model.path == before.path), 0)
        self.put(listed, at, (chosen, unsettled))

    def line(self, item: LocalModel, width: int) -> Content:
        """Mark, name, size, architecture and last use."""
        name = {"starter": "starter", "cache": item.name, "folder": item.path.name}[item.source]
        mark = "●" if reference(item) == self._chosen else " "
        kind = (item.model_type or "", 12, "$secondary") if item.complete else ("! not whole", 12, "$warning")
        size = human_bytes(item.size_bytes or item.disk_bytes)
        return columns(mark, name, [(size, -8, "$secondary"), kind, (used(item), 13, "$secondary")], width)

    def about(self) -> Content:
        """Where the highlighted one lies, when it was used, and what is wrong with it."""
        model = self.current
        if model is None:
            return Content("")
        if not model.complete:
            return Content.styled(f"! {safe(model.problem or 'It is not whole.')}", "$warning")
        if model.source == "starter":
            return Content.styled("Built in: a small model to try everything with, on any machine.", "$secondary")
        where = f"in {model.path.parent}" if model.source == "folder" else "in the Hugging Face cache"
        revisions = f"revisions {', '.join(model.revisions)}" if len(model.revisions) > 1 else ""
        name = model.name if model.source == "cache" and len(model.name) > NARROWEST_NAME else ""
        size, when = f"{human_bytes(model.disk_bytes)} on disk", used(model)
        facts = (name, where, size, revisions, f"used {when}" if when else "")
        return Content.styled(safe(", ".join(filter(None, facts))), "$secondary")


def _everywhere() -> Iterator[LocalModel]:
    return find_models((Path.cwd(), data_home() / "models", *remembered_folders()))


def in_order(models: Iterable[LocalModel]) -> tuple[LocalModel, ...]:
    """The starter, then what was used last, by the day; what is not whole comes last."""
    today = time.time() // _DAY

    def key(model: LocalModel) -> tuple[bool, bool, float, str]:
        age = today - (model.last_used or 0) // _DAY
        return model.source != "starter", not model.complete, age, f"{model.name}".lower()

    return tuple(sorted(models, key=key))


def used(model: LocalModel) -> str:
    """When a model was last used, as far as the file system tells."""
    if model.last_used is None:
        return ""
    days = int((time.time() - model.last_used) // _DAY)
    if days < 1:
        return "today"
    if days < 60:
        return "yesterday" if days == 1 else f"{days} days ago"
    return f"{days // 30} months ago" if days < 730 else f"{days // 365} years ago"


def reference(model: LocalModel) -> str:
    """What names a local model in a spec: its id in the cache, else its folder."""
    return model.name if model.source == "cache" else str(model.path)


def is_path(text: str) -> bool:
    """Whether typed text can only be meant as a folder."""
    return text.startswith(("/", "~", "./", "../"))


def matching(models: Sequence[LocalModel], text: str) -> tuple[LocalModel, ...]:
    """The models whose name, folder or architecture holds every word of the text."""
    if is_path(text):
        start = str(expand(text).absolute()).lower()
        return tuple(model for model in models if start in str(model.path).lower())
    words = text.lower().split()
    return tuple(
        model
        for model in models
        if all(word in f"{model.name} {model.path} {model.model_type or ''}".lower() for word in words)
    )
