"""W1 and W2 by hand: one task a node, one future an edge; saved by an upsert a commit, or what waits shares one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ormsgpack

from benchmarks.floors.saving import Saver
from benchmarks.floors.writer import open_writer
from benchmarks.payloads import following, kilobyte
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["run_graph"]

Save = Callable[[int, Any], Awaitable[None]]


async def run_graph(request: Request) -> dict[str, float]:
    """Measure it; connecting and making the table is not counted."""
    shape = _chain if request.workload == "W1" else _fan
    if not request.store:
        seconds, count = await clocked(lambda: shape(request.size, None))
    else:
        async with open_writer(request) as writer:

            async def one_commit(number: int, value: Any) -> None:
                await writer.write([(number, ormsgpack.packb(value))])

            async def shared() -> int:
                saver = Saver(writer, behind=request.mode != "sync")
                count = await shape(request.size, saver.save)
                await saver.end()
                return count

            alone = request.workload == "W1" and request.mode == "sync"
            seconds, count = await clocked(lambda: shape(request.size, one_commit) if alone else shared())
    assert count == request.size, count
    return {"seconds": seconds}


async def _chain(length: int, save: Save | None) -> int:
    loop = asyncio.get_running_loop()
    edges: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(length + 1)]

    async def hand(number: int) -> None:
        value = following(await edges[number])
        if save is not None:
            await save(number, value)
        edges[number + 1].set_result(value)

    tasks = [loop.create_task(hand(number)) for number in range(length)]
    edges[0].set_result({"text": kilobyte(0)})
    await asyncio.gather(*tasks)
    return int(edges[length].result()["text"][:8])


async def _fan(width: int, save: Save | None) -> int:
    loop = asyncio.get_running_loop()
    begin: asyncio.Future[Any] = loop.create_future()
    edges: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(width)]
    end: asyncio.Future[int] = loop.create_future()

    async def source() -> None:
        value = {"text": kilobyte(0)}
        if save is not None:
            await save(0, value)
        begin.set_result(value)

    async def branch(number: int) -> None:
        await begin
        value = {"text": kilobyte(number + 1)}
        if save is not None:
            await save(number + 1, value)
        edges[number].set_result(value)

    async def sink() -> None:
        values = [await edge for edge in edges]
        if save is not None:
            await save(width + 1, len(values))
        end.set_result(len(values))

    await asyncio.gather(source(), sink(), *(branch(number) for number in range(width)))
    return end.result()
