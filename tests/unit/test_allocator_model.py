"""The model of the caching allocator, against sequences worked out by hand from its rules."""

import random
from itertools import pairwise

import pytest

from core.memory.allocator_model import AllocatorModel, Block, GrowingAllocator, HostAllocator

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        # From the large pool: a segment of 20 MiB, of which the rest stays free.
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        # A segment of its own, with less than 1 MiB over: the block is not split, and counts whole.
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB + 512, 12 * MIB, 12 * MIB),
        (10 * MIB + 512, 10 * MIB + 512, 12 * MIB),
    ],
)
def test_one_block(size: int, allocated: int, reserved: int) -> None:
    model = AllocatorModel()
    model.allocate(size)
    assert (model.allocated, model.reserved) == (allocated, reserved)


def test_small_blocks_share_a_segment_and_large_ones_another() -> None:
    model = AllocatorModel()
    for _ in range(4):
        model.allocate(512 * KIB)
    assert model.reserved == 2 * MIB
    model.allocate(512)
    assert model.reserved == 4 * MIB
    for _ in range(4):
        model.allocate(5 * MIB)
    assert model.reserved == 24 * MIB


def test_the_smallest_free_block_that_is_large_enough_is_taken() -> None:
    model = AllocatorModel()
    wide, _, narrow, _ = [model.allocate(size * MIB) for size in (40, 12, 14, 12)]
    model.free(wide)
    model.free(narrow)
    assert model.allocate(14 * MIB).address == narrow.address
    # Now only the wide one is free: it is split, and its rest is still of use.
    assert model.allocate(16 * MIB).address == wide.address
    model.allocate(24 * MIB)
    assert model.reserved == 78 * MIB


def test_free_neighbours_become_one_block_whatever_goes_first() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)):
        model = AllocatorModel()
        blocks = [model.allocate(5 * MIB) for _ in range(4)]
        for index in order:
            model.free(blocks[index])
        # 15 MiB in one piece, before the one that is still taken.
        assert model.allocate(15 * MIB).address == 0
        assert model.reserved == 20 * MIB


def test_blocks_of_two_segments_are_never_joined() -> None:
    model = AllocatorModel()
    first, second = model.allocate(12 * MIB), model.allocate(12 * MIB)
    model.free(first)
    model.free(second)
    model.allocate(24 * MIB)
    assert model.reserved == 48 * MIB


def test_holes_are_what_is_reserved_beyond_what_is_allocated() -> None:
    model = AllocatorModel()
    kept: list[Block] = []
    for _ in range(4):
        passing = model.allocate(12 * MIB)
        kept.append(model.allocate(2 * MIB))
        model.free(passing)
    # One segment of 20 MiB for what is kept, and the same 12 MiB again and again.
    assert model.reserved_peak == 32 * MIB
    assert model.allocated_peak == 20 * MIB
    # What is free is too small; 1 MiB of the new segment is not worth a split, and goes with the block.
    model.allocate(13 * MIB)
    assert (model.allocated, model.reserved) == (22 * MIB, 46 * MIB)


def test_a_segment_that_grows_has_no_ends_in_between() -> None:
    model = GrowingAllocator()
    first, second = model.allocate(12 * MIB), model.allocate(12 * MIB)
    # Pages of 20 MiB, and no block counts for more than it is asked for.
    assert (model.allocated, model.reserved) == (24 * MIB, 40 * MIB)
    model.free(first)
    model.free(second)
    assert model.allocate(40 * MIB).address == 0
    assert model.reserved == 40 * MIB
    # Small blocks have a segment of their own, with pages of 2 MiB.
    model.allocate(512)
    assert model.reserved == 42 * MIB


def test_what_is_free_at_its_end_is_taken_last_and_grows_by_what_is_missing() -> None:
    model = GrowingAllocator()
    hole, kept = model.allocate(30 * MIB), model.allocate(5 * MIB)
    model.free(hole)
    # 5 MiB are free at the end, which would fit better.
    assert model.allocate(4 * MIB).address == hole.address
    assert model.allocate(27 * MIB).address == kept.address + kept.size
    assert model.reserved == 40 * MIB + 2 * 20 * MIB


@pytest.mark.parametrize("kind", [AllocatorModel, GrowingAllocator])
def test_no_two_blocks_overlap_and_all_bytes_come_back(kind: type[AllocatorModel]) -> None:
    chance = random.Random(3)
    model = kind()
    taken: list[Block] = []
    for _ in range(3000):
        if taken and chance.random() < 0.5:
            model.free(taken.pop(chance.randrange(len(taken))))
        else:
            taken.append(model.allocate(int(2 ** chance.uniform(4, 25))))
    spans = sorted((block.small, block.address, block.address + block.size) for block in taken)
    assert all(one[0] != other[0] or one[2] <= other[1] for one, other in pairwise(spans))
    assert model.allocated == sum(block.size for block in taken) <= model.reserved
    for block in taken:
        model.free(block)
    assert model.allocated == 0
    reserved = model.reserved
    # All segments are whole again: what is as large as the largest needs no new one.
    model.allocate(20 * MIB)
    assert model.reserved == reserved


def test_the_host_gives_what_is_asked_for() -> None:
    host = HostAllocator()
    first = host.allocate(10 * MIB + 1)
    host.free(first)
    host.allocate(3)
    assert (host.allocated, host.allocated_peak, host.reserved_peak) == (3, 10 * MIB + 1, 10 * MIB + 1)
