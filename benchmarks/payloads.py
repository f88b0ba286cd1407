"""What the nodes hand on: the same bytes for everyone, from a fixed seed."""

from __future__ import annotations

import itertools
import random
import string
from functools import cache

__all__ = ["MEBIBYTE", "following", "kilobyte", "large", "waiting_item"]

MEBIBYTE = 1 << 20
EVENTS = ("scheduled", "started", "emitted", "committed", "completed", "retried")
LINE = (
    '{"time": "2027-03-04T10:11:%02d.%03dZ", "level": "INFO", "logger": "workflow", "run": "%08d", "node": "step_%02d", '
    '"event": "%s", "attempt": 1, "message": "the node went on"}\n'
)


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
def large(kind: str, number: int, size: int = MEBIBYTE) -> bytes | str:
    """A value of `size` bytes, another for each number, which has nothing in common with the others; made once in a process.

    Args:
        kind: `random`, bytes that no one can compress, or `text`, the log of a program as lines of JSON.
        number: of the node.
        size: bytes.
    """
    source = random.Random(number)
    return source.randbytes(size) if kind == "random" else _log(source, number, size)


@cache
def _noise(size: int) -> bytes:
    return random.Random(11).randbytes(size)


def waiting_item(number: int, size: int) -> bytes:
    """Bytes that no one can compress, made in no time: only their head differs."""
    return f"{number:08d}".encode() + _noise(size)[8:]


def _log(source: random.Random, number: int, size: int) -> str:
    """What compressible text is in practice: lines alike, with times, names and numbers that are not."""
    count = size // len(LINE) + 1
    times = itertools.accumulate(source.choices(range(40), k=count))
    named = zip(times, source.choices(range(40), k=count), source.choices(EVENTS, k=count), strict=True)
    return "".join([LINE % (at // 1_000 % 60, at % 1_000, number, step, event) for at, step, event in named])[:size]
