"""Work off the event loop that can never keep the app from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")


async def in_thread(function: Callable[[], Result]) -> Result:
    """Return what `function` returns, computed in a daemon thread.

    Neither asyncio.to_thread nor a thread worker will do: both are joined at exit, so a file system or a driver that
    hangs would hang the app.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            failure = error
        # The loop is closed when the app has ended in the meantime.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=f"sftui-{getattr(function, '__name__', 'work')}", daemon=True).start()
    return await future


async def batches(iterate: Callable[[], Iterator[Item]], pause: float = 0.1) -> AsyncGenerator[list[Item], None]:
    """Yield what an iterator yields in a daemon thread, all that has come together, with a pause between two batches.

    Raises what the iterator raises, after what came before. Who stops listening stops the thread at its next item.
    """
    loop = asyncio.get_running_loop()
    found: list[Item] = []
    moved, stopped = asyncio.Event(), threading.Event()
    ended, failures = False, list[BaseException]()

    def finish() -> None:
        nonlocal ended
        ended = True
        moved.set()

    def add(item: Item) -> None:
        found.append(item)
        moved.set()

    def work() -> None:
        try:
            for item in iterate():
                if stopped.is_set():
                    return
                loop.call_soon_threadsafe(add, item)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            failures.append(error)
        finally:
            # The loop is closed when the app has ended in the meantime.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish)

    threading.Thread(target=work, name="sftui-batches", daemon=True).start()
    try:
        while True:
            await moved.wait()
            moved.clear()
            if found:
                batch, found[:] = list(found), []
                yield batch
            if ended and not found:
                break
            if not ended:
                await asyncio.sleep(pause)
        if failures:
            raise failures[0]
    finally:
        stopped.set()
