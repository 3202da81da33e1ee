"""What a thread finds comes in batches, and nobody waits for a thread that nobody listens to."""

import threading
from collections.abc import Iterator

import pytest

from tui_app.background import batches


async def test_all_comes_in_order_whatever_the_batches() -> None:
    found = [item async for batch in batches(lambda: iter(range(1000)), pause=0.001) for item in batch]
    assert found == list(range(1000))


async def test_what_came_before_a_failure_is_kept() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    found: list[int] = []
    with pytest.raises(OSError, match="gone"):
        async for batch in batches(failing, pause=0.001):
            found += batch
    assert found == [1]


async def test_who_stops_listening_stops_the_thread() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    listening = batches(endless, pause=0.001)
    assert await anext(listening)
    await listening.aclose()
    assert ended.wait(5)
