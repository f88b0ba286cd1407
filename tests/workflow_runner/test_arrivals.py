"""The order of arrivals, where items are taken out of turn."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from workflow_runner import Context, Graph, Stream, WorkflowRunner, node
from workflow_runner.arrivals import ArrivalOrder
from workflow_runner.edge import Edge


@pytest.mark.parametrize("seed", range(20))
def test_it_is_as_a_list_from_which_each_is_removed(seed: int) -> None:
    bits = random.Random(seed)
    edges: list[Any] = [object() for _ in range(4)]
    order, expected, most = ArrivalOrder(), list[Any](), 0
    for _ in range(2_000):
        chance = bits.random()
        if chance < 0.5 or not expected:
            edge = bits.choice(edges)
            order.append(edge)
            expected.append(edge)
        elif chance < 0.52:
            order.tidy()
        else:
            edge = bits.choice(bits.choices([expected, expected[-1:]], [1, 3])[0])
            order.take(edge)
            expected.remove(edge)
        assert list(order) == expected
        assert not expected or order[0] is expected[0]
        most = max(most, len(expected))
        assert bool(order) == bool(expected) and len(order) <= 2 * most


async def test_what_is_far_behind_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def equal(one: object, other: object) -> bool:
        nonlocal looks
        looks += 1
        return one is other

    monkeypatch.setattr(Edge, "__eq__", equal)

    @node
    async def upto(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @node
    async def thirds(items: Stream[int]) -> AsyncIterator[int]:
        async for x in items:
            if x % 3 == 0:
                yield x

    @node
    async def pair(a: int, b: int) -> tuple[int, int]:
        return a, b

    @node
    async def second_first(a: Stream[int], b: Stream[int]) -> int:
        return len([x async for x in b]) + len([x async for x in a])

    n = 1_000
    graph = Graph()
    source = graph.add(upto, n=n)
    graph.output("pairs", graph.add(pair, a=source, b=graph.add(thirds, items=source), sync_mode="zip_shortest"))
    graph.output("both", graph.add(second_first, a=source, b=graph.add(thirds, items=source)))
    outputs = (await WorkflowRunner().run(graph)).outputs
    assert len(outputs["pairs"]) == 334 and outputs["both"] == [n + 334]
    assert looks < n


@node(outputs=("first", "second"))
async def pairs(n: int) -> AsyncIterator[dict[str, int]]:
    for number in range(n):
        yield {"second": number, "first": number}


@node
async def told(a: Stream[int], b: Stream[int], context: Context) -> AsyncIterator[str]:
    async for handle, item in context.arrivals(a, b):
        yield f"{handle}{item}"


@pytest.mark.parametrize("handles", [("a", "b"), ("b", "a")])
async def test_what_is_emitted_together_arrives_in_the_order_of_the_outputs(handles: tuple[str, str]) -> None:
    """Whatever the order of the edges in the graph, and of the keys in the mapping."""
    graph = Graph()
    emitted = graph.add(pairs, n=2)
    sources: dict[str, Any] = {"a": emitted["first"], "b": emitted["second"]}
    graph.output("out", graph.add(told, **{handle: sources[handle] for handle in handles}))
    assert [edge.target_handle for edge in graph.edges][:2] == list(handles)
    assert (await WorkflowRunner().run(graph)).outputs == {"out": ["a0", "b0", "a1", "b1"]}


@node
async def told_of_two(a: Stream[int], b: Stream[int], c: Stream[int], context: Context) -> AsyncIterator[str]:
    async for handle, item in context.arrivals(b, c):
        yield f"{handle}{item}"
    async for item in a:
        yield f"a{item}"


async def test_arrivals_of_some_streams_leave_the_items_of_the_others_where_they_are() -> None:
    graph = Graph()
    emitted = graph.add(pairs, n=2)
    graph.output("out", graph.add(told_of_two, a=emitted["first"], b=emitted["second"], c=emitted["second"]))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": ["b0", "c0", "b1", "c1", "a0", "a1"]}


@node(stateless=True)
async def told_after_three(a: Stream[int], b: Stream[int], context: Context) -> AsyncIterator[str]:
    for _ in range(3):
        yield f"a{await anext(a)}"
    async for handle, item in context.arrivals(a, b):
        yield f"{handle}{item}"


@pytest.mark.parametrize("retries", [0, 1], ids=["nothing is remembered", "each item is remembered"])
async def test_the_order_of_arrivals_is_known_of_a_stateless_node_that_has_read_out_of_turn(retries: int) -> None:
    graph = Graph()
    emitted = graph.add(pairs, n=5)
    told = graph.add(told_after_three, a=emitted["first"], b=emitted["second"], failure={"retries": retries})
    graph.output("out", told)
    expected = ["a0", "a1", "a2", "b0", "b1", "b2", "a3", "b3", "a4", "b4"]
    assert (await WorkflowRunner().run(graph)).outputs == {"out": expected}
