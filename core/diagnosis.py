"""What an exception means to a person: title, message, what to do."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from core.errors import SftuiError
from core.failures import FAILURES

# What the system says of a file: title and what to do.
_OF_FILES = {
    errno.ENOSPC: ("The disk is full", "Free some space and resume."),
    errno.EDQUOT: ("The disk quota is used up", "Delete what is not needed, or ask for a larger quota, and resume."),
    errno.EACCES: ("A file may not be touched", "Give yourself the right to it (chmod, chown), and resume."),
    errno.EPERM: ("A file may not be touched", "Give yourself the right to it (chmod, chown), and resume."),
    errno.EROFS: ("The disk can only be read", "Put runs elsewhere: XDG_DATA_HOME names the place."),
    errno.EIO: ("The disk is faulty", "Look at dmesg; copy the run's folder to another disk and resume there."),
    errno.ENOMEM: ("The host's memory ran out", "Close other programs, load in 4 bit, or shorten max_length."),
    errno.ESTALE: ("A network disk lost a file", "Mount it again and resume."),
    errno.EMFILE: ("Too many files are open", "Raise the limit (ulimit -n 65536) and resume."),
    errno.ENFILE: ("Too many files are open", "Close other programs and resume."),
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An exception in words."""

    kind: str
    """The exception's class."""
    title: str
    message: str
    hint: str
    memory: Literal["gpu", "host"] | None = None
    """Whose memory ran out, where that is what happened."""
    text: str = ""
    """What the exception itself says."""


def diagnose(error: BaseException) -> Diagnosis:
    """The words for an exception, or for what caused it. One that is not known is said to be unknown, with its text."""
    for one in _chain(error):
        known = _known(one)
        if known is not None:
            return known
    kind = type(error).__name__
    return Diagnosis(kind, f"{kind}, not foreseen", str(error) or kind, "The traceback is in the run's folder.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what it came from: libraries wrap the telling one in one of their own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _known(error: BaseException) -> Diagnosis | None:
    kind = type(error).__name__
    if isinstance(error, SftuiError):
        return Diagnosis(kind, error.title, error.message, error.hint)
    text = str(error) or kind
    lowered = text.lower()
    if isinstance(error, MemoryError):
        lowered += " unable to allocate"
    elif kind == "OutOfMemoryError":
        lowered += " cuda out of memory"
    elif isinstance(error, OSError) and error.errno in _OF_FILES:
        title, hint = _OF_FILES[error.errno]
        place = f"{error.filename}: " if error.filename else ""
        memory: Literal["host"] | None = "host" if error.errno == errno.ENOMEM else None
        return Diagnosis(kind, title, f"{place}{error.strerror}.", hint, memory, text)
    for failure in FAILURES:
        if all(part.lower() in lowered for part in failure.parts):
            return Diagnosis(kind, failure.title, failure.cause or text, failure.hint, failure.memory, text)
    return None
