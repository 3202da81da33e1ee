"""Which rows were there before, by their hashes, in bounded memory."""

from array import array

_FIRST_SLOTS = 2**12
_MOST_SLOTS = 2**24
_ALL = 2**64 - 1


class SeenHashes:
    """A hash table of 64-bit numbers, 8 bytes a slot, 128 MiB at most.

    A table of Python's own takes eight times as much. When it is full, at about 13 million, no more are remembered.
    """

    def __init__(self, most_slots: int = _MOST_SLOTS) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._most = most_slots
        self._count = 0

    def add(self, number: int) -> bool:
        """Remember a number; whether it was there already."""
        number = number & _ALL or 1
        slots, mask = self._slots, len(self._slots) - 1
        slot = number & mask
        while found := slots[slot]:
            if found == number:
                return True
            slot = (slot + 1) & mask
        if self._count * 5 < len(slots) * 4:
            slots[slot] = number
            self._count += 1
            if self._count * 5 > len(slots) * 3 and len(slots) < self._most:
                self._grow()
        return False

    def _grow(self) -> None:
        old = self._slots
        slots = self._slots = array("Q", bytes(8 * 4 * len(old)))
        mask = len(slots) - 1
        for number in old:
            if number:
                slot = number & mask
                while slots[slot]:
                    slot = (slot + 1) & mask
                slots[slot] = number
