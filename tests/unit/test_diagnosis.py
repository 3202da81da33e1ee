"""What an exception of a library becomes: a title in words, and something to do."""

import errno

import pytest

from core.diagnosis import diagnose
from core.errors import SftuiError


class OutOfMemoryError(RuntimeError):
    """Of torch, by its name."""


@pytest.mark.parametrize(
    ("error", "title", "hint"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "GPU's memory ran out", "max_length"),
        (RuntimeError("CUDA out of memory"), "GPU's memory ran out", "max_length"),
        (MemoryError(), "host's memory ran out", "4 bit"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "host's memory ran out", "4 bit"),
        (OSError(errno.ENOSPC, "No space left", "/runs/a"), "disk is full", "resume"),
        (ValueError("the chat template is not training-compatible"), "Assistant-only loss", "assistant_only_loss"),
        (IndexError("index out of range in self"), "token that the model does not know", "tokenizer"),
        (RuntimeError("CUDA error: device-side assert triggered"), "cannot look up", "tokenizer"),
        (ValueError("Attempting to unscale FP16 gradients."), "float16 cannot be trained", "bfloat16"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), "not built for this GPU", "PyTorch"),
        (RuntimeError("The NVIDIA driver on your system is too old"), "driver is too old", "driver"),
        (ValueError("quantization method do not support training"), "cannot be trained", "unquantized"),
    ],
)
def test_known_failures_have_words_and_a_way_out(error: BaseException, title: str, hint: str) -> None:
    found = diagnose(error)
    assert title in found.title
    assert type(error).__name__ not in found.title
    assert hint in found.hint
    assert found.message
    assert found.kind == type(error).__name__


def test_our_own_errors_keep_their_words() -> None:
    found = diagnose(SftuiError("No weights", "There are none.", "Download them."))
    assert (found.title, found.message, found.hint) == ("No weights", "There are none.", "Download them.")


def test_what_nobody_foresaw_is_said_to_be_unforeseen() -> None:
    found = diagnose(ZeroDivisionError())
    assert (found.title, found.message) == ("ZeroDivisionError, not foreseen", "ZeroDivisionError")
    assert "traceback" in found.hint
