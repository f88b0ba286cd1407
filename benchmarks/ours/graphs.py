"""The graphs of the workloads."""

from __future__ import annotations

from typing import Any

from benchmarks.ours import nodes
from benchmarks.payloads import kilobyte
from workflow_runner import Graph

__all__ = ["chain", "fan", "growing", "large_chain", "pipeline", "waiting"]


def chain(length: int, unfinished: bool = False) -> Graph:
    """W1; W4 with one more node."""
    graph = Graph()
    end = graph.add(nodes.hand_on, node_id="n0", value={"text": kilobyte(0)})
    for number in range(1, length):
        end = graph.add(nodes.hand_on, node_id=f"n{number}", value=end)
    if unfinished:
        end = graph.add(nodes.last, value=end)
    graph.output("end", end)
    return graph


def fan(width: int) -> Graph:
    """W2."""
    graph = Graph()
    begin = graph.add(nodes.source)
    branches = [graph.add(nodes.branch, node_id=f"n{number}", value=begin, number=number + 1) for number in range(width)]
    graph.output("end", graph.add(nodes.count, values=branches if width > 1 else [*branches, begin]))
    return graph


def large_chain(length: int, kind: str) -> Graph:
    """W3."""
    graph = Graph()
    end: Any = 0
    for number in range(length):
        end = graph.add(nodes.make, node_id=f"n{number}", after=end, kind=kind, number=number)
    graph.output("end", end)
    return graph


def pipeline(items: int, streaming: bool) -> Graph:
    """W5."""
    graph = Graph()
    end = graph.add(nodes.step, n=items)
    for _ in range(3):
        end = graph.add(nodes.pass_on, items=end) if streaming else graph.add(nodes.hand_item, item=end)
    graph.output("end", end)
    return graph


def growing(steps: int) -> Graph:
    """W6."""
    graph = Graph()
    graph.output("end", graph.add(nodes.grow, steps=steps))
    return graph


def waiting(size: int, item_bytes: int) -> Graph:
    """W8: of `size` nodes, one in 50 has an item that waits for the gate; the others are completed."""
    graph = Graph()
    fills = [
        graph.add(nodes.fill, node_id=f"fill{number}", number=number, size=item_bytes) for number in range(max(size // 50, 1))
    ]
    idle = [graph.add(nodes.source, node_id=f"idle{number}") for number in range(size - 2 * len(fills) - 2)]
    go = graph.add(nodes.gate, done=[*(ref["done"] for ref in fills), *idle])
    taken = [
        graph.add(nodes.take, node_id=f"take{number}", sync_mode="zip_all", go=go, item=ref["item"])
        for number, ref in enumerate(fills)
    ]
    graph.output("end", graph.add(nodes.count, values=taken if len(taken) > 1 else [*taken, go]))
    return graph
