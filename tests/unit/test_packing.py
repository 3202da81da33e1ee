"""Rows packed into sequences: nothing is lost that need not be, and nothing is there twice."""

import random

import pytest

from core.data.packing import PACKED_AT_ONCE, PackingStrategy, pack


def tokens_of(sequence: list[tuple[int, int, int]]) -> int:
    return sum(stop - start for _, start, stop in sequence)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_every_token_is_in_one_sequence_and_none_is_too_long(strategy: PackingStrategy) -> None:
    draw = random.Random(1)
    lengths = [draw.choice([0, 1, 3, 17, 60, 64, 65, 200]) for _ in range(2500)]

    packed = pack(lengths, 64, strategy)

    kept: dict[int, list[tuple[int, int]]] = {}
    for sequence in packed:
        assert 0 < tokens_of(sequence) <= 64
        for row, start, stop in sequence:
            kept.setdefault(row, []).append((start, stop))
    for row, length in enumerate(lengths):
        pieces = sorted(kept.get(row, []))
        whole = min(length, 64) if strategy == "bfd" else length
        assert [place for piece in pieces for place in range(*piece)] == list(range(whole))


def test_rows_are_packed_among_their_thousand() -> None:
    packed = pack([5] * (2 * PACKED_AT_ONCE), 1000, "bfd")

    assert {row // PACKED_AT_ONCE for row, _, _ in packed[0]} == {0}
    assert len(packed) == 10


def test_the_room_that_is_left_is_filled_by_what_fits_best() -> None:
    assert pack([9, 4, 6, 1], 10, "bfd") == [[(0, 0, 9), (3, 0, 1)], [(2, 0, 6), (1, 0, 4)]]


def test_a_long_row_is_cut_or_goes_on_in_another_piece() -> None:
    assert pack([25], 10, "bfd") == [[(0, 0, 10)]]
    assert pack([25, 5], 10, "bfd_split") == [[(0, 0, 10)], [(0, 10, 20)], [(0, 20, 25), (1, 0, 5)]]
    assert pack([7, 7], 10, "wrapped") == [[(0, 0, 7), (1, 0, 3)], [(1, 3, 7)]]


def test_there_is_nothing_to_pack() -> None:
    assert pack([], 10, "bfd") == []
    assert pack([0, 0], 10, "wrapped") == []
