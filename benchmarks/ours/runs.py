"""W1, W2, W3 and W6: a graph run once, with or without its store."""

from __future__ import annotations

from typing import Any

from benchmarks.ours.graphs import chain, fan, growing, large_chain
from benchmarks.request import Request
from benchmarks.worker import clocked
from workflow_runner import Graph, WorkflowRunner

__all__ = ["count_checkpoints", "prepare", "run_graph", "run_growing", "run_large"]

SAVED: dict[str, dict[str, Any]] = {
    "sync": {"every_firing": True, "durability": "sync"},
    "async": {"every_firing": True, "durability": "async"},
    "exit": {"every_seconds": None, "durability": "exit"},
}


async def prepare(url: str, runner: WorkflowRunner | None = None) -> None:
    """Make the tables of a store, if any, and load what is loaded once in the life of a process: a run of one node."""
    runner = runner or WorkflowRunner()
    await runner.run(chain(1), enable={"checkpoint": {"url": url}} if url else {}, run_id="prepared")


async def run_graph(request: Request) -> dict[str, float]:
    """W1, W2. As with the peers the graph is compiled and the store connected; the run's row and its end are counted."""
    graph = chain(request.size) if request.workload == "W1" else fan(request.size)
    options = None if request.mode == "off" else SAVED[request.mode]
    found = await _measure(request, graph, options)
    if request.mode == "sync":
        found["commits"] = await count_checkpoints(request)
    return found


async def run_large(request: Request) -> dict[str, float]:
    """W3."""
    return await _measure(request, large_chain(request.size, request.mode), SAVED["sync"])


async def run_growing(request: Request) -> dict[str, float]:
    """W6."""
    return await _measure(request, growing(request.size), SAVED["sync"])


async def _measure(request: Request, graph: Graph, options: dict[str, Any] | None) -> dict[str, float]:
    enable: dict[str, Any] = {}
    if options is not None:
        enable = {"checkpoint": {**{name: value for name, value in options.items() if value is not None}, "url": request.store}}
    async with WorkflowRunner() as runner:
        await prepare(request.store, runner)
        compiled = runner.compile(graph)
        seconds, result = await clocked(lambda: runner.run(compiled, enable=enable, run_id="measured"))
    assert result.status == "completed"
    assert result.outputs["end"]
    return {"seconds": seconds}


async def count_checkpoints(request: Request) -> float:
    """Commits that held a checkpoint."""
    statement = "SELECT count(*) FROM checkpoint WHERE run_id = 'measured'"
    if request.is_postgresql:
        import asyncpg

        connection = await asyncpg.connect(request.store)
        try:
            return float(await connection.fetchval(statement))
        finally:
            await connection.close()
    import sqlite3

    database = sqlite3.connect(request.path)
    try:
        return float(database.execute(statement).fetchone()[0])
    finally:
        database.close()
