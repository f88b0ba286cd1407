"""What a cut hands to hooks is what they are promised: frozen `NodeSnapshot`s, equal to ones made by hand."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from hookspecs import NodeSnapshot
from tests.workflow_runner.test_runs import Saving, hosted
from workflow_runner import Context, Graph, NodeFailed, Stream, node
from workflow_runner.actor import Actor
from workflow_runner.aligner import SyncMode


@node
async def asks(x: int, context: Context) -> int:
    await context.checkpoint()
    return x


@node
async def one() -> int:
    return 1


@node
async def counts_actors(values: list[int], context: Context) -> int:
    born = [each for each in gc.get_objects() if issubclass(type(each), Actor) and each.run.run_id == "over"]
    await context.checkpoint()
    return len(born)


async def test_nodes_that_are_over_wait_for_a_cut_as_snapshots_not_as_actors() -> None:
    saving = Saving()
    graph = Graph()
    ones = [graph.add(one, node_id=f"one{number}") for number in range(50)]
    graph.output("actors", graph.add(counts_actors, node_id="counts", values=ones))
    result = await hosted(saving).run(graph, run_id="over")
    assert result.outputs["actors"] == [1]
    first = saving.cuts[0][1].nodes
    assert [each.node_id for each in first] == [*(f"one{number}" for number in range(50)), "counts"]
    assert {each.status for each in first[:50]} == {"completed"}
    assert {edge.ended for edge in first[50].inbox} == {True}


async def test_captured_nodes_are_frozen_snapshots_like_those_made_by_hand() -> None:
    saving = Saving()
    graph = Graph()
    graph.add(asks, node_id="a", x=4)
    await hosted(saving).run(graph, run_id="r")
    first, *_ = [snapshot.nodes for _, snapshot in saving.cuts if snapshot.nodes]
    (captured,) = [each for each in first if each.node_id == "a"]
    by_hand = NodeSnapshot(**{item.name: getattr(captured, item.name) for item in fields(NodeSnapshot)})
    assert type(captured) is NodeSnapshot
    assert captured == by_hand
    assert replace(captured, attempt=7).attempt == 7
    with pytest.raises(FrozenInstanceError):
        captured.attempt = 2  # type: ignore[misc]


async def test_cuts_tell_when_a_node_began_and_when_it_was_over() -> None:
    saving = Saving()
    graph = Graph()
    graph.add(asks, node_id="a", x=4)
    before = datetime.now(UTC)
    await hosted(saving).run(graph)
    begun, over = (each for _, cut in saving.cuts for each in cut.nodes if each.node_id == "a")
    assert begun.started_at == over.started_at and begun.ended_at is None
    assert begun.started_at is not None and over.ended_at is not None
    assert before <= begun.started_at <= over.ended_at <= datetime.now(UTC)


@node(outputs=("item", "limit"))
async def item_with_a_second_limit() -> AsyncIterator[dict[str, int]]:
    yield {"limit": 1}
    for _ in range(10):
        await asyncio.sleep(0)  # the body waits for its item now
    yield {"item": 10}
    yield {"item": 11, "limit": 2}


@node
async def up_to(limit: int, items: Stream[int]) -> list[int]:
    return [await anext(items) for _ in range(limit)]


async def test_a_cut_tells_the_order_of_items_that_came_as_the_body_of_a_streaming_node_ended() -> None:
    saving = Saving()
    graph = Graph()
    both = graph.add(item_with_a_second_limit)
    graph.add(up_to, "takes", limit=both["limit"], items=both["item"])
    with pytest.raises(NodeFailed, match="brought a second"):
        await hosted(saving).run(graph)
    (takes,) = [each for each in saving.cuts[-1][1].nodes if each.node_id == "takes"]
    waiting = [edge.edge_id for edge in takes.inbox if edge.items]
    assert len(waiting) == 1
    assert list(takes.order) == waiting


async def test_a_producer_that_is_over_is_not_kept_by_a_stream_that_its_consumer_left() -> None:
    over = asyncio.Event()

    @node
    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            over.set()

    @node(outputs=("limit", "kept"))
    async def limit_then_kept() -> AsyncIterator[dict[str, int]]:
        yield {"limit": 1}
        await over.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        born = [each for each in gc.get_objects() if issubclass(type(each), Actor) and each.run.run_id == "left"]
        yield {"kept": sum(each.node_id == "endless" for each in born)}

    graph = Graph()
    both = graph.add(limit_then_kept)
    graph.output("out", graph.add(up_to, limit=both["limit"], items=graph.add(endless, "endless")))
    graph.output("kept", both["kept"])
    result = await hosted(Saving()).run(graph, run_id="left")
    assert result.outputs == {"out": [[1]], "kept": [0]}


@node
async def asks_in_turn(x: int, context: Context) -> int:
    await context.checkpoint()
    return x + 1


@pytest.mark.parametrize("mode", ["on_any", "zip_all"])
async def test_a_cut_captures_those_of_many_edges_that_are_not_as_they_were(mode: SyncMode) -> None:
    """Each of 40 nodes asks for a cut, and gives its item to the next and to one that 40 edges lead to."""
    saving = Saving()
    graph = Graph()
    value: Any = 0
    ones = []
    for number in range(40):
        value = graph.add(asks_in_turn, node_id=f"one{number}", x=value)
        ones.append(value)
    graph.output("out", graph.add(counts_actors, node_id="all", sync_mode=mode, values=ones))
    await hosted(saving).run(graph, run_id="wide")
    seen = [each for _, snapshot in saving.cuts for each in snapshot.nodes if each.node_id == "all" and each.inbox]
    waits, fired = seen[:39], seen[39]
    for number, (old, new) in enumerate(pairwise(waits), 1):
        changed = [place for place, (was, now) in enumerate(zip(old.inbox, new.inbox, strict=True)) if was is not now]
        assert len(changed) <= 2, number
        waiting = [len(edge.items) for edge in new.inbox]
        assert waiting == [1] * sum(waiting) + [0] * (40 - sum(waiting))
        assert [edge.ended for edge in new.inbox[: sum(waiting) - 1]] == [True] * (sum(waiting) - 1)
    assert [sum(len(edge.items) for edge in each.inbox) for each in waits] == list(range(1, 40))
    assert fired.firing == 1 and not any(edge.items for edge in fired.inbox)


async def test_a_checkpoint_holds_what_one_task_of_a_body_committed_while_another_waited_at_a_stream() -> None:
    saving, asked = Saving(), asyncio.Event()

    @node
    async def one_when_asked() -> AsyncIterator[int]:
        await asked.wait()
        yield 1

    @node
    async def commits_while_it_reads(items: Stream[int], context: Context) -> AsyncIterator[int]:
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        yield 0
        await context.checkpoint("emitted")
        context.commit("kept")
        await context.checkpoint("committed")
        asked.set()
        await reading

    graph = Graph()
    graph.output("out", graph.add(commits_while_it_reads, "reads", items=graph.add(asks, x=graph.add(one_when_asked))))
    await hosted(saving).run(graph)
    told = {reason: [(each.emitted, each.state) for each in cut.nodes if each.node_id == "reads"] for reason, cut in saving.cuts}
    assert told["emitted"] == [(1, None)]
    assert told["committed"] == [(0, "kept")]


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("outputs", [("output",), ("output", "output"), ("a", "b")])
async def test_a_cut_holds_what_a_body_emitted_while_a_task_of_it_waits_at_a_stream(outputs: tuple[str, ...], held: bool) -> None:
    saving, asked = Saving(hold=held), asyncio.Event()

    @node
    async def one_when_asked() -> AsyncIterator[int]:
        await asked.wait()
        yield 1

    async def emits(items: Stream[int], context: Context, item: Any) -> AsyncIterator[Any]:
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        await context.checkpoint("before")
        yield item
        await context.checkpoint("after")
        asked.set()
        await reading

    @node
    async def emits_one(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for item in emits(items, context, 0):
            yield item

    @node(outputs=("a", "b"))
    async def emits_several(items: Stream[int], context: Context) -> AsyncIterator[dict[str, int]]:
        async for item in emits(items, context, {"a": 0, "b": 0}):
            yield item

    graph = Graph()
    reads = graph.add(emits_several if "a" in outputs else emits_one, "reads", items=graph.add(asks, x=graph.add(one_when_asked)))
    for number, name in enumerate(outputs):
        graph.output(f"out{number}", reads[name])
    await hosted(saving).run(graph)
    cuts = iter(saving.cuts)
    assert "before" in (reason for reason, _ in cuts)
    _, after = next(cuts)
    assert [each.emitted for each in after.nodes if each.node_id == "reads"] == [1]


@node
async def upto(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def asks_at_each(values: list[int], context: Context) -> None:
    await context.checkpoint()


async def test_a_cut_captures_an_edge_of_many_that_holds_as_many_items_as_before_and_others() -> None:
    saving = Saving()
    graph = Graph()
    graph.add(asks_at_each, node_id="all", sync_mode="zip_all", values=[graph.add(upto, n=8) for _ in range(40)])
    await hosted(saving, edge_capacity=1).run(graph)
    seen = [each for _, cut in saving.cuts for each in cut.nodes if each.node_id == "all" and each.inbox]
    held = {each.firing: {edge.items for edge in each.inbox} for each in seen if each.arguments is not None}
    assert held[2] == {(2, 3)} and held[3] == {(3, 4)}
