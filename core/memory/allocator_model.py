"""A model of PyTorch's caching allocator for CUDA: where blocks lie, and what it reserves of the device for them.

After c10/cuda/CUDACachingAllocator.cpp, with one stream, and on a device that has room: there it never has to give
cached segments back.
"""

from __future__ import annotations

import bisect

_MIB = 1 << 20
_MIN_BLOCK = 512
_SMALL_SIZE = _MIB
"""Up to here a block comes from the pool of small ones."""
_SMALL_SEGMENT = 2 * _MIB
_LARGE_SEGMENT = 20 * _MIB
_MIN_LARGE_ALLOCATION = 10 * _MIB
"""From here on a block gets a segment of its own size, rounded up."""
_ROUND_LARGE = 2 * _MIB


class Block:
    """Bytes of one segment, taken or free, between their neighbours there."""

    __slots__ = ("address", "free", "next", "previous", "size", "small")

    def __init__(self, address: int, size: int, small: bool) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = False
        self.previous: Block | None = None
        self.next: Block | None = None


_Pool = list[tuple[int, int, Block]]


class HostAllocator:
    """Takes and frees blocks as the host does, which gives what it is asked for, and keeps count of bytes."""

    def __init__(self) -> None:
        self.allocated = 0
        self.allocated_peak = 0

    @property
    def reserved_peak(self) -> int:
        """Bytes that were taken at most: nothing is held back."""
        return self.allocated_peak

    def allocate(self, size: int) -> Block:
        """Take a block of `size` bytes."""
        self.allocated += size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return Block(0, size, small=False)

    def free(self, block: Block) -> None:
        """Give a block back."""
        self.allocated -= block.size


class AllocatorModel:
    """Takes and frees blocks as the device's allocator would, and keeps count of bytes."""

    def __init__(self) -> None:
        self.allocated = 0
        """Bytes of the blocks that are taken, each rounded up."""
        self.allocated_peak = 0
        self.reserved = 0
        """Bytes of all segments."""
        self.reserved_peak = 0
        # Free blocks by size, then address: the first that is large enough fits best.
        self._small: _Pool = []
        self._large: _Pool = []
        self._end = 0

    def allocate(self, size: int) -> Block:
        """Take a block for `size` bytes, at least one."""
        size = rounded(size)
        small = size <= _SMALL_SIZE
        block = self._free_block(size, small) or self._new_segment(size, small)
        block.free = False
        if self._is_split(block, block.size - size):
            self._split(block, size)
        self.allocated += block.size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Give a block back; it becomes one with free neighbours."""
        self.allocated -= block.size
        before, after = block.previous, block.next
        if before is not None and before.free:
            self._forget(before)
            block = _join(before, block)
        if after is not None and after.free:
            self._forget(after)
            block = _join(block, after)
        self._keep(block)

    def _free_block(self, size: int, small: bool) -> Block | None:
        """Take the one that fits best out of those that are free."""
        pool = self._pool(small)
        place = self._best(pool, size)
        return pool.pop(place)[2] if place < len(pool) else None

    def _best(self, pool: _Pool, size: int) -> int:
        """The place of what fits best; behind the last where nothing does."""
        return bisect.bisect_left(pool, (size,))

    def _pool(self, small: bool) -> _Pool:
        return self._small if small else self._large

    def _reserve(self, size: int) -> None:
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)

    def _is_split(self, block: Block, rest: int) -> bool:
        return rest >= _MIN_BLOCK if block.small else rest > _SMALL_SIZE

    def _new_segment(self, size: int, small: bool) -> Block:
        segment = _segment_size(size)
        self._reserve(segment)
        block = Block(self._end, segment, small)
        self._end += segment
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.small)
        rest.previous, rest.next = block, block.next
        if block.next is not None:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._keep(rest)

    def _keep(self, block: Block) -> None:
        block.free = True
        bisect.insort(self._pool(block.small), (block.size, block.address, block))

    def _forget(self, block: Block) -> None:
        pool = self._pool(block.small)
        del pool[bisect.bisect_left(pool, (block.size, block.address))]


class GrowingAllocator(AllocatorModel):
    """The same with expandable segments: one for small blocks and one for large ones, which grow at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[bool, Block] = {}
        """The last block of each segment, by whether it is of small ones."""

    def _best(self, pool: _Pool, size: int) -> int:
        place = super()._best(pool, size)
        # What can grow counts as larger than all others.
        return place + 1 if place + 1 < len(pool) and pool[place][2].next is None else place

    def _is_split(self, block: Block, rest: int) -> bool:
        return rest >= _MIN_BLOCK

    def _new_segment(self, size: int, small: bool) -> Block:
        """Let a segment grow, by whole pages, until what is free at its end is large enough."""
        page = _SMALL_SEGMENT if small else _LARGE_SEGMENT
        last = self._last.get(small)
        there = last.size if last is not None and last.free else 0
        more = -(-(size - there) // page) * page
        self._reserve(more)
        if last is not None and last.free:
            self._forget(last)
            last.size += more
            return last
        block = Block(0 if last is None else last.address + last.size, more, small)
        block.previous = last
        if last is not None:
            last.next = block
        self._last[small] = block
        return block

    def _keep(self, block: Block) -> None:
        if block.next is None:
            self._last[block.small] = block
        super()._keep(block)


def rounded(size: int) -> int:
    """The bytes of a block for `size` bytes."""
    return max(_MIN_BLOCK, -(-size // _MIN_BLOCK) * _MIN_BLOCK)


def _segment_size(size: int) -> int:
    if size <= _SMALL_SIZE:
        return _SMALL_SEGMENT
    return _LARGE_SEGMENT if size < _MIN_LARGE_ALLOCATION else -(-size // _ROUND_LARGE) * _ROUND_LARGE


def _join(first: Block, second: Block) -> Block:
    first.size += second.size
    first.next = second.next
    if second.next is not None:
        second.next.previous = first
    return first
