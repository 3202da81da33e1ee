"""The pass over a dataset in a process of its own, so that the app never feels it."""

from collections.abc import Iterator

from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest


class CheckProcess:
    """A running check; its methods are for background threads."""

    def __init__(self, request: CheckRequest) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Progress]:
        """How far it is, until it ends."""
        raise NotImplementedError

    def facts(self) -> DataFacts:
        """What it found; waits for its end. Raises SftuiError if the data cannot be read; StoppedError if cancelled."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End it, from any thread; at once, and leaving nothing half done."""
        raise NotImplementedError
