"""The palette: every action of the screen one is on, and of the app, by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui_app.dialogs.command_help import is_told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Run = Callable[[], Awaitable[object]]

_APP_ACTIONS = (
    ("Runs", "home", "Go to the list of runs"),
    ("1 Model", "step('model')", "Set up a run: which model"),
    ("2 Data", "step('data')", "Set up a run: which data"),
    ("3 Precision", "step('precision')", "Set up a run: precision and adapters"),
    ("4 Training", "step('training')", "Set up a run: optimizer and schedule"),
    ("5 Review", "step('review')", "Set up a run: check it and start"),
    ("Try the starter", "starter", "The built-in model: about a minute, no GPU, no network"),
    ("Help", "explain", "The keys of this screen"),
    ("Quit", "quit", "Leave; runs go on"),
)


class ActionProvider(Provider):
    """Offers what keys do, with the key."""

    def _actions(self) -> Iterator[tuple[str, str, Run]]:
        taken: set[str] = set()
        for node, binding, enabled, tooltip in self.screen.active_bindings.values():
            if node is self.app or not enabled or not is_told(binding) or binding.action in taken:
                continue
            taken.add(binding.action)
            key = self.app.get_key_display(binding)
            text = f"{tooltip or binding.description} ({key})"
            yield binding.description, text, partial(self.app.run_action, binding.action, node)
        for name, action, text in _APP_ACTIONS:
            yield name, text, partial(self.app.run_action, action, self.app)

    async def discover(self) -> Hits:
        """Offer everything before a letter is typed."""
        for name, text, run in self._actions():
            yield DiscoveryHit(name, run, help=text)

    async def search(self, query: str) -> Hits:
        """Offer what matches in name or explanation."""
        matcher = self.matcher(query)
        for name, text, run in self._actions():
            score = max(matcher.match(name), matcher.match(text) * 0.8)
            if score > 0:
                yield Hit(score, matcher.highlight(name), run, text=name, help=text)
