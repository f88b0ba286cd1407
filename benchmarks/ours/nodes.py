"""The nodes of the workloads: their bodies do as little as can be, so that what is seen is the cost of running them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.payloads import following, kilobyte, large, waiting_item
from workflow_runner import Context, Stream, node

__all__ = ["branch", "count", "fill", "gate", "grow", "hand_item", "hand_on", "last", "make", "pass_on", "source", "step", "take"]

FILLING = "BENCHMARK_FILLING"
"""Set while a run is made that is to be resumed: its last node fails."""


@node
async def source() -> dict[str, str]:
    """The first value."""
    return {"text": kilobyte(0)}


@node
async def hand_on(value: dict[str, str]) -> dict[str, str]:
    """W1, W4."""
    return following(value)


@node
async def branch(value: dict[str, str], number: int) -> dict[str, str]:
    """W2."""
    return {"text": kilobyte(number)}


@node
async def count(values: list[Any]) -> int:
    """The sink of W2."""
    return len(values)


@node
async def make(after: Any, kind: str, number: int) -> Any:
    """W3."""
    return large(kind, number)


@node
async def last(value: dict[str, str]) -> dict[str, str]:
    """The node of W4 that is still to do."""
    if FILLING in os.environ:
        raise RuntimeError("stopped here, to be resumed")
    return value


@node
async def step(n: int) -> AsyncIterator[int]:
    """The source of W5."""
    for number in range(n):
        yield number


@node(stateless=True)
async def pass_on(items: Stream[int]) -> AsyncIterator[int]:
    """A streaming node of W5."""
    async for item in items:
        yield item


@node
async def hand_item(item: int) -> int:
    """A plain node of W5."""
    return item


@node
async def grow(steps: int, context: Context) -> AsyncIterator[int]:
    """W6: each step appends 1 KB to what it carries."""
    carried = context.state or []
    for number in range(len(carried), steps):
        carried = [*carried, kilobyte(number)]
        yield number
        context.commit(carried)


@node(outputs=("item", "done"))
async def fill(number: int, size: int) -> dict[str, Any]:
    """W8: an item that waits for the gate."""
    return {"item": waiting_item(number, size), "done": True}


@node
async def gate(done: list[Any], context: Context) -> bool:
    """W8: asks for a checkpoint when everything else stands still."""
    from benchmarks.ours.pause import longest_pause

    async with longest_pause():
        await context.checkpoint()
    return True


@node
async def take(go: bool, item: bytes) -> int:
    """W8: what the items wait for."""
    return len(item)
