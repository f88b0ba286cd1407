"""What two byte strings have in common, when one grew out of the other."""

from __future__ import annotations

from typing import Final

__all__ = ["Piece", "splice"]

Piece = tuple[int, int] | bytes
"""A part of a byte string: `(start, length)` of the one it grew out of, or bytes of its own."""
ANCHOR: Final = 24
"""Bytes that must agree before two places count as the same."""
WINDOW: Final = 65_536
"""How far apart the two places are looked for."""
STEPS: Final = (0, 4, 16, 64, 256, 1_024, 4_096, 16_384)
"""Where behind a difference the common part is looked for again."""
MAX_DIFFERENCES: Final = 64


def splice(base: bytes, data: bytes) -> list[Piece]:
    """Tell a byte string as parts of another and what is new in it.

    It finds values that were appended to, and values of which small parts were exchanged, at the speed of comparing
    memory; what it misses is told as new. It is a greedy form of what rsync and xdelta do.

    Args:
        base: the byte string before.
        data: the one that grew out of it.

    Returns:
        Pieces that, put together, are `data`.
    """
    pieces: list[Piece] = []
    here = there = new_from = 0  # places in data and base; what is new begins at new_from
    for _ in range(MAX_DIFFERENCES):
        length = _common(base, there, data, here)
        if length >= ANCHOR:
            if here > new_from:
                pieces.append(data[new_from:here])
            pieces.append((there, length))
            here += length
            there += length
            new_from = here
        found = _next_common(base, there, data, here)
        if found is None:
            break
        there, here = found
    if new_from < len(data):
        pieces.append(data[new_from:])
    return pieces


def _common(base: bytes, there: int, data: bytes, here: int) -> int:
    """How many bytes agree from two places on."""
    limit = min(len(base) - there, len(data) - here)
    agreed, step = 0, 4_096
    while agreed < limit:
        size = min(step, limit - agreed)
        if base[there + agreed : there + agreed + size] != data[here + agreed : here + agreed + size]:
            break
        agreed += size
        step = min(step * 4, 1 << 20)
    else:
        return limit
    while size > 1:  # the first difference lies within these bytes
        half = size // 2
        if base[there + agreed : there + agreed + half] == data[here + agreed : here + agreed + half]:
            agreed += half
            size -= half
        else:
            size = half
    return agreed


def _next_common(base: bytes, there: int, data: bytes, here: int) -> tuple[int, int] | None:
    """The next places in both from which on they agree."""
    for step in STEPS:
        anchor = base[there + step : there + step + ANCHOR]
        if len(anchor) < ANCHOR:
            break
        found = data.find(anchor, here, here + WINDOW)
        if found >= 0:
            back = 0
            while back < step and found - back > here and base[there + step - back - 1] == data[found - back - 1]:
                back += 1
            return there + step - back, found - back
    for step in STEPS:  # something may have been taken out
        anchor = data[here + step : here + step + ANCHOR]
        if len(anchor) < ANCHOR:
            break
        found = base.find(anchor, there, there + WINDOW)
        if found >= 0:
            return found, here + step
    return None
