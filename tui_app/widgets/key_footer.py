"""The last line of every screen: the keys that can be pressed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from core.text import cell_width

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.app import ComposeResult
    from textual.widget import Widget

# Around a key and between it and its name.
_SPACES = 3
# Of the palette's key at the right end, which has a line before it.
_END = 2
_HELP = "explain"


class KeyFooter(Footer):
    """As many keys as fit whole; the one that tells all the others is among them."""

    _laid_for = 0

    def compose(self) -> ComposeResult:
        """Lay out the keys there is room for."""
        self._laid_for = self.app.size.width
        yield from fitting(super().compose(), self._laid_for)

    def on_resize(self, event: events.Resize) -> None:
        """Another width has room for other keys."""
        if self.app.size.width != self._laid_for:
            self.call_after_refresh(self.recompose)


def fitting(children: Iterable[Widget], width: int) -> list[Widget]:
    """Those of a footer's children that fit, in their order."""
    keys = [child for child in children if isinstance(child, FooterKey)]
    room = width - _END
    taken: set[FooterKey] = set()
    for key in sorted(keys, key=lambda key: (not key.has_class("-command-palette"), not key.action.endswith(_HELP))):
        needed = cell_width(key.key_display) + cell_width(key.description) + _SPACES
        if needed <= room:
            taken.add(key)
            room -= needed
    return [key for key in keys if key in taken]
