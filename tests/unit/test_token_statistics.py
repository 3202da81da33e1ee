"""What the lengths of rows say, whole or in parts."""

import random
from pathlib import Path
from typing import Any

import pytest

from core.data.token_statistics import UNKNOWN, Batching, TokenCounts, statistics


def told(start: int, lengths: list[int], trained: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """The answer to a question after lengths: what is trained stands at the end of a row."""
    trained = [length // 2 for length in lengths] if trained is None else trained
    pairs = list(zip(lengths, trained, strict=True))
    return {
        "start": start,
        "stop": start + len(lengths),
        "lengths": lengths,
        "trained": trained,
        "first": [length - count if count else 0 for length, count in pairs],
        "last": [length - 1 if count else 0 for length, count in pairs],
        "refused": [],
        **more,
    }


def counts_of(lengths: list[int], trained: list[int] | None = None) -> TokenCounts:
    counts = TokenCounts(len(lengths))
    counts.add(told(0, lengths, trained))
    return counts


def test_figures_of_a_small_dataset() -> None:
    found = statistics(counts_of([10, 20, 30, 40, 100], [5, 5, 0, 35, 20]), Batching(50, batch_size=2))

    assert (found.rows, found.counted) == (5, 5)
    assert (found.p50, found.p95, found.longest_length) == (30, 100, 100)
    assert (found.total, found.trained) == (200, 65)
    assert (found.untrained, found.unlearnt_rows) == (1, (2, 4))
    # The last row learns its end, which is cut off.
    assert found.dropped == 2
    assert (found.truncated, found.truncated_rows) == (0, ())
    assert found.dropped_share == 0.4
    assert found.longest == (4, 3, 2, 1, 0)
    assert found.tokens_per_epoch == 10 + 20 + 40
    assert found.steps_per_epoch == 2
    assert sum(rows for _, _, rows in found.bins) == 5


def test_cut_are_those_that_are_learnt_from() -> None:
    found = statistics(counts_of([10, 60, 70], [5, 60, 0]), Batching(50, batch_size=1))

    assert (found.truncated, found.truncated_rows, found.dropped) == (1, (1,), 1)
    assert found.truncated_share == pytest.approx(1 / 3)


def test_without_a_maximal_length_nothing_is_cut_or_packed() -> None:
    found = statistics(counts_of([10, 5000]), Batching(None, batch_size=1))

    assert (found.truncated, found.dropped, found.packed_efficiency) == (0, 0, None)
    assert found.tokens_per_epoch == 5010


def test_where_the_beginning_is_cut_the_end_is_still_learned() -> None:
    counts = counts_of([100], [20])

    assert statistics(counts, Batching(50, 1)).dropped == 1
    assert statistics(counts, Batching(50, 1, keep_end=True)).dropped == 0
    assert statistics(counts, Batching(50, 1, packing="bfd_split")).dropped == 0


def test_slices_come_in_any_order_and_twice_and_figures_are_scaled_to_all_rows() -> None:
    counts = TokenCounts(1000)
    assert counts.next_unknown() == 0

    counts.add(told(500, [20] * 100))
    counts.add(told(0, [20] * 100))
    counts.add(told(50, [20] * 50))

    assert (counts.counted, counts.complete, counts.next_unknown()) == (200, False, 100)
    found = statistics(counts, Batching(64, batch_size=10, accumulation=2))
    assert (found.rows, found.counted, found.p95, found.total) == (1000, 200, 20, 4000)
    assert found.steps_per_epoch == 50
    assert found.tokens_per_epoch == 20_000
    counts.add(told(100, [40] * 400))
    counts.add(told(600, [40] * 400))
    assert counts.complete
    assert counts.next_unknown() is None
    assert statistics(counts, Batching(64, 10)).p50 == 40


def test_packing_fills_sequences_that_padding_leaves_half_empty() -> None:
    draw = random.Random(0)
    counts = counts_of([draw.randint(5, 200) for _ in range(3000)])

    padded = statistics(counts, Batching(256, batch_size=8))
    packed = statistics(counts, Batching(256, batch_size=8, packing="bfd"))

    assert padded.padded_efficiency < 0.7
    assert packed.packed_efficiency is not None
    assert packed.packed_efficiency > 0.95
    assert packed.steps_per_epoch < 0.5 * padded.steps_per_epoch
    assert packed.tokens_per_epoch == padded.tokens_per_epoch


def test_what_is_held_out_is_not_trained_on() -> None:
    found = statistics(counts_of([10] * 100), Batching(64, batch_size=1, held_out_share=0.25))

    assert (found.steps_per_epoch, found.tokens_per_epoch) == (75, 750)


def test_refused_rows_are_told_and_are_no_rows_without_anything_trained(tmp_path: Path) -> None:
    counts = TokenCounts(3)
    refused = [[1, "template_refuses", "Two user turns.", "Mend it.", "/a/rows.jsonl", 7]]
    counts.add(told(0, [10, 0, 10], [5, 0, 5], refused=refused))
    counts.add(told(1, [0], [0], refused=refused))
    counts.write(tmp_path / "counts")
    kept = TokenCounts.read(tmp_path / "counts", 3)
    assert kept is not None
    assert kept.refused == counts.refused

    found = statistics(kept, Batching(64, 1))

    assert (found.refused_rows, found.unlearnt_rows) == (1, (1,))
    assert str(found.refused[0].problem) == "/a/rows.jsonl:7: Two user turns. Mend it."

    assert [(row.index, row.kind) for row in found.refused] == [(1, "template_refuses")]
    assert (found.untrained, found.dropped, found.steps_per_epoch) == (0, 0, 2)


def test_nothing_is_known_yet() -> None:
    for counts in (TokenCounts(0), TokenCounts(5)):
        found = statistics(counts, Batching(64, 4, packing="bfd"))
        assert (found.counted, found.p50, found.total, found.steps_per_epoch, found.bins) == (0, 0, 0, 0, ())


@pytest.mark.parametrize("spoil", ["short", "other rows", "foreign", "missing"])
def test_counts_are_kept_whole_or_not_at_all(tmp_path: Path, spoil: str) -> None:
    file, counts = tmp_path / "counts", counts_of([3, 4, 5], [1, 0, 2])
    counts.write(file)
    again = TokenCounts.read(file, 3)
    assert again is not None
    assert (list(again.lengths), list(again.trained), list(again.first)) == ([3, 4, 5], [1, 0, 2], [2, 0, 3])
    assert again.complete

    match spoil:
        case "short":
            file.write_bytes(file.read_bytes()[:-1])
        case "foreign":
            file.write_bytes(b"something else")
        case "missing":
            file.unlink()
    assert TokenCounts.read(file, 4 if spoil == "other rows" else 3) is None


def test_unknown_is_no_length() -> None:
    assert UNKNOWN > 2**31
