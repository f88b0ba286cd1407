"""Images of PIL: mode, size, raw pixels, palette and info; never a lossy format."""

from __future__ import annotations

import sys
from typing import Any, Final

import ormsgpack
from PIL import Image

from checkpoint_plugin.codec.foreign import Foreign, Pack, Unpack
from checkpoint_plugin.codec.tags import Tag

__all__ = ["find_image", "read_image"]

BYTES: Final = {
    "L": 1,
    "P": 1,
    "LA": 2,
    "La": 2,
    "PA": 2,
    "I;16": 2,
    "I;16L": 2,
    "I;16B": 2,
    "RGB": 3,
    "YCbCr": 3,
    "LAB": 3,
    "HSV": 3,
    "RGBA": 4,
    "RGBX": 4,
    "RGBa": 4,
    "CMYK": 4,
    "I": 4,
    "F": 4,
}
"""Bytes of a pixel by mode; mode 1 has bits."""
NATIVE: Final = ("I", "F")
"""Modes whose pixels are numbers in the byte order of the machine; little-endian is what is stored."""


def find_image(kind: type) -> Foreign | None:
    """How images are stored; `None` for other classes, such as those of open files."""
    return encode_image if kind is Image.Image else None


def encode_image(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    """An image's tag and bytes.

    Raises:
        TypeError: it would not come back equal.
    """
    if value.mode != "1" and value.mode not in BYTES:
        raise TypeError(f"its mode {value.mode!r} cannot be stored. Convert it to another, for example RGBA.")
    if getattr(value, "_exif", None):
        raise TypeError("its EXIF data were read and may have been changed. Take image.copy().")
    if value.mode == "1" and any(value.histogram()[1:255]):
        raise TypeError("it has pixels that are neither 0 nor 255. Convert it to L.")
    value.load()  # a palette that was put reaches the pixels only now
    palette = None
    if value.palette is not None:
        palette = [value.palette.mode, value.im.getpalette(value.palette.mode, value.palette.mode)]
    parts: list[Any] = [value.mode, *value.size, _swapped(value.mode, value.tobytes()), palette]
    if _make(parts, dict(value.info)) != value:
        raise TypeError("it does not come back equal. Convert it to another mode, for example RGBA.")
    return Tag.IMAGE, ormsgpack.packb([*parts, pack(".info", value.info)])


def read_image(data: bytes, unpack: Unpack) -> Any:
    """The image of bytes.

    Raises:
        ValueError, TypeError: they are not those of an image.
    """
    *parts, info = ormsgpack.unpackb(data)
    return _make(parts, unpack(info))


def _make(parts: list[Any], info: Any) -> Any:
    mode, width, height, pixels, palette = parts
    if type(width) is not int or type(height) is not int or min(width, height) < 0 or not isinstance(info, dict):
        raise ValueError("an image has no size")
    row = (width + 7) // 8 if mode == "1" else width * BYTES.get(mode, 0)
    if not isinstance(pixels, bytes) or len(pixels) != row * height or (not pixels and width * height):
        raise ValueError("an image has another number of pixels")
    size = (width, height)
    image = Image.frombytes(mode, size, _swapped(mode, pixels)) if pixels else _empty(mode, size)
    if palette is not None:
        kind, colours = palette
        if kind not in ("RGB", "RGBA") or not isinstance(colours, bytes) or len(colours) > 256 * len(kind):
            raise ValueError("a palette is none")
        image.putpalette(colours, kind)
    image.info = info
    return image


def _empty(mode: str, size: tuple[int, int]) -> Any:
    try:
        return Image.new(mode, size)
    except MemoryError as error:  # PIL has no such size, though it has no pixels
        raise ValueError(f"an image without pixels has the size {size}") from error


def _swapped(mode: str, pixels: bytes) -> bytes:
    if sys.byteorder == "little" or mode not in NATIVE:
        return pixels
    swapped = bytearray(pixels)
    for place in range(4):
        swapped[place::4] = pixels[3 - place :: 4]
    return bytes(swapped)
