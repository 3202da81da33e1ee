"""What of some lines has changed: a terminal far away is sent no more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.content import Content


def same(before: Sequence[Content], after: Sequence[Content]) -> bool:
    """Whether lines are the same in words and in colours. Textual compares the words alone."""
    return len(before) == len(after) and all(map(_same, before, after))


def changed_parts(before: Sequence[Content], after: Sequence[Content], width: int) -> list[Region]:
    """The parts of as many lines that are to be drawn again, each from its first changed cell to its last."""
    parts = []
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        if _same(old, new):
            continue
        start, end = 0, width
        if _is_narrow(old) and _is_narrow(new):
            old_cells, new_cells = _cells(old, width), _cells(new, width)
            changed = [column for column in range(width) if old_cells[column] != new_cells[column]]
            if not changed:
                continue
            start, end = changed[0], changed[-1] + 1
        parts.append(Region(start, row, end - start, 1))
    return parts


def _same(one: Content, other: Content) -> bool:
    return one.plain == other.plain and one.spans == other.spans


def _is_narrow(line: Content) -> bool:
    return line.cell_length == len(line.plain)


def _cells(line: Content, width: int) -> list[tuple[str, object]]:
    """Each cell with what it looks like; beyond the text there are spaces."""
    looks: list[object] = [()] * max(width, len(line.plain))
    for span in line.spans:
        for column in range(span.start, min(span.end, len(looks))):
            looks[column] = (looks[column], span.style)
    return list(zip(line.plain.ljust(width), looks, strict=False))[:width]
