"""Images of a row: their sources as texts, and their places in the turns."""

import base64
import re
from collections.abc import Sequence
from typing import Any

from core.data.rows import Fault
from core.data.values import in_words, shown, text_fault

_MAGIC = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"), (b"BM", "bmp"))
# The bytes come first: beside them the path is only a name.
_KEYS = ("bytes", "url", "path", "image", "image_url")
_FIX = 'An image is a path, an address or {"bytes": …}.'
_PLACE = re.compile("(<image>)")
_IMAGE = {"type": "image"}


def image_list(value: Any, column: str) -> list[str] | Fault:
    """One image or a list of them as paths, addresses or data addresses."""
    if value is None or value == "":
        return []
    images = []
    for item in value if isinstance(value, list) else [value]:
        source = image_source(item)
        if source is None:
            return Fault("bad_images", column, f"{shown(column)} holds {in_words(item)}.", _FIX)
        fault = text_fault(source, column, shown(column))
        if fault is not None:
            return fault
        images.append(source)
    return images


def image_source(value: Any, *, nested: bool = True) -> str | None:
    """The path, address or data address of an image; None where there is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, dict) and nested:
        for key in _KEYS:
            inner = value.get(key)
            # {"image": {"bytes": …}} and {"image_url": {"url": …}} hold the source one level deeper.
            source = image_source(inner, nested=key.startswith("image"))
            if source is not None:
                return source
    return None


def bytes_as_text(value: bytes) -> str:
    """Bytes of a column as JSON can hold them: an image as its data address, and anything else as text if it is one."""
    kind = next((f"image/{kind}" for magic, kind in _MAGIC if value.startswith(magic)), None)
    if kind is None:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            kind = "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(value).decode('ascii')}"


def place_images(turns: list[dict[str, Any]], images: Sequence[str], column: str) -> list[dict[str, Any]] | Fault:
    """The turns with one image part for each image, in order.

    Places are parts of type image, or else `<image>` in the texts, or else the start of the first user turn.
    """
    parts = sum(
        part["type"] == "image" for turn in turns if isinstance(turn["content"], list) for part in turn["content"]
    )
    if parts:
        return turns if parts == len(images) else _unequal(parts, len(images), column)
    marks = sum(turn["content"].count("<image>") for turn in turns)
    if marks:
        if marks != len(images):
            return _unequal(marks, len(images), column)
        return [
            {**turn, "content": _split(turn["content"])} if "<image>" in turn["content"] else turn for turn in turns
        ]
    first = next((index for index, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        return Fault("bad_images", column, "There are images, but no user turn to show them in.", "Add a user turn.")
    shown_first = [*([_IMAGE] * len(images)), {"type": "text", "text": turns[first]["content"]}]
    return [*turns[:first], {**turns[first], "content": shown_first}, *turns[first + 1 :]]


def _split(text: str) -> list[dict[str, Any]]:
    pieces = [piece for piece in _PLACE.split(text) if piece]
    return [_IMAGE if piece == "<image>" else {"type": "text", "text": piece} for piece in pieces]


def _unequal(places: int, images: int, column: str) -> Fault:
    words = f"The turns show {places} image{'s' * (places != 1)}, the row holds {images}."
    return Fault("bad_images", column, words, "Give one image for each place.")
