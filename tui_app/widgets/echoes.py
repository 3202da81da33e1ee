"""Tells what a field is shown because of its own typing from what was set elsewhere."""

from typing import Any

_NOTHING = object()


class Echoes:
    """A draft comes back some time after each key; by then the field may hold more, which must not be overwritten."""

    def __init__(self) -> None:
        self._sent: list[Any] = []
        self._last: Any = _NOTHING

    def typed(self, value: Any) -> None:
        """The field sent this value."""
        self._sent.append(value)

    def is_foreign(self, value: Any) -> bool:
        """Whether a value that is to be shown was set by somebody else."""
        if value in self._sent:
            del self._sent[: self._sent.index(value) + 1]
            self._last = value
            return False
        if self._last is not _NOTHING and value == self._last:
            return False
        self._sent.clear()
        self._last = value
        return True
