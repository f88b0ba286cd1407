"""Out of lists and into one: `workflow.Each` and `workflow.Collect`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from hookspecs import NodeInfo, Outcome, PluginHost, RunInfo, hookimpl
from tests.workflow_runner.test_lanes import KEYS, Rested, hosted, rested_at_every_cut, turns, until
from tests.workflow_runner.test_resume import Memory
from workflow_runner import (
    Deadlock,
    EdgeChanged,
    Event,
    Graph,
    GraphInvalid,
    ItemTypeError,
    NodeFailed,
    NodeRef,
    Stream,
    WorkflowRunner,
    node,
)


@node
async def give(values: Sequence[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


@node
async def shout(text: str) -> str:
    return text.upper()


@node
async def add_one(x: int) -> int:
    return x + 1


@node
async def lists_for_ever() -> AsyncIterator[list[int]]:
    while True:
        yield [1, 2, 3]


@node
async def first(items: Stream[int], k: int) -> list[int]:
    taken: list[int] = []
    async for item in items:
        taken.append(item)
        if len(taken) == k:
            break
    return taken


async def outputs(graph: Graph, capacity: int = 64, **inputs: Any) -> Any:
    return (await WorkflowRunner(edge_capacity=capacity).run(graph, inputs)).outputs


def collected(source: Any) -> Graph:
    """Each of what comes from lists, worked on in two lanes and made a list again."""
    graph = Graph()
    given = source(graph)
    graph.output("out", graph.collect(graph.add(shout, text=graph.each(given), lanes=2)))
    return graph


@pytest.mark.parametrize("capacity", [1, 64])
@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([["a", "b", "c"]], ["A", "B", "C"]),
        ([["a"], [], ("b", "c")], ["A", "B", "C"]),
        ([[]], []),
        ([], []),
    ],
)
async def test_what_is_in_lists_is_worked_on_and_made_a_list(lists: list[Any], expected: list[str], capacity: int) -> None:
    graph = collected(lambda graph: graph.add(give, values=lists))
    assert await outputs(graph, capacity) == {"out": [expected]}


async def test_a_list_may_be_an_input_of_the_run_or_a_property() -> None:
    assert await outputs(collected(lambda graph: graph.input("texts")), texts=["a", "b"]) == {"out": [["A", "B"]]}
    assert await outputs(collected(lambda graph: ["a", "b"])) == {"out": [["A", "B"]]}
    assert await outputs(collected(lambda graph: [])) == {"out": [[]]}


async def test_a_document_has_them_by_name() -> None:
    graph = Graph.from_document(
        {
            "nodes": [
                {"id": "apart", "type": "workflow.Each", "data": {"items": [1, 2, 3]}},
                {"id": "more", "type": f"{__name__}.add_one"},
                {"id": "together", "type": "workflow.Collect"},
                {"id": "out", "type": "workflow.Output"},
            ],
            "edges": [
                {"source": "apart", "sourceHandle": "output", "target": "more", "targetHandle": "x"},
                {"source": "more", "sourceHandle": "output", "target": "together", "targetHandle": "items"},
                {"source": "together", "sourceHandle": "output", "target": "out", "targetHandle": "value"},
            ],
        }
    )
    assert (await WorkflowRunner(nodes=[__name__]).run(graph)).outputs == {"out": [[2, 3, 4]]}


def test_they_are_named_for_what_they_do() -> None:
    graph = Graph()
    assert graph.collect(graph.each([1])) == NodeRef("collect")
    assert graph.collect(graph.each([1]), "all") == NodeRef("all")
    assert [item.id for item in graph.nodes] == ["each", "collect", "each_2", "all"]


@pytest.mark.parametrize("validate", ["shallow", "deep"])
@pytest.mark.parametrize("value", ["abc", {"a": 1}, {1, 2}, 3, None])
async def test_what_is_no_list_is_not_handed_on(value: Any, validate: Any) -> None:
    graph = Graph()
    graph.output("out", graph.each(graph.add(give, values=[[1], value])))
    with pytest.raises(NodeFailed) as caught:
        await WorkflowRunner(validate=validate).run(graph)
    assert isinstance(caught.value.__cause__, ItemTypeError)
    assert f"handle 'items': expected list[Any] | tuple[Any, ...], got {type(value).__name__}" in str(caught.value)


async def test_a_list_that_is_none_waits_for_the_next_attempt_in_its_edge() -> None:
    """It was not handed on, so nothing of it is lost."""
    graph, memory = Graph(), Memory()
    graph.output("out", graph.each(graph.add(give, "give", values=[[1], "abc"])))
    with pytest.raises(NodeFailed, match="got str"):
        await hosted(memory).run(graph, run_id="r")
    (edge,) = memory.nodes["each"].inbox
    assert (edge.items, memory.nodes["each"].firing) == (("abc",), 1)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda graph: graph.each("abc"), "node 'each', property 'items': expected list[Any] | tuple[Any, ...], got 'abc'"),
        (lambda graph: graph.add("workflow.Each", "each"), "node 'each': input 'items' is missing. Connect an edge to it, or"),
        (lambda graph: graph.add("workflow.Collect", "c"), "node 'c': input 'items' is missing. Connect an edge to it."),
        (lambda graph: graph.collect([1]), "node 'collect': it makes a list of what comes over an edge, not of a property."),
        (
            lambda graph: graph.each([graph.each([1]), graph.each([2])], "both"),
            "node 'both': handle 'items' takes one edge and has 2.",
        ),
        (
            lambda graph: graph.collect([graph.each([1]), graph.each([2])]),
            "node 'collect': handle 'items' takes one edge and has 2.",
        ),
    ],
)
def test_what_is_wrong_with_them_is_told(make: Any, problem: str) -> None:
    graph = Graph()
    graph.output("out", make(graph))
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)
    (told,) = caught.value.problems
    assert told.startswith(problem)


@pytest.mark.parametrize("wants", [shout, add_one])
@pytest.mark.parametrize("sent", [["a"], ("a",), [1], []])
async def test_who_is_sent_a_list_is_told_of_it(wants: Any, sent: Any) -> None:
    graph = Graph()
    (handle,) = wants.__node_type__.handles
    graph.output("out", graph.add(wants, "n"))
    graph.connect(graph.add(give, values=[sent]), "n", handle)
    with pytest.raises(NodeFailed) as caught:
        await outputs(graph)
    takes = bool(sent) and isinstance(sent[0], str if wants is shout else int)
    assert ("put a `workflow.Each` before this node (`graph.each`)" in str(caught.value)) == takes


async def test_who_wants_lists_of_lists_is_not_told_to_take_them_apart() -> None:
    @node
    async def want(x: list[list[int]]) -> None: ...

    graph = Graph()
    graph.add(want, "n", x=graph.add(give, values=[[["a"]]]))
    with pytest.raises(NodeFailed, match=r"Change what is sent there, or the annotation\."):
        await WorkflowRunner(validate="deep").run(graph)


@pytest.mark.parametrize("capacity", [1, 64])
async def test_nobody_takes_lists_apart_when_nobody_wants_more(capacity: int) -> None:
    graph = Graph()
    graph.output("out", graph.add(first, items=graph.each(graph.add(lists_for_ever)), k=5))
    assert await asyncio.wait_for(outputs(graph, capacity), 20) == {"out": [[1, 2, 3, 1, 2]]}


async def test_who_sends_does_not_wait_for_the_end() -> None:
    """What is collected stays in an edge with as much room as an edge may have."""
    graph, events = Graph(), list[Event]()
    graph.output("out", graph.collect(graph.each(range_of(100))))
    runner = WorkflowRunner(edge_capacity=1, max_edge_capacity=100, on_event=events.append)
    assert (await runner.run(graph)).outputs == {"out": [range_of(100)]}
    assert not [event for event in events if isinstance(event, EdgeChanged) and event.status == "grown"]
    with pytest.raises(Deadlock, match=r"at their limit: e0\."):
        await asyncio.wait_for(WorkflowRunner(edge_capacity=1, max_edge_capacity=98).run(graph), 20)


async def test_each_of_a_long_list_waits_for_room() -> None:
    """A list that is a property is handed on once, also where a resume finds it in part."""
    graph, gate, seen = Graph(), asyncio.Event(), []

    @node
    async def slow(x: int) -> int:
        seen.append(x)
        if x == 3:
            await gate.wait()
        return x

    graph.output("out", graph.add(slow, "slow", x=graph.each(range_of(10))))
    memory = Rested(20)
    task = asyncio.create_task(hosted(memory, edge_capacity=2).run(graph, run_id="r"))
    await until(lambda: memory.cut is not None)
    assert memory.cut is not None
    nodes = dict(await asyncio.wait_for(memory.cut, 20))
    assert (nodes["each"].status, nodes["each"].firing) == ("running", 1)
    (edge,) = nodes["slow"].inbox
    assert edge.items == (4, 5, 6, 7, 8, 9)
    gate.set()
    assert (await asyncio.wait_for(task, 20)).outputs == {"out": range_of(10)}
    memory.nodes = nodes
    seen.clear()
    resumed = await hosted(memory, edge_capacity=2).resume("r", graph=graph)
    assert resumed.outputs == {"out": range_of(10)}
    assert seen == [3, 4, 5, 6, 7, 8, 9]


def range_of(n: int) -> list[int]:
    return list(range(n))


@pytest.mark.parametrize("capacity", [1, 64])
async def test_a_run_goes_on_from_every_cut(capacity: int) -> None:
    graph = Graph()
    lists = graph.add(give, "give", values=[[0, 1, 2], [], [3, 4], [5]])
    graph.output("out", graph.collect(graph.add(turns, "work", x=graph.each(lists), lanes=2)))
    KEYS.clear()
    out = {"out": [[10 * x for x in range(6)]]}
    stored = await rested_at_every_cut(graph, capacity, out)
    keys = dict(KEYS)
    assert 10 < len(stored) < 100
    for memory in stored:
        assert (await hosted(memory, nodes=[__name__, turns.__module__], edge_capacity=capacity).resume("r")).outputs == out
        assert keys == KEYS


async def test_they_call_no_hooks() -> None:
    class Hears:
        def __init__(self) -> None:
            self.heard: list[str] = []

        @hookimpl
        async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
            self.heard.append(node.node_id)

    hears = Hears()
    graph = collected(lambda graph: ["a", "b"])
    await WorkflowRunner(plugins=PluginHost().register(hears, "hears")).run(graph)
    assert sorted(hears.heard) == ["shout/1", "shout/2"]
