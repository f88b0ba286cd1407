"""Compression of stored bytes, where it saves something."""

from __future__ import annotations

import sys
from typing import Final

from checkpoint_plugin.bounds import LARGEST_VALUE
from checkpoint_plugin.codec import MalformedValue

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["RAW", "ZSTD", "Compressor", "check_size", "decompress"]

RAW: Final = 0
ZSTD: Final = 1
LEVEL: Final = 3
WORTH_TRYING: Final = 2_048
"""Bytes from which on it is tried: less than half a page is written sooner than compressed."""
SAMPLE: Final = 4_096
LARGE: Final = 16 * SAMPLE
SAVING: Final = 0.95


class Compressor:
    """Compresses one value after the other, never two at once; setting one up costs as much as three kilobytes."""

    def __init__(self) -> None:
        self._zstd: zstd.ZstdCompressor | None = None

    def compress(self, data: bytes) -> tuple[int, bytes]:
        """The bytes as they are best stored.

        Returns:
            `RAW` and the bytes themselves, or `ZSTD` and what zstd makes of them when that is smaller by a twentieth.
        """
        size = len(data)
        if size < WORTH_TRYING or (size >= LARGE and not _is_compressible(data)):
            return RAW, data
        if self._zstd is None:
            self._zstd = zstd.ZstdCompressor(LEVEL)
        packed = self._zstd.compress(data, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        return (ZSTD, packed) if len(packed) < size * SAVING else (RAW, data)


def decompress(encoding: int, body: bytes, size: int) -> bytes:
    """The bytes that a `Compressor` was given.

    Args:
        encoding: as it returned.
        body: as it returned.
        size: of the bytes; no more than that is unpacked, whatever the body claims.

    Raises:
        MalformedValue: it returned something else.
    """
    check_size(size)
    if encoding == RAW:
        if len(body) != size:
            raise MalformedValue("it has not the size that it had when it was written")
        return body
    if encoding != ZSTD:
        raise MalformedValue(f"its encoding {encoding} is unknown here")
    decompressor = zstd.ZstdDecompressor()
    try:
        data = decompressor.decompress(body, max_length=size + 1)
    except zstd.ZstdError as error:
        raise MalformedValue(f"it cannot be unpacked ({error})") from error
    if len(data) != size or not decompressor.eof or decompressor.unused_data:
        raise MalformedValue("it has not the size that it had when it was written")
    return data


def check_size(size: int) -> None:
    """Refuse the size that a row tells of a value, before anything is made of that size.

    Raises:
        MalformedValue: no value has it.
    """
    if not 0 <= size <= LARGEST_VALUE:
        raise MalformedValue(f"it is said to have {size} bytes, and no value has")


def _is_compressible(data: bytes) -> bool:
    """Whether a few samples shrink: looking at all of an image or an archive takes longer than writing it."""
    last = len(data) - SAMPLE
    return any(len(zstd.compress(data[at : at + SAMPLE], 1)) < SAMPLE * SAVING for at in (0, last // 3, 2 * last // 3, last))
