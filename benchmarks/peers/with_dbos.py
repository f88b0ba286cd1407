"""DBOS Transact: an asynchronous workflow of `@DBOS.step` functions; its system database on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks.payloads import following, kilobyte, large
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("dbos",)
DIES_AT = "BENCHMARK_DIES_AT"


@DBOS.step()
async def next_step(number: int, value: dict[str, str]) -> dict[str, str]:
    """A node of W1 and W4; while a run is made that is to be recovered, the process ends in one."""
    if os.environ.get(DIES_AT) == str(number):
        os._exit(0)
    return following(value)


@DBOS.step()
async def branch_step(number: int) -> dict[str, str]:
    """A node of W2."""
    return {"text": kilobyte(number)}


@DBOS.step()
async def count_step(values: list[Any]) -> int:
    """The sink of W2."""
    return len(values)


@DBOS.step()
async def large_step(kind: str, number: int) -> Any:
    """A node of W3."""
    return large(kind, number)


@DBOS.workflow()
async def chain(steps: int) -> int:
    """W1, W4."""
    value = {"text": kilobyte(0)}
    for number in range(steps):
        value = await next_step(number, value)
    return int(value["text"][:8])


@DBOS.workflow()
async def fan(width: int) -> int:
    """W2."""
    await branch_step(0)
    return await count_step(await asyncio.gather(*(branch_step(number + 1) for number in range(width))))


@DBOS.workflow()
async def large_chain(steps: int, kind: str) -> int:
    """W3."""
    for number in range(steps):
        await large_step(kind, number)
    return steps


@contextmanager
def _launched(request: Request) -> Iterator[None]:
    url = request.store if request.is_postgresql else f"sqlite:///{request.path}"
    config: DBOSConfig = {
        "name": "benchmark",
        "system_database_url": url,
        "log_level": "ERROR",
        "application_version": "1",
        "executor_id": "one",
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


async def run_graph(request: Request) -> dict[str, float]:
    """W1, W2, W3; launching is not counted."""
    work = {"W1": chain, "W2": fan, "W3": large_chain}[request.workload]
    arguments = (request.size, request.mode) if request.workload == "W3" else (request.size,)
    with _launched(request):
        seconds, found = await clocked(lambda: work(*arguments))
    assert found == request.size
    return {"seconds": seconds}


async def run_unfinished(request: Request) -> dict[str, float]:
    """W4: launching recovers what the process that died has left."""
    if request.action == "fill":
        command = [
            sys.executable,
            "-c",
            "from benchmarks.peers.with_dbos import die; import sys; die(sys.argv[1])",
            request.to_line(),
        ]
        await asyncio.to_thread(subprocess.run, command, check=True, env={**os.environ, DIES_AT: str(request.size)})
        return {"seconds": 0.0}

    async def work() -> Any:
        with _launched(request):
            handle: Any = await DBOS.retrieve_workflow_async("filled")
            return await handle.get_result(polling_interval_sec=0.005)

    seconds, found = await clocked(work)
    assert found == request.size + 1
    return {"seconds": seconds}


def die(line: str) -> None:
    """Run the chain up to the step in which the process ends."""
    request = Request.from_line(line)

    async def work() -> None:
        with _launched(request), SetWorkflowID("filled"):
            await chain(request.size + 1)

    asyncio.run(work())
    raise AssertionError("it did not end")


WORK = {"W1": run_graph, "W2": run_graph, "W3": run_graph, "W4": run_unfinished}
