"""Small items through three streaming nodes, against the same pipeline on `asyncio.Queue(64)`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

from benchmarks.timing import Comparison, compare
from workflow_runner import Graph, Stream, WorkflowRunner, node

__all__ = ["run_stream", "stream_graph"]

END = object()


@node
async def count(n: int) -> AsyncIterator[int]:
    """The source."""
    for number in range(n):
        yield number


@node(stateless=True)
async def pass_on(items: Stream[int]) -> AsyncIterator[int]:
    """A node of the pipeline."""
    async for item in items:
        yield item


def stream_graph(items: int) -> Graph:
    """A source, three nodes, a sink."""
    graph = Graph()
    end = graph.add(count, n=items)
    for _ in range(3):
        end = graph.add(pass_on, items=end)
    graph.output("end", end)
    return graph


async def by_hand(items: int) -> list[Any]:
    """The floor."""
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue(64) for _ in range(4)]
    collected: list[Any] = []

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


def run_stream(items: int, rounds: int) -> Comparison:
    """Compare."""
    graph = stream_graph(items)
    runner = WorkflowRunner()

    async def ours() -> list[Any]:
        return (await runner.run(graph)).outputs["end"]

    return compare(f"{items} items, 3 streaming nodes", "item", items, ours, lambda: by_hand(items), rounds)
