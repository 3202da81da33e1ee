"""A decision that sftui took by itself, with the reason that is shown beside it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """One automatic decision."""

    name: str
    value: str
    reason: str
