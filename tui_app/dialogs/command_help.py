"""The keys of a screen, and what the screen is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui_app.theme import SFTUI_DARK

if TYPE_CHECKING:
    from textual.app import App, ComposeResult

_EVERYWHERE = "Everywhere"


class CommandHelp(ModalScreen[None]):
    """Lists every key that works on a screen; the screen's HELP says what it is for."""

    DEFAULT_CSS = """
    CommandHelp { align: center middle; background: $background 60%; }
    CommandHelp > Vertical {
        width: 76; max-width: 94%; height: auto; max-height: 92%; padding: 1 2;
        background: $surface; border: round $border; border-title-color: $foreground;
    }
    CommandHelp VerticalScroll { height: auto; max-height: 100%; }
    CommandHelp Static { height: auto; }
    CommandHelp #about { margin-bottom: 1; }
    """
    BINDINGS = [
        Binding("escape,q,question_mark", "dismiss(None)", "Close", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self._about = (screen.HELP or "").strip()
        self._keys = keys_of(screen)

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        with Vertical() as box:
            box.border_title = "Keys of this screen"
            box.border_subtitle = "escape closes"
            with VerticalScroll():
                yield Static(self._about, id="about", markup=False)
                yield Static(self._content())

    def on_mount(self) -> None:
        """Let the arrows scroll."""
        self.query_one(VerticalScroll).focus()

    def action_down(self) -> None:
        """Scroll down."""
        self.query_one(VerticalScroll).scroll_down()

    def action_up(self) -> None:
        """Scroll up."""
        self.query_one(VerticalScroll).scroll_up()

    def _content(self) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=12)
        table.add_column()
        for group, keys in self._keys.items():
            if table.row_count:
                table.add_row()
            table.add_row(Text(group, style="bold"))
            for key, meaning in keys:
                table.add_row(Text(f"  {key}", style=SFTUI_DARK.accent or ""), Text(meaning))
        return table


def is_told(binding: Binding) -> bool:
    """Whether a key is one of ours to tell of: widgets bring dozens that everybody expects, such as the arrows."""
    return bool(binding.description) and not binding.system and (binding.show or bool(binding.tooltip))


def keys_of(screen: Screen[Any]) -> dict[str, list[tuple[str, str]]]:
    """The described keys that work on a screen now, the screen's own first, then those of the app."""
    app: App[object] = screen.app
    groups: dict[str, list[tuple[str, str]]] = {"Here": [], _EVERYWHERE: []}
    merged: dict[tuple[str, str], list[str]] = {}
    for node, binding, enabled, tooltip in screen.active_bindings.values():
        if enabled and is_told(binding):
            group = _EVERYWHERE if node is app else "Here"
            merged.setdefault((group, tooltip or binding.description), []).append(app.get_key_display(binding))
    for (group, meaning), keys in merged.items():
        groups[group].append((", ".join(keys), meaning))
    groups[_EVERYWHERE].append((app.COMMAND_PALETTE_DISPLAY or "^p", "Find any action by its name"))
    return {group: found for group, found in groups.items() if found}
