"""Rows packed into sequences as TRL packs them, and where that keeps rows apart."""

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Literal

PackingStrategy = Literal["bfd", "bfd_split", "wrapped"]
Piece = tuple[int, int, int]
"""Row, and its tokens from the second number up to the third."""
PACKED_AT_ONCE = 1000
"""TRL packs so many rows among themselves, which bounds how far apart the rows of a sequence can be."""


def pack(lengths: Sequence[int], size: int, strategy: PackingStrategy) -> list[list[Piece]]:
    """The sequences of at most `size` tokens that rows of these lengths make, PACKED_AT_ONCE at a time.

    bfd cuts longer rows off, bfd_split goes on with the rest in another piece, wrapped fills up every sequence.
    """
    packed: list[list[Piece]] = []
    for start in range(0, len(lengths), PACKED_AT_ONCE):
        rows = range(start, min(start + PACKED_AT_ONCE, len(lengths)))
        if strategy == "wrapped":
            packed += _wrapped(rows, lengths, size)
        else:
            packed += _best_fit([piece for row in rows for piece in _pieces(row, lengths[row], size, strategy)], size)
    return packed


def _pieces(row: int, length: int, size: int, strategy: PackingStrategy) -> list[Piece]:
    if strategy == "bfd" or length <= size:
        return [(row, 0, min(length, size))] if length else []
    return [(row, start, min(start + size, length)) for start in range(0, length, size)]


def _best_fit(pieces: Sequence[Piece], size: int) -> list[list[Piece]]:
    """Best fit decreasing: the longest first, each into the sequence that it leaves the least room in."""
    packed: list[list[Piece]] = []
    with_room: defaultdict[int, deque[list[Piece]]] = defaultdict(deque)
    rooms: list[int] = []
    for piece in sorted(pieces, key=lambda piece: piece[1] - piece[2]):
        length = piece[2] - piece[1]
        place = bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms[place]
            sequence = with_room[room].popleft()
            if not with_room[room]:
                del rooms[place]
        else:
            room, sequence = size, []
            packed.append(sequence)
        sequence.append(piece)
        room -= length
        if room and not with_room[room]:
            insort(rooms, room)
        with_room[room].append(sequence)
    return packed


def _wrapped(rows: range, lengths: Sequence[int], size: int) -> list[list[Piece]]:
    packed: list[list[Piece]] = []
    room = 0
    for row in rows:
        start = 0
        while start < lengths[row]:
            if not room:
                packed.append([])
                room = size
            stop = min(start + room, lengths[row])
            packed[-1].append((row, start, stop))
            room -= stop - start
            start = stop
    return packed
