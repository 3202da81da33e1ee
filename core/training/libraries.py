"""Importing torch and its kin, without letting any of them fetch code."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

_lock = threading.RLock()


def import_libraries() -> None:
    """Import everything that a run needs: seconds the first time, nothing afterwards. Safe from several threads."""
    with _lock:
        if "bitsandbytes" not in sys.modules:
            _import_bitsandbytes()
        import core.training.pipeline  # noqa: F401


@contextlib.contextmanager
def libraries_to_oneself() -> Iterator[None]:
    """Import everything, and hold off all others that import it, a training worker among them.

    Building a model changes torch's default dtype, which is one for all threads.
    """
    with _lock:
        import_libraries()
        yield


def _import_bitsandbytes() -> None:
    # On a CPU with AVX512-BF16, bitsandbytes 0.50 fetches a kernel from the hub while it is imported, and runs it, if
    # the package `kernels` is there. Nobody was asked: for this one import the package is hidden.
    hidden: ModuleType | None = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules["kernels"]
        if hidden is not None:
            sys.modules["kernels"] = hidden
