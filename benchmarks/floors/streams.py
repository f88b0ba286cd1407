"""W5 by hand, three ways: `asyncio.Queue(64)`; deques drained in batches; deques, and one body awaited an item."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["run_stream"]

END = object()
CAPACITY = 64


async def run_stream(request: Request) -> dict[str, float]:
    """Measure the way that the request names."""
    way = WAYS[request.extra.get("way", "queue")]
    seconds, collected = await clocked(lambda: way(request.size))
    assert len(collected) == request.size
    return {"seconds": seconds}


async def _queues(items: int) -> list[int]:
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue(CAPACITY) for _ in range(4)]
    collected: list[int] = []

    async def source() -> None:
        for number in range(items):
            await queues[0].put(number)
        await queues[0].put(END)

    async def hand(before: asyncio.Queue[Any], after: asyncio.Queue[Any]) -> None:
        while (item := await before.get()) is not END:
            await after.put(item)
        await after.put(END)

    async def sink() -> None:
        while (item := await queues[3].get()) is not END:
            collected.append(item)

    await asyncio.gather(source(), *(hand(a, b) for a, b in pairwise(queues)), sink())
    return collected


class Inbox:
    """A bounded deque whose reader takes all that is there at once."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    async def put(self, item: Any) -> None:
        """Wait for room, add."""
        while len(self._items) >= CAPACITY:
            self._emptied.clear()
            await self._emptied.wait()
        self._items.append(item)
        self._filled.set()

    async def take(self) -> deque[Any]:
        """Wait for something, take all."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        batch, self._items = self._items, deque()
        self._emptied.set()
        return batch


async def _deques(items: int, body: Callable[[Any], Any] | None = None) -> list[int]:
    inboxes = [Inbox() for _ in range(4)]
    collected: list[int] = []

    async def source() -> None:
        put = inboxes[0].put
        for number in range(items):
            await put(number)
        await put(END)

    async def hand(before: Inbox, after: Inbox) -> None:
        while True:
            for item in await before.take():
                if item is END:
                    await after.put(END)
                    return
                await after.put(item if body is None else await body(item))

    async def sink() -> None:
        while True:
            batch = await inboxes[3].take()
            if batch[-1] is END:
                batch.pop()
                collected.extend(batch)
                return
            collected.extend(batch)

    await asyncio.gather(source(), *(hand(a, b) for a, b in pairwise(inboxes)), sink())
    return collected


async def _bodies(items: int) -> list[int]:
    async def body(item: int) -> int:
        return item

    return await _deques(items, body)


WAYS: dict[str, Callable[[int], Any]] = {"queue": _queues, "deque": _deques, "bodies": _bodies}
