"""Python source that several threads read at once."""

import ast
import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from core import python_source

# Deep enough for a thread to be interrupted in the middle.
SOURCE = "\n".join(f"a{number} = {'[' * 12}{number}{']' * 12}" for number in range(150))


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Interruption:
    """What the garbage collector ends with Python code, in which another thread may take its turn."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(100))


@pytest.mark.usefixtures("restless")
def test_threads_that_parse_at_once_do_not_disturb_one_another() -> None:
    failures: list[Exception] = []

    def parse() -> None:
        for _ in range(40):
            for _ in range(60):
                Interruption()
            try:
                assert len(python_source.parse(SOURCE).body) == 150
                assert python_source.literal("[{'a': 1}]") == [{"a": 1}]
            except (SystemError, AssertionError) as error:
                failures.append(error)

    threads = [threading.Thread(target=parse) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.usefixtures("restless")
def test_a_library_that_parses_at_the_same_time_does_not_disturb() -> None:
    over, failures = threading.Event(), []

    def library() -> None:
        while not over.is_set():
            with contextlib.suppress(SystemError):
                ast.literal_eval("('run', {'a': [1, 2]})")

    other = threading.Thread(target=library)
    other.start()
    for _ in range(300):
        for _ in range(60):
            Interruption()
        try:
            python_source.parse(SOURCE)
        except SystemError as error:
            failures.append(error)
    over.set()
    other.join()
    assert failures == []
    assert gc.isenabled()
