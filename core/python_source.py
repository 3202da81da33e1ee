"""Reads Python source without running it, from any thread."""

import ast
import threading
from typing import Any

# Up to Python 3.11.7 and 3.12.1 two threads that parse at once can both be told "AST constructor recursion depth
# mismatch" (https://github.com/python/cpython/issues/106905).
_LOCK = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """Return the tree of a module. Raises SyntaxError or ValueError for what is no Python."""
    with _LOCK:
        return ast.parse(source)


def literal(text: str) -> Any:
    """Return the value of a Python literal. Raises what `ast.literal_eval` raises for anything else."""
    with _LOCK:
        return ast.literal_eval(text)
