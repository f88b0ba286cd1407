"""Images of PIL come back pixel by pixel, or are refused."""

from __future__ import annotations

import io
import random
import re
from typing import Any

import pytest

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

Image = pytest.importorskip("PIL.Image")
ormsgpack = pytest.importorskip("ormsgpack")
MODES = tuple(re.split(" ", "1 L P RGB RGBA CMYK YCbCr LAB HSV I F LA La PA RGBX RGBa I;16 I;16L I;16B"))


def place() -> str:
    return "outputs"


def drawn(mode: str, size: tuple[int, int]) -> Any:
    image = Image.new(mode, size)
    for x in range(size[0]):
        for y in range(size[1]):
            value = (x * 31 + y * 7) % 256
            bands = len(image.getbands())
            one = {"1": value % 2 * 255, "F": value / 3, "I": value - 100, "I;16": value * 256}.get(mode, value)
            image.putpixel((x, y), one if bands == 1 else tuple((value + band) % 256 for band in range(bands)))
    image.info = {"dpi": (72, 72), "icc_profile": b"x"}
    return image


def again(image: Any) -> Any:
    data = encode([image], place)
    back = decode(data)[0]
    assert encode([back], place) == data
    assert type(back) is Image.Image
    return back


@pytest.mark.parametrize("size", [(9, 5), (0, 3), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_comes_back(mode: str, size: tuple[int, int]) -> None:
    image = drawn(mode, size)
    back = again(image)
    assert back == image
    assert (back.mode, back.size, back.info) == (mode, size, image.info)
    assert all(back.getpixel((x, y)) == image.getpixel((x, y)) for x in range(size[0]) for y in range(size[1]))
    back.putpixel((0, 0), image.getpixel((0, 0))) if all(size) else None  # it can be changed


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_palettes_come_back(mode: str) -> None:
    image = drawn(mode, (20, 20)).quantize(16)
    back = again(image)
    assert back == image
    assert (back.palette.mode, back.getpalette(mode)) == (image.palette.mode, image.getpalette(mode))
    assert back.convert(mode).tobytes() == image.convert(mode).tobytes()


def opened() -> Any:
    file = io.BytesIO()
    drawn("RGB", (3, 3)).save(file, "PNG")
    return Image.open(file)


def grey() -> Any:
    image = Image.new("1", (2, 2))
    image.putpixel((0, 0), 7)
    return image


def noted() -> Any:
    image = Image.new("L", (1, 1))
    image.getexif()[271] = "maker"
    return image


@pytest.mark.parametrize(
    ("make", "words"),
    [(opened, r"take image\.copy\(\)"), (grey, "neither 0 nor 255"), (noted, "EXIF")],
    ids=["a file", "bits", "exif"],
)
def test_what_would_not_come_back_exactly_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueNotStorable, match=words):
        encode([make()], place)
    assert again(opened().copy()).size == (3, 3)


def test_the_path_goes_through_info() -> None:
    image = Image.new("L", (1, 1))
    image.info = {"a": [object()]}
    with pytest.raises(ValueNotStorable, match=r"^outputs\[0\]\.info\['a'\]\[0\] cannot"):
        encode([image], place)


def hostile(*parts: Any) -> bytes:
    data = ormsgpack.packb([*parts, ormsgpack.packb({})])
    packed: bytes = b"\x01" + ormsgpack.packb(ormsgpack.Ext(Tag.IMAGE, data))
    return packed


@pytest.mark.parametrize(
    "data",
    [
        hostile("L", 10**9, 10**9, b"x", None),
        hostile("L", 0, 10**18, b"", [("RGB"), b"x"]),
        hostile("1", 10**9, 10**9, b"", None),
        hostile("L", 2**31 - 1, 0, b"", None),
        hostile("no such mode", 1, 1, b"x", None),
        hostile("L", -1, -1, b"x", None),
        hostile("P", 1, 1, b"x", ["os.system", b"x"]),
        hostile("P", 1, 1, b"x", ["RGB", "x" * 10_000]),
        hostile("L", 1.0, 1, b"x", None),
    ],
)
def test_hostile_images_are_an_error(data: bytes) -> None:
    with pytest.raises(MalformedValue):
        decode(data)


def test_flipped_images_are_an_error_or_another_image() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    good = [encode(drawn(mode, (9, 5)), place) for mode in MODES] + [encode(drawn("RGB", (20, 20)).quantize(16), place)]
    for number in range(3000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(min(40, len(data)))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except (MalformedValue, ValueNotReadable):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, try {number}: {bytes(data)!r} raised {error!r}") from error
