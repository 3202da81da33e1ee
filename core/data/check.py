"""One pass over a dataset: every row is read, checked and counted, and the good ones are indexed. Constant memory."""

from collections.abc import Callable

from core.data.facts import DataFacts, Progress
from core.data.request import CheckRequest


class StoppedError(Exception):
    """The pass was stopped before its end; nothing is left of it."""


def check(
    request: CheckRequest,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> DataFacts:
    """What the request's rows are. Unchanged files that were read once are not read again.

    Bad rows are counted and told, never raised. Raises SftuiError for sources that cannot be read; StoppedError soon
    after `stop()` is true.
    """
    raise NotImplementedError
