"""What a value has in common with the one it grew out of."""

from __future__ import annotations

import os
from random import Random

import pytest

from checkpoint_plugin.stored_bytes.splice import Piece, splice


def joined(base: bytes, pieces: list[Piece]) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else base[piece[0] : piece[0] + piece[1]] for piece in pieces)


def new_bytes(pieces: list[Piece]) -> int:
    return sum(len(piece) for piece in pieces if isinstance(piece, bytes))


def test_pieces_put_together_are_the_value() -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    random = Random(seed)
    for _ in range(3_000):
        base = random.choice((random.randbytes, lambda n: bytes(random.choices(b"ab", k=n))))(random.randrange(2_000))
        data = bytearray(base)
        for _ in range(random.randrange(6)):
            at, size = random.randrange(len(data) + 1), random.randrange(40)
            if random.random() < 0.5:
                data[at:at] = random.randbytes(size)
            else:
                del data[at : at + size]
        assert joined(base, splice(base, bytes(data))) == data, f"seed {seed}"


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda b: b + b"new" * 30, 90),
        (lambda b: b"\xdc\x00\x11" + b[3:], 64),
        (lambda b: b"\xdc" + b, 64),
        (lambda b: b[:5_000] + b"x" + b[5_001:], 64),
        (lambda b: b[:5_000] + b[5_600:], 64),
        (lambda b: b[:2_000] + b"q" * 300 + b[2_000:], 400),
    ],
    ids=["appended", "head exchanged", "put before", "one byte exchanged", "taken out", "put in"],
)
def test_only_what_changed_is_new(change: object, most: int) -> None:
    base = Random(7).randbytes(20_000)
    data = change(base)  # type: ignore[operator]
    pieces = splice(base, data)
    assert joined(base, pieces) == data
    assert new_bytes(pieces) <= most


def test_what_has_nothing_in_common_is_new() -> None:
    assert splice(Random(1).randbytes(9_000), data := Random(2).randbytes(9_000)) == [data]
