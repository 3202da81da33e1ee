"""What an exception means to a person: title, message, what to do."""

import errno
from dataclasses import dataclass

from core.errors import SftuiError

# What a text of a library's own contains → title, message (empty: that text) and what to do.
_KNOWN: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (
        ("not training-compatible", "chat template"),
        "Assistant-only loss does not work with this chat template",
        "The template does not mark what the assistant says, and TRL has no marked version of it.",
        "Turn assistant_only_loss off: then the whole conversation is learned.",
    ),
    (
        ("index out of range in self",),
        "A row holds a token that the model does not know",
        "The tokenizer made a number that is beyond the rows of the model's embedding.",
        "Take the tokenizer that belongs to the model, or remove rows with special tokens such as <image>.",
    ),
    (
        ("device-side assert",),
        "The GPU met a number that it cannot look up",
        "Most often the tokenizer makes tokens that the model has no embedding for.",
        "Take the tokenizer that belongs to the model; a run on the CPU (sftui.device: cpu) names the place.",
    ),
    (
        ("Attempting to unscale FP16 gradients",),
        "Weights in float16 cannot be trained",
        "The scaler that float16 needs works on float32 weights only.",
        "Set dtype to bfloat16, or to float32.",
    ),
    (
        ("no kernel image is available",),
        "This PyTorch was not built for this GPU",
        "",
        "Install the PyTorch that fits the driver and the GPU: see pytorch.org/get-started.",
    ),
    (
        ("driver", "too old"),
        "The NVIDIA driver is too old for this PyTorch",
        "",
        "Update the driver, or install a PyTorch for an older CUDA.",
    ),
    (
        ("do not support training",),
        "This quantization cannot be trained",
        "",
        "Take the unquantized checkpoint and let sftui quantize it (load_in_4bit).",
    ),
)


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
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = f" at {error.filename}" if error.filename else ""
        return Diagnosis(
            kind, "The disk is full", f"Nothing more can be written{place}.", "Free some space and resume."
        )
    for parts, title, message, hint in _KNOWN:
        if all(part in text for part in parts):
            return Diagnosis(kind, title, message or text, hint)
    return Diagnosis(kind, f"{kind}, not foreseen", text, "The traceback is in the run's folder.")
