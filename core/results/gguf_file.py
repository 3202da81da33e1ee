"""The head of a GGUF file, read without any library: what it is, its chat template, its special tokens."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import SftuiError
from core.text import safe

_MAGIC = b"GGUF"
_MOST_ENTRIES = 1 << 20
_LONGEST_TEXT = 1 << 26
# The format's types of values, by number: how struct reads them; 8 is a text, 9 an array.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True, slots=True)
class GgufHead:
    """What a GGUF file says of itself."""

    version: int
    tensors: int
    values: dict[str, Any]
    """Arrays are told by their length only."""

    @property
    def architecture(self) -> str:
        """llama, qwen3, …"""
        return str(self.values.get("general.architecture", ""))

    @property
    def chat_template(self) -> str | None:
        """Jinja; None where there is none."""
        found = self.values.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    @property
    def end_token(self) -> int | None:
        """The number of the token that answers end with."""
        found = self.values.get("tokenizer.ggml.eos_token_id")
        return found if isinstance(found, int) else None


def read_gguf(path: Path) -> GgufHead:
    """The head of a file. Raises SftuiError where it is none."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise ValueError("it does not begin with GGUF")
            version, tensors, entries = struct.unpack("<IQQ", _exactly(file, 20))
            if version not in (2, 3) or entries > _MOST_ENTRIES:
                raise ValueError(f"its version is {version}, with {entries:,} entries")
            return GgufHead(version, tensors, dict(_entry(file) for _ in range(entries)))
    except (ValueError, struct.error, OSError) as error:
        raise SftuiError("Not a GGUF file", f"{safe(str(path))}: {safe(str(error))}.") from error


def _entry(file: BinaryIO) -> tuple[str, Any]:
    name = _text(file)
    (kind,) = struct.unpack("<I", _exactly(file, 4))
    return name, _value(file, kind)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return _text(file)
    if kind == 9:
        inner, count = struct.unpack("<IQ", _exactly(file, 12))
        if inner in _PLAIN:
            file.seek(count * struct.calcsize(f"<{_PLAIN[inner]}"), 1)
        else:
            for _ in range(count):
                _value(file, inner)
        return count
    form = f"<{_PLAIN.get(kind) or _unknown(kind)}"
    return struct.unpack(form, _exactly(file, struct.calcsize(form)))[0]


def _unknown(kind: int) -> str:
    raise ValueError(f"a value is of the unknown type {kind}")


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _LONGEST_TEXT:
        raise ValueError(f"a text claims {length:,} bytes")
    return _exactly(file, length).decode("utf-8", "replace")


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it is cut short")
    return data
