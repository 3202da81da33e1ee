"""What an exception means to a person: title, message, what to do."""

import errno
from dataclasses import dataclass

from core.errors import SftuiError


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An exception in words."""

    kind: str
    """The exception's class."""
    title: str
    message: str
    hint: str


def diagnose(error: BaseException) -> Diagnosis:
    """The words for an exception. One that is not known is said to be unknown, with its own text."""
    kind = type(error).__name__
    if isinstance(error, SftuiError):
        return Diagnosis(kind, error.title, error.message, error.hint)
    text = str(error) or kind
    if kind == "OutOfMemoryError" or "CUDA out of memory" in text:
        return Diagnosis(
            kind,
            "The GPU's memory ran out",
            text,
            "Halve per_device_train_batch_size and double gradient_accumulation_steps, shorten max_length, or turn "
            "activation_checkpointing on.",
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return Diagnosis(
            kind,
            "The host's memory ran out",
            text,
            "Close other programs, load in 4 bit, or shorten max_length.",
        )
    if "not training-compatible" in text and "chat template" in text:
        return Diagnosis(
            kind,
            "Assistant-only loss does not work with this chat template",
            "The template does not mark what the assistant says, and TRL has no marked version of it.",
            "Turn assistant_only_loss off: then the whole conversation is learned.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" at {error.filename}" if error.filename else ""
        return Diagnosis(
            kind, "The disk is full", f"Nothing more can be written{place}.", "Free some space and resume."
        )
    return Diagnosis(kind, f"{kind}, not foreseen", text, "The traceback is in the run's folder.")
