"""LangGraph: `StateGraph` on its asynchronous runner, with `AsyncSqliteSaver` and `AsyncPostgresSaver`.

A chain is one node in a cycle, the shape that LangGraph is made for: distinct nodes cost it more than that.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import END, START, StateGraph

from benchmarks.payloads import following, kilobyte, large
from benchmarks.request import Request
from benchmarks.worker import clocked

__all__ = ["DISTRIBUTIONS", "WORK"]

DISTRIBUTIONS = ("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres")


class Handed(TypedDict, total=False):
    """One value, replaced by each step."""

    value: Any
    step: int


class Gathered(TypedDict, total=False):
    """Values, each step appends."""

    values: Annotated[list[Any], operator.add]
    step: int


def _cycle(state: Any, steps: int, body: Callable[[Any], dict[str, Any]]) -> Any:
    graph = StateGraph(state)

    async def run(before: Any) -> dict[str, Any]:
        return {**body(before), "step": before["step"] + 1}

    graph.add_node("node", run)
    graph.add_edge(START, "node")
    graph.add_conditional_edges("node", lambda now: END if now["step"] >= steps else "node", ["node", END])
    return graph


def _fan(width: int) -> Any:
    graph = StateGraph(Gathered)

    async def source(before: Any) -> dict[str, Any]:
        return {"step": 1}

    def branch(number: int) -> Callable[[Any], Awaitable[dict[str, Any]]]:
        async def run(before: Any) -> dict[str, Any]:
            return {"values": [{"text": kilobyte(number + 1)}]}

        return run

    async def sink(before: Any) -> dict[str, Any]:
        return {"step": len(before["values"])}

    graph.add_node("source", source)
    graph.add_node("sink", sink)
    graph.add_edge(START, "source")
    names = [f"n{number}" for number in range(width)]
    for number, name in enumerate(names):
        graph.add_node(name, branch(number))
        graph.add_edge("source", name)
    graph.add_edge(names, "sink")
    graph.add_edge("sink", END)
    return graph


@asynccontextmanager
async def _saver(request: Request) -> AsyncIterator[BaseCheckpointSaver[Any] | None]:
    if not request.store:
        yield None
    elif request.is_postgresql:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

        async with AsyncPostgresSaver.from_conn_string(request.store) as postgres:
            await postgres.setup()
            yield postgres
    else:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(request.path) as sqlite:
            await sqlite.setup()
            yield sqlite


async def _measure(
    request: Request, graph: Any, begin: dict[str, Any], steps: int, durability: str = "sync"
) -> tuple[float, Any]:
    async with _saver(request) as saver:
        compiled = graph.compile(checkpointer=saver)
        config: dict[str, Any] = {"recursion_limit": steps + 10}
        options = {}
        if saver is not None:
            config["configurable"] = {"thread_id": "measured"}
            options["durability"] = durability
        return await clocked(lambda: compiled.ainvoke(begin, config, **options))


async def run_graph(request: Request) -> dict[str, float]:
    """W1, W2."""
    if request.workload == "W1":
        graph = _cycle(Handed, request.size, lambda before: {"value": following(before["value"])})
        begin: dict[str, Any] = {"value": {"text": kilobyte(0)}, "step": 0}
        steps = request.size
    else:
        graph, begin, steps = _fan(request.size), {"step": 0}, 3
    seconds, found = await _measure(request, graph, begin, steps, request.mode)
    assert found["step"] == request.size
    return {"seconds": seconds}


async def run_large(request: Request) -> dict[str, float]:
    """W3."""
    kind = request.mode
    graph = _cycle(Handed, request.size, lambda before: {"value": large(kind, before["step"])})
    seconds, found = await _measure(request, graph, {"step": 0}, request.size)
    assert found["step"] == request.size
    return {"seconds": seconds}


async def run_unfinished(request: Request) -> dict[str, float]:
    """W4: the recursion limit stops it before its last step."""
    graph = _cycle(Handed, request.size + 1, lambda before: {"value": following(before["value"])})
    config: dict[str, Any] = {"recursion_limit": request.size, "configurable": {"thread_id": "filled"}}
    if request.action == "fill":
        async with _saver(request) as saver:
            begin = {"value": {"text": kilobyte(0)}, "step": 0}
            try:
                await graph.compile(checkpointer=saver).ainvoke(begin, config, durability="async")
            except GraphRecursionError:
                return {"seconds": 0.0}
        raise AssertionError("it was not stopped")

    async def work() -> Any:
        async with _saver(request) as saver:
            return await graph.compile(checkpointer=saver).ainvoke(None, config, durability="sync")

    seconds, found = await clocked(work)
    assert found["step"] == request.size + 1
    return {"seconds": seconds}


async def run_growing(request: Request) -> dict[str, float]:
    """W6."""
    graph = _cycle(Gathered, request.size, lambda before: {"values": [kilobyte(before["step"])]})
    seconds, found = await _measure(request, graph, {"values": [], "step": 0}, request.size)
    assert len(found["values"]) == request.size
    return {"seconds": seconds}


WORK = {"W1": run_graph, "W2": run_graph, "W3": run_large, "W4": run_unfinished, "W6": run_growing}
