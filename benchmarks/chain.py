"""A chain of trivial nodes, against one asyncio task a node and one future an edge."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.timing import Comparison, compare
from workflow_runner import Graph, WorkflowRunner, node

__all__ = ["chain_graph", "run_chain"]

VALUE = {"text": "x" * 1024}


@node
async def hand_on(value: dict) -> dict:  # type: ignore[type-arg]
    """The trivial body."""
    return value


def chain_graph(length: int) -> Graph:
    """A chain that hands a dict with a 1 KB text from node to node."""
    graph = Graph()
    end = graph.add(hand_on, node_id="n0", value=VALUE)
    for number in range(1, length):
        end = graph.add(hand_on, node_id=f"n{number}", value=end)
    graph.output("end", end)
    return graph


async def by_hand(length: int) -> list[Any]:
    """The floor."""
    loop = asyncio.get_running_loop()
    edges: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(length + 1)]

    async def hand(number: int) -> None:
        edges[number + 1].set_result(await edges[number])

    tasks = [loop.create_task(hand(number)) for number in range(length)]
    edges[0].set_result(VALUE)
    await asyncio.gather(*tasks)
    return [edges[length].result()]


def run_chain(length: int, rounds: int) -> Comparison:
    """Compare; planning the graph is part of our time, building it is not."""
    graph = chain_graph(length)
    runner = WorkflowRunner()

    async def ours() -> list[Any]:
        return (await runner.run(graph)).outputs["end"]

    return compare(f"chain of {length} nodes", "node", length, ours, lambda: by_hand(length), rounds)
