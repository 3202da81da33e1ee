"""The support dataset: a customer's complaint goes in, a ticket line comes out."""

import random

from core.starter.language import Message
from core.starter.words import COMPLAINTS, ITEMS, PROBLEMS, Problem

SEED = 20
TRAIN_ROWS, HELD_OUT_ROWS = 480, 48

Row = dict[str, list[Message]]


def ticket(problem: Problem, item: str, order: str) -> str:
    return f"Ticket: {problem.team.upper()} | item: {item} | order: {order}"


def _row(problem: Problem, item: str, order: str, complaint: str) -> Row:
    told = complaint.format(problem=problem.told.format(item=item), order=order)
    return {
        "messages": [
            {"role": "user", "content": told},
            {"role": "assistant", "content": ticket(problem, item, order)},
        ]
    }


def rows(train: int = TRAIN_ROWS, held_out: int = HELD_OUT_ROWS, seed: int = SEED) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows.

    No problem is told of the same item in both, no order number occurs twice, and the last items in a shuffled list
    occur in held-out rows only.
    """
    rng = random.Random(seed)
    items = rng.sample(ITEMS, k=len(ITEMS))
    known, unseen = items[:-4], items[-4:]
    orders = rng.sample(range(1000, 10000), k=train + held_out)
    pairs = [(problem, item) for problem in PROBLEMS for item in known]
    rng.shuffle(pairs)
    new = [(PROBLEMS[i % len(PROBLEMS)], item) for i, item in enumerate(rng.choices(unseen, k=held_out // 4))]
    asked = [*new, *pairs[: held_out - len(new)]]
    taught = pairs[held_out - len(new) :]
    if train > len(taught):
        raise ValueError(f"{len(taught)} pairs of problem and item are left for training, {train} were asked for")

    def build(chosen: list[tuple[Problem, str]], numbers: list[int]) -> list[Row]:
        return [
            _row(problem, item, str(number), rng.choice(COMPLAINTS))
            for (problem, item), number in zip(chosen, numbers, strict=True)
        ]

    rng.shuffle(asked)
    return build(taught[:train], orders[:train]), build(asked, orders[train:])
