"""What the nodes hand on: the same bytes for everyone, from a fixed seed."""

from __future__ import annotations

import random
import string
from functools import cache

__all__ = ["MEBIBYTE", "following", "kilobyte", "large"]

MEBIBYTE = 1 << 20
WORDS = ("node", "graph", "actor", "inbox", "stream", "checkpoint", "resume", "handle", "output", "workflow", "and", "of")


@cache
def _text() -> str:
    return "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=1_024))


def kilobyte(number: int) -> str:
    """A text of 1,024 characters, another for each number: nobody stores one text for all nodes."""
    return f"{number:08d}{_text()[8:]}"


def following(value: dict[str, str]) -> dict[str, str]:
    """The body of a node of W1, for everyone: the same dict with the next text."""
    return {"text": kilobyte(int(value["text"][:8]) + 1)}


@cache
def _pool(kind: str) -> bytes:
    source = random.Random(11)
    if kind == "random":
        return source.randbytes(2 * MEBIBYTE)
    return " ".join(source.choices(WORDS, k=500_000)).encode()[: 2 * MEBIBYTE]


def large(kind: str, number: int, size: int = MEBIBYTE) -> bytes | str:
    """A value of `size` bytes, another for each number.

    Args:
        kind: `random`, bytes that no one can compress, or `text`, words.
        number: of the node.
        size: bytes.
    """
    start = number * 7_919 % MEBIBYTE
    head = f"{number:08d}".encode()
    value = (head + _pool(kind)[start : start + size])[:size]
    return value if kind == "random" else value.decode()
