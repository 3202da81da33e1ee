"""Every row of a data file, whatever format it is in, one at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path

from core.data.rows import Row


def read_rows(file: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Row]:
    """Every row of a file with its line, also those that cannot be read; ends early once `stop()` is true.

    Raises SftuiError for a file that is not there or may not be read.
    """
    raise NotImplementedError
    yield Row(file, 0, None)
