"""Writing a safetensors file tensor by tensor: the library's own way wants all of them in memory at once."""

import json
import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from core.models.checkpoint_files import DTYPE_BYTES

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

Entry = tuple[str, torch.dtype | None, str, tuple[int, ...]]
"""A tensor's name, the type to be written (None keeps its own), its own type in the format's words, and its shape."""


def write_safetensors(
    path: Path,
    entries: Sequence[Entry],
    tensor: Callable[[str], torch.Tensor],
    tell: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the file and flush it to the disk. `tensor` gives each by its name; `tell` gets the bytes that are done.

    Raises OSError.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, dtype, own, shape in entries:
        kind = own if dtype is None else _NAMES[dtype]
        size = math.prod(shape) * DTYPE_BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    head = json.dumps(header, separators=(",", ":")).encode()
    # Tensors begin at a multiple of eight bytes.
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        done = 0
        for name, _, _, shape in entries:
            value = tensor(name).contiguous()
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} came as {tuple(value.shape)}, not {shape}")
            done += file.write(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
            tell(done)
        file.flush()
        os.fsync(file.fileno())
