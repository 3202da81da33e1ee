"""Rows packed into sequences as TRL packs them, and whether that is right for a model."""

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Literal

from core.data.packing_isolation import why_mixed
from core.data.rows import Form
from core.models.architecture import Architecture
from core.spec.problems import Problem
from core.spec.run_spec import RunSpec
from core.text import safe

PackingStrategy = Literal["bfd", "bfd_split", "wrapped"]
Piece = tuple[int, int, int]
"""Row, and its tokens from the second number up to the third."""
PACKED_AT_ONCE = 1000
"""TRL packs so many rows among themselves, which bounds how far apart the rows of a sequence can be."""
_OWN_CODE = "runs code of its own, and nobody has measured that rows in a sequence stay apart"


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


def packing_problems(
    spec: RunSpec, architecture: Architecture | None, attention: str, *, on_gpu: bool, form: Form
) -> list[Problem]:
    """Where packing, padding-free batches or an order by length would mix rows, or do nothing for this model."""
    found: list[Problem] = []
    strategy = spec.packing_strategy if spec.packing else None
    joins = strategy in ("bfd", "bfd_split") or spec.padding_free
    texts = form in ("text", "unknown")
    if strategy == "wrapped":
        message = "is wrapped, which cuts rows anywhere and lets each see the ends of those before it"
        if texts:
            found.append(Problem("packing_strategy", "warning", f"{message}.", "Choose bfd to keep them apart."))
        else:
            message += ": answers would be learned without their questions."
            found.append(Problem("packing_strategy", "error", message, "Choose bfd."))
    elif strategy == "bfd_split" and not texts:
        message = "is bfd_split: the rest of a long row is learned without what comes before it."
        found.append(Problem("packing_strategy", "warning", message, "Choose bfd to cut long rows off instead."))
    if joins and architecture is not None:
        found += _joining_problems(spec, architecture, attention, on_gpu=on_gpu)
    if spec.padding_free and not spec.packing and spec.per_device_train_batch_size == 1:
        message = "does nothing with one row in a batch: there is no padding."
        found.append(Problem("padding_free", "warning", message, "Turn it off, or raise per_device_train_batch_size."))
    if spec.packing and spec.train_sampling_strategy == "group_by_length":
        message = "is group_by_length, which does nothing for packed sequences: all are full."
        found.append(Problem("train_sampling_strategy", "warning", message, "Leave it at random."))
    if spec.extra_arguments.get("eval_packing") and not joins:
        message = "would pack held-out rows into sequences in which they see one another: nothing keeps them apart."
        found.append(Problem("eval_packing", "error", message, "Turn it off, or turn packing on."))
    return found


def _joining_problems(spec: RunSpec, architecture: Architecture, attention: str, *, on_gpu: bool) -> list[Problem]:
    field = "packing" if spec.packing else "padding_free"
    own_code = architecture.remote_code is not None
    why = _OWN_CODE if own_code else why_mixed(architecture.model_type, on_gpu=on_gpu)
    if why:
        fix = "Turn it off; train_sampling_strategy: group_by_length saves padding too."
        return [Problem(field, "error", f"would mix rows: {safe(architecture.model_type)} {why}.", fix)]
    rows = spec.per_device_train_batch_size
    if attention in ("sdpa", "eager") and rows > 1:
        message = (
            f"puts the {rows} sequences of a batch into one, and {attention} computes every pair of its tokens: "
            f"{rows} times the work of attention."
        )
        fix = "Take flash_attention_2 if you can, or one sequence a batch and more gradient_accumulation_steps."
        return [Problem(field, "warning", message, fix)]
    return []
