"""The last line of every screen: the keys that can be pressed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from core.text import cell_width

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.app import ComposeResult
    from textual.widget import Widget

# Around a key and between it and its name.
_SPACES = 3
# Of the palette's key at the right end, which has a line before it.
_END = 2
_HELP = "explain"


class KeyFooter(Footer):
    """As many keys as fit whole; the one that tells all the others is among them."""

    _laid: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out the keys there is room for."""
        self._laid = self._wanted() if self._bindings_ready else ()
        yield from fitting(super().compose(), self.app.size.width)

    async def recompose(self) -> None:
        """Lay out other keys, but not the same ones again: where the focus is changes few of them."""
        if self.is_attached and self._wanted() != self._laid:
            await super().recompose()

    def on_resize(self) -> None:
        """Another width has room for other keys."""
        self.call_after_refresh(self.recompose)

    def _wanted(self) -> tuple[object, ...]:
        keys = self.screen.active_bindings.values()
        return (self.app.size.width, *((key, enabled, tooltip) for _, key, enabled, tooltip in keys if key.show))


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
