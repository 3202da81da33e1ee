"""Columns whose values are of one type in some rows and of another in others."""

from collections.abc import Mapping
from typing import Any

from core.data.rows import Fault
from core.data.values import shown, type_in_words


class ColumnTypes:
    """The types that each column has had; null is none."""

    def __init__(self) -> None:
        self._first: dict[str, type] = {}
        self._told: set[tuple[str, str]] = set()

    def changed(self, value: Mapping[str, Any]) -> Fault | None:
        """A warning for the first row in which a column has another type than before, once for each such type."""
        first = self._first
        for name, item in value.items():
            kind = type(item)
            if first.get(name) is kind or item is None:
                continue
            before = first.setdefault(name, kind)
            now, then = type_in_words(kind), type_in_words(before)
            if now != then and (name, now) not in self._told:
                self._told.add((name, now))
                words = f"{shown(name)} is {now} here and {then} in rows before."
                return Fault("column_changes_type", name, words, "Give it one type in all rows.", "warning")
        return None
