"""W8: the longest time that the event loop does not come round while a large run is being saved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from benchmarks.ours.graphs import waiting
from benchmarks.ours.runs import prepare
from benchmarks.payloads import MEBIBYTE
from benchmarks.request import Request
from benchmarks.worker import clocked
from workflow_runner import WorkflowRunner

__all__ = ["longest_pause", "run_pause"]

MEASURED: ContextVar[list[float]] = ContextVar("MEASURED")


@asynccontextmanager
async def longest_pause() -> AsyncIterator[None]:
    """Note the longest pause of the loop while this is open, and how long it was."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest = max(longest, now - before)
            before = now

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    started = time.perf_counter()
    try:
        yield
    finally:
        await asyncio.sleep(0)
        MEASURED.get().extend((longest, time.perf_counter() - started))
        task.cancel()


async def run_pause(request: Request) -> dict[str, float]:
    """Measure it. 1 MiB waits for each 50 nodes."""
    await prepare(request.store)
    found: list[float] = []
    MEASURED.set(found)
    enable = {"checkpoint": {"explicit": True, "url": request.store}}
    graph = waiting(request.size, MEBIBYTE if request.size >= 500 else 1_024)
    await clocked(lambda: WorkflowRunner().run(graph, enable=enable))
    pause, took = found
    return {"pause": pause, "seconds": took}
