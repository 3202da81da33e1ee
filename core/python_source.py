"""Reads Python source without running it, from any thread."""

import ast
import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Any

_LOCK = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """Return the tree of a module. Raises SyntaxError or ValueError for what is no Python."""
    with _undisturbed():
        return ast.parse(source)


def literal(text: str) -> Any:
    """Return the value of a Python literal. Raises what `ast.literal_eval` raises for anything else."""
    with _undisturbed():
        return ast.literal_eval(text)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no other thread parse before this one is done, not even one that knows nothing of this module, as Textual's.

    Up to Python 3.11.7 and 3.12.1 two that parse at once can both be told "AST constructor recursion depth mismatch"
    (https://github.com/python/cpython/issues/106905). Parsing is left for another thread where the garbage collector
    ends objects with Python code of their own, and nowhere else.
    """
    with _LOCK:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
