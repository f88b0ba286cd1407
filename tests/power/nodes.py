"""Nodes of the run whose saves are recorded: what they do depends on nothing but their inputs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

from workflow_runner import Context, Stream, node

__all__ = ["blobs", "joined", "pair"]


@node
async def blobs(n: int, size: int, context: Context) -> AsyncIterator[bytes]:
    """Bytes that cannot be compressed."""
    for number in range(context.state or 0, n):
        yield Random(number).randbytes(size)
        context.commit(number + 1)


@node
async def pair(value: bytes) -> list[object]:
    """A value that holds another."""
    return [len(value), value[::-1]]


@node
async def joined(values: Stream[list[object]], context: Context) -> AsyncIterator[int]:
    """A state that grows."""
    seen: list[str] = list(context.state or [])
    async for value in values:
        seen.append(repr(value)[:300])
        yield len(seen)
        context.commit(list(seen))
