"""Several of one node that work side by side: what they return stays in the order of the items, and no step is another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hookspecs import NodeSnapshot, PluginHost, RunControl, RunInfo, StoredRun, hookimpl
from tests.workflow_runner.test_resume import Memory
from workflow_runner import (
    Context,
    EdgeSpec,
    Graph,
    GraphChanged,
    GraphInvalid,
    NodeFailed,
    NodeProtocolError,
    NodeRef,
    NodeSpec,
    RunStopped,
    Stream,
    WorkflowRunner,
    node,
)

STARTED: list[Any] = []
ENDED: list[Any] = []
KEYS: dict[Any, str] = {}
BROKEN: set[Any] = set()
GATES: dict[Any, asyncio.Event] = {}
AT_ONCE: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for noted in (STARTED, ENDED, KEYS, BROKEN, GATES, AT_ONCE):
        noted.clear()


@node
async def upto(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@node
async def seldom(n: int) -> AsyncIterator[int]:
    for i in range(n):
        for _ in range(0 if i % 4 else 12):
            await asyncio.sleep(0)
        yield i


@node
async def work(x: int, context: Context, by: int = 10) -> int:
    STARTED.append(x)
    KEYS[x] = context.idempotency_key
    AT_ONCE.append(len(STARTED) - len(ENDED))
    if (gate := GATES.get(x)) is not None:
        await gate.wait()
    else:
        await asyncio.sleep((x * 7) % 5 / 1_000)
    if x in BROKEN:
        raise RuntimeError(f"broken {x}")
    ENDED.append(x)
    return by * x


@node
async def turns(x: int, context: Context) -> int:
    KEYS[x] = context.idempotency_key
    for _ in range(3 * x % 7):
        await asyncio.sleep(0)
    return 10 * x


@node
def thread_work(x: int) -> int:
    return 10 * x


@node
async def keeps(x: int, context: Context) -> int:
    context.commit((context.state or 0) + x)
    return x


@node
async def asks(x: int, context: Context) -> str:
    return f"{x}: {await context.suspend('what of it?', state=x)}"


@node
async def read(items: Stream[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item


@node(outputs=("odd", "even"))
async def parts(x: int) -> Mapping[str, int]:
    return {"odd" if x % 2 else "even": x}


@node(outputs=("output", "order"))
async def spreads(x: int) -> Mapping[str, int]:
    return {"output": x, "order": 0}


def laned(body: Any = work, n: int = 12, lanes: int = 3, source: Any = upto, **inputs: Any) -> Graph:
    graph = Graph()
    graph.output("out", graph.add(body, "work", x=graph.add(source, "upto", n=n), lanes=lanes, **inputs))
    return graph


def hosted(memory: Any, **settings: Any) -> WorkflowRunner:
    return WorkflowRunner(plugins=PluginHost().register(memory, "memory", store=memory), **settings)


async def until(there: Any) -> None:
    for _ in range(10_000):
        if there():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("it never came")


@pytest.mark.parametrize("lanes", [1, 2, 3, 20])
@pytest.mark.parametrize("capacity", [1, 64])
async def test_results_come_in_the_order_of_the_items(lanes: int, capacity: int) -> None:
    result = await WorkflowRunner(edge_capacity=capacity).run(laned(lanes=lanes))

    assert result.outputs == {"out": [10 * x for x in range(12)]}
    assert sorted(STARTED) == list(range(12))
    assert min(lanes, 2) <= max(AT_ONCE) <= lanes


async def test_bodies_in_threads() -> None:
    assert (await WorkflowRunner().run(laned(thread_work))).outputs == {"out": [10 * x for x in range(12)]}


@pytest.mark.parametrize("n", [0, 1])
async def test_fewer_items_than_lanes(n: int) -> None:
    assert (await WorkflowRunner().run(laned(n=n))).outputs == {"out": [10 * x for x in range(n)]}


async def test_nothing_stands_behind_an_item_that_takes_long() -> None:
    GATES[0] = asyncio.Event()
    task = asyncio.create_task(WorkflowRunner().run(laned(n=30)))
    await until(lambda: len(ENDED) == 29)

    assert STARTED[0] == 0
    GATES[0].set()
    assert (await asyncio.wait_for(task, 20)).outputs == {"out": [10 * x for x in range(30)]}


async def test_results_that_wait_for_an_earlier_one_are_bounded() -> None:
    GATES[0] = asyncio.Event()
    task = asyncio.create_task(WorkflowRunner(edge_capacity=2).run(laned(n=100)))
    await until(lambda: len(ENDED) >= 6)
    for _ in range(50):
        await asyncio.sleep(0)

    assert len(STARTED) <= 1 + 2 * 4  # of each of two lanes: three that wait, of which one is too many, and one that is done
    GATES[0].set()
    assert (await asyncio.wait_for(task, 20)).outputs == {"out": [10 * x for x in range(100)]}


async def test_results_that_wait_for_who_takes_them_are_bounded() -> None:
    @node
    async def takes(items: Stream[int]) -> AsyncIterator[int]:
        async for item in items:
            await gate.wait()
            yield item

    gate = asyncio.Event()
    graph = Graph()
    graph.output("out", graph.add(takes, items=graph.add(turns, x=graph.add(upto, n=100), lanes=2)))
    task = asyncio.create_task(WorkflowRunner(edge_capacity=2).run(graph))
    for _ in range(500):
        await asyncio.sleep(0)
    assert 6 < len(KEYS) < 20
    gate.set()
    assert (await asyncio.wait_for(task, 20)).outputs == {"out": [10 * x for x in range(100)]}


async def test_what_comes_from_an_input_of_the_run_goes_to_each() -> None:
    graph = Graph()
    graph.output("out", graph.add(work, x=graph.add(upto, n=9), by=graph.input("by"), lanes=4))

    assert (await WorkflowRunner().run(graph, {"by": 3})).outputs == {"out": [3 * x for x in range(9)]}


async def test_several_inputs_of_the_run_may_make_a_list() -> None:
    @node
    async def sums(x: int, more: list[int]) -> int:
        return x + sum(more)

    graph = Graph()
    more = [graph.input("a", value=10), graph.input("b", value=20), graph.input("c", value=30)]
    graph.output("out", graph.add(sums, x=graph.add(upto, n=5), more=more, lanes=2))

    assert (await WorkflowRunner().run(graph)).outputs == {"out": [60 + x for x in range(5)]}


async def test_all_edges_may_come_from_inputs_of_the_run() -> None:
    graph = Graph()
    graph.output("out", graph.add(work, x=graph.input("x"), lanes=2))
    assert (await WorkflowRunner().run(graph, {"x": 3})).outputs == {"out": [30]}

    graph = Graph()
    graph.output("out", graph.add(work, x=graph.input("x"), by=graph.input("by"), lanes=2))
    assert (await WorkflowRunner().run(graph, {"x": 3, "by": 2})).outputs == {"out": [6]}


async def test_items_of_a_single_edge_fire_in_whatever_mode() -> None:
    assert (await WorkflowRunner().run(laned(sync_mode="zip_all"))).outputs == {"out": [10 * x for x in range(12)]}


async def test_several_inputs_of_the_run_keep_apart() -> None:
    @node
    async def line(number: int, a: int, b: int) -> int:
        return number * a + b

    graph = Graph()
    graph.output("out", graph.add(line, number=graph.add(upto, n=4), a=graph.input("a"), b=graph.input("b"), lanes=3))

    assert (await WorkflowRunner().run(graph, {"a": 2, "b": 1})).outputs == {"out": [1, 3, 5, 7]}


def test_lanes_are_nodes_of_the_graph_that_is_run() -> None:
    graph = laned(lanes=2)
    compiled = WorkflowRunner().compile(graph)

    assert [n["id"] for n in compiled.document["nodes"]] == ["upto", "work/spread", "work/1", "work/2", "work", "out"]
    assert [n.node_id for n in compiled.plan.nodes.values() if n.lane_of == "work"] == ["work/1", "work/2"]
    assert not any("lanes" in node for node in compiled.document["nodes"])


def test_edges_keep_their_names_and_those_that_are_made_have_their_own() -> None:
    def edges(lanes: int) -> list[tuple[str, str]]:
        graph = Graph()
        x = graph.add(upto, n=3)
        graph.output("out", graph.add(work, "work", by=graph.input("by", value=2), x=x, lanes=lanes))
        return [(edge.edge_id, edge.source.node_id) for edge in WorkflowRunner().compile(graph).plan.edges]

    plain = edges(1)
    assert edges(2)[: len(plain)] == plain
    assert [name for name, _ in edges(2)[len(plain) :]] == [
        "work/2/by/1",
        "work/1",
        "work/1/output",
        "work/2",
        "work/2/output",
        "work/order",
    ]


def test_what_is_said_of_the_whole_graph_holds() -> None:
    graph = laned()
    graph.on_failure, graph.enable = "finish_independent", {"checkpoint": True}
    compiled = WorkflowRunner().compile(graph)
    assert compiled.document["on_failure"] == "finish_independent"
    assert compiled.plan.graph.enable == {"checkpoint": True}


def test_a_document_says_lanes() -> None:
    graph = Graph.from_json(laned(lanes=2).to_json())

    assert [spec.lanes for spec in graph.nodes] == [1, 2, 1]
    assert graph.differences(laned(lanes=2)) == []
    assert graph.differences(laned(lanes=3)) == ["node 'work': lanes 2 became 3"]
    assert graph.differences(laned(lanes=1)) == ["node 'work': lanes 2 became 1"]
    assert laned(lanes=1, by=2).differences(graph) == ["node 'work': lanes 1 became 2"]
    other = laned(lanes=3, n=7)
    other.output("more", NodeRef("work/3"))
    assert graph.differences(other) == [
        "node 'work': lanes 2 became 3",
        "node 'more' is new",
        "node 'upto': property 'n' was 12 and is 7",
        "edges into more.value: from nowhere became from work/3.output",
    ]
    assert "node 'work/2': property 'by' was not set and is 2" in graph.differences(laned(lanes=2, by=2))
    assert [node.get("lanes") for node in graph.to_document()["nodes"]] == [None, 2, None]
    document = {"nodes": [{"id": "work", "type": "a.work", "lanes": None}]}
    assert [spec.lanes for spec in Graph.from_document(document).nodes] == [1]
    another = Graph()
    another.add(work, "other", x=another.add(upto, "upto", n=12), lanes=2)
    assert not [line for line in graph.differences(another) if "became" in line and "lanes" in line]


def test_a_name_makes_no_lanes() -> None:
    graph, other = Graph(), Graph()
    for made in (graph, other):
        made.add(work, "a", x=made.add(upto, "a/spread", n=3))
    other.output("out", NodeRef("a/spread"))
    assert not any("lanes" in line for line in graph.differences(other))


def test_there_may_be_a_thousand_lanes() -> None:
    assert len(WorkflowRunner().compile(laned(lanes=1_000)).plan.nodes) == 1_004


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        (0, "a number from 1 to 1,000, not 0"),
        (-1, "not -1"),
        (1_001, "not 1001"),
        (True, "not True"),
        ("2", "not '2'"),
        (2.0, "not 2.0"),
    ],
)
def test_how_many_lanes(lanes: Any, message: str) -> None:
    graph = laned(lanes=lanes)
    with pytest.raises(GraphInvalid, match=message):
        WorkflowRunner().validate(graph)
    with pytest.raises(GraphInvalid, match=message):
        WorkflowRunner().validate(Graph.from_document(graph.to_document()))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (upto, "'[a-z_.]*upto' yields any number of them"),
        (parts, "'[a-z_.]*parts' may leave some of its outputs out"),
        (read, "'[a-z_.]*read' reads a stream"),
    ],
)
def test_what_cannot_have_lanes(body: Any, message: str) -> None:
    graph = Graph()
    given: dict[str, Any] = {next(iter(body.__annotations__)): graph.add(upto, "source", n=3)}
    graph.add(body, "work", lanes=2, **given)
    with pytest.raises(GraphInvalid, match=rf"node 'work': lanes need one output for each item, and {message}"):
        WorkflowRunner().validate(graph)


@node
async def twice(a: int, b: list[int]) -> int:
    return a


def test_every_problem_with_lanes_is_told() -> None:
    graph = Graph()
    source, by = graph.add(upto, n=3), graph.input("by", value=2)
    graph.add(work, "none", x=1, lanes=2)
    graph.add(work, "two", x=source, by=graph.add(upto, "other", n=3), lanes=2)
    graph.add(work, "zipped", x=source, by=by, sync_mode="zip_all", lanes=2)
    graph.add(work, "shortest", x=source, by=by, sync_mode="zip_shortest", lanes=2)
    graph.add(work, "handed", x=source, lanes=2)
    graph.add(upto, "handed/spread", n=1)
    graph.add(twice, "twice", a=by, b=[source, by, by], lanes=2)
    graph.add(work, "named", x=source, lanes=2)
    graph.add(upto, "named/2", n=1)
    graph.add("workflow.Gather", "odd", items=[source, source], order=source)
    graph.add("workflow.Spread", "even", items=[1, 2])
    graph.add("workflow.Gather", "late", items=source, order=1)
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)

    told = "\n".join(caught.value.problems)
    for problem in (
        "node 'none': its lanes share the items of an edge, and none ends here",
        "node 'two': its lanes share the items of one edge, and 2 end here",
        "node 'zipped': what comes from an input of the run goes to all its lanes, which zip_all cannot do",
        "node 'shortest': what comes from an input of the run goes to all its lanes, which zip_shortest cannot do",
        "node 'handed': its lanes need the id 'handed/spread', which another node has",
        "node 'twice': what its lanes share comes to 'b', and so does an input of the run",
        "node 'named': its lanes need the id 'named/2', which another node has",
        "node 'odd': 'workflow.Gather' is made of \"lanes\"",
        "node 'even': 'workflow.Spread' is made of \"lanes\"",
        "node 'late': 'workflow.Gather' is made of \"lanes\"",
    ):
        assert problem in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": 1}, "node 'work': handle 'x' has both an edge and a property. Remove one of them."),
        ({"nope": 1}, "node 'work': unknown property 'nope'."),
        ({"by": "ten"}, "node 'work', property 'by':"),
    ],
)
def test_what_is_wrong_is_told_of_the_node_and_not_of_each_lane(given: Mapping[str, Any], message: str) -> None:
    graph = laned(lanes=3)
    graph.nodes[1] = replace(graph.nodes[1], data=given)
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)
    (problem,) = caught.value.problems
    assert problem.startswith(message)


def test_a_wrong_edge_to_lanes_is_told_as_it_was_written() -> None:
    graph = laned()
    graph.edges[0] = EdgeSpec("up", "output", "work", "x")
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)
    (problem,) = caught.value.problems
    assert problem.startswith("edge 0 ('up' to 'work'): its source 'up' is no node of the graph.")


@pytest.mark.parametrize("type_name", ["workflow.Output", "workflow.Preview"])
def test_what_has_no_body_has_no_lanes(type_name: str) -> None:
    graph = Graph()
    graph.add(type_name, "work", value=graph.add(upto, n=3), lanes=2)
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)
    (problem,) = caught.value.problems
    assert problem == f"node 'work': lanes need one output for each item, and {type_name!r} has no body. Take \"lanes\" out."


def test_one_lane_takes_no_items_of_its_own() -> None:
    """In a stored graph that was changed: each would be one more firing, whose result stands for the next item of all lanes."""
    graph, _ = laned().written_out()
    graph.connect(graph.add(upto, "other", n=3), "work/2", "by")
    with pytest.raises(GraphInvalid, match="node 'work/2': as a lane of 'work' it takes items from that alone, not from 'other'"):
        WorkflowRunner().validate(graph)


@pytest.mark.parametrize("place", [0, 2])
def test_an_id_that_is_no_text_is_told_beside_lanes(place: int) -> None:
    graph = laned()
    ids: Any = []
    graph.nodes.insert(place, NodeSpec(ids, "workflow.Comment", lanes=1 + place))
    with pytest.raises(GraphInvalid, match=r"a node has the id \[\]\. Give it one that is text"):
        WorkflowRunner().validate(graph)


def test_an_id_that_is_there_twice_is_told_beside_lanes() -> None:
    graph = laned()
    lanes: Any = "three"
    graph.nodes.insert(1, replace(graph.nodes[1], lanes=lanes))
    with pytest.raises(GraphInvalid, match="node 'work' is there twice"):
        WorkflowRunner().validate(graph)


def test_what_gathers_knows_the_lanes_by_their_place() -> None:
    """In a stored graph that was changed."""
    graph, _ = laned().written_out()
    lanes = [edge for edge in graph.edges if edge.target_handle == "items" and edge.target == "work"]
    first, second, _ = map(graph.edges.index, lanes)
    graph.edges[first], graph.edges[second] = graph.edges[second], graph.edges[first]
    with pytest.raises(GraphInvalid, match=r"node 'work': 'workflow\.Gather' is made of"):
        WorkflowRunner().validate(graph)


def test_what_lies_around_lanes_is_not_written_by_hand() -> None:
    """Nor is one that looks like it: what hands out needs one that gathers, and that needs one which hands out."""
    graph = Graph()
    spread = graph.add("workflow.Spread", "spread", items=graph.add(upto, n=3))
    graph.add(work, "one", x=spread)
    graph.output("order", spread["order"])
    looks_like_it = graph.add(spreads, "looks", x=graph.input("x"))
    items = [graph.add(work, "two", x=looks_like_it), graph.add(work, "three", x=looks_like_it)]
    graph.add("workflow.Gather", "gather", items=items, order=looks_like_it["order"])
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)
    assert [problem.partition(" is made of")[0] for problem in caught.value.problems] == [
        "node 'spread': 'workflow.Spread'",
        "node 'gather': 'workflow.Gather'",
    ]


def test_who_gathers_alone_hears_the_order() -> None:
    graph, _ = laned().written_out()
    graph.output("order", NodeRef("work/spread")["order"])
    with pytest.raises(GraphInvalid, match=r"node 'work/spread': 'workflow\.Spread' is made of"):
        WorkflowRunner().validate(graph)


def test_a_single_lane_is_not_written_at() -> None:
    graph = laned(lanes=2)
    graph.connect(graph.input("by", value=1), "work/2", "by")
    graph.output("second", NodeRef("work/2"))
    with pytest.raises(GraphInvalid) as caught:
        WorkflowRunner().validate(graph)

    assert [problem.partition(": ")[2][:44] for problem in caught.value.problems] == [
        "its target 'work/2' is no node of the graph.",
        "its source 'work/2' is no node of the graph.",
    ]


@pytest.mark.parametrize("sources", [("upto", "more"), ("more", "more")])
def test_an_input_of_the_run_is_not_mixed_with_the_items(sources: tuple[str, str]) -> None:
    @node
    async def both(x: list[int]) -> int:
        return len(x)

    graph = Graph()
    graph.add(upto, n=3)
    graph.input("more")
    graph.add(both, "work", x=list(map(NodeRef, sources)), lanes=2)
    with pytest.raises(GraphInvalid, match="node 'work': what its lanes share comes to 'x', and so does an input of the run"):
        WorkflowRunner().validate(graph)


async def test_a_lane_keeps_no_state() -> None:
    with pytest.raises(NodeFailed, match="node 'work' has lanes") as caught:
        await WorkflowRunner().run(laned(keeps))
    assert isinstance(caught.value.__cause__, NodeProtocolError)


async def test_a_lane_may_commit_nothing() -> None:
    @node
    async def begins_anew(x: int, context: Context) -> int:
        context.commit()
        return 10 * x

    assert (await WorkflowRunner().run(laned(begins_anew))).outputs == {"out": [10 * x for x in range(12)]}


async def test_a_step_has_the_key_that_it_has_without_lanes() -> None:
    await WorkflowRunner().run(laned(lanes=1), run_id="r")
    alone = dict(KEYS)
    KEYS.clear()
    await WorkflowRunner().run(laned(lanes=3), run_id="r")

    assert alone == KEYS
    assert len(set(KEYS.values())) == 12


class Asked(Memory):
    """Saves when it is asked to; the control is there for that."""

    control: RunControl

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        await Memory.before_run(self, run, control)
        self.control = control


async def test_a_result_that_waits_is_not_made_again() -> None:
    """The first item fails when those after it are done: they wait in the cut, and the resume works on the first alone."""
    graph, memory = laned(n=4, lanes=2), Memory()
    GATES[0] = asyncio.Event()
    task = asyncio.create_task(hosted(memory).run(graph, run_id="r"))
    await until(lambda: ENDED == [1, 2, 3])
    BROKEN.add(0)
    GATES[0].set()
    with pytest.raises(NodeFailed, match="node 'work/1' of run 'r' failed: RuntimeError: broken 0"):
        await asyncio.wait_for(task, 20)
    STARTED.clear()
    BROKEN.clear()

    assert (await hosted(memory).resume("r", graph=graph)).outputs == {"out": [0, 10, 20, 30]}
    assert STARTED == [0]


async def test_a_lane_tries_again_as_the_node_says() -> None:
    @node
    async def fails_once(x: int, context: Context) -> int:
        if context.attempt == 1:
            raise RuntimeError(f"broken {x}")
        return 10 * x

    graph = laned(fails_once, failure={"retries": 1, "backoff": 0})
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [10 * x for x in range(12)]}


async def test_all_lanes_work_at_once() -> None:
    GATES.update({x: asyncio.Event() for x in range(12)})
    task = asyncio.create_task(WorkflowRunner().run(laned(lanes=5)))
    await until(lambda: len(STARTED) == 5)
    for _ in range(20):
        await asyncio.sleep(0)

    assert STARTED == [0, 1, 2, 3, 4]
    for gate in GATES.values():
        gate.set()
    assert (await asyncio.wait_for(task, 20)).outputs == {"out": [10 * x for x in range(12)]}


async def test_lanes_that_need_no_failed_one_come_to_their_end() -> None:
    BROKEN.add(2)
    graph, memory = laned(n=40), Memory()
    with pytest.raises(NodeFailed, match="broken 2"):
        await hosted(memory, on_failure="finish_independent", edge_capacity=2).run(graph, run_id="r")
    assert sorted(ENDED) == [x for x in range(40) if x != 2]
    STARTED.clear()
    BROKEN.clear()

    assert (await hosted(memory).resume("r", graph=graph)).outputs == {"out": [10 * x for x in range(40)]}
    assert STARTED == [2]


async def test_whatever_lane_takes_an_item_after_a_crash_its_key_is_the_same() -> None:
    graph, memory = laned(n=8, lanes=3), Asked()
    GATES.update({x: asyncio.Event() for x in range(8)})
    runner = hosted(memory)
    task = asyncio.create_task(runner.run(graph, run_id="r"))
    await until(lambda: len(STARTED) == 3)
    assert await memory.control.request("now") is not None
    kept = dict(memory.nodes)
    GATES[1].set()  # the second lane gets the fourth item and the fifth, of which the cut knows nothing
    await until(lambda: 3 in STARTED)
    GATES[3].set()
    await until(lambda: 4 in STARTED)
    runner.stop("signal")
    with pytest.raises(RunStopped):
        await asyncio.wait_for(task, 20)
    before = dict(KEYS)
    memory.nodes = kept
    KEYS.clear()
    STARTED.clear()
    GATES.clear()
    GATES[1] = asyncio.Event()  # now it is the others that go on
    resumed = asyncio.create_task(hosted(memory).resume("r", graph=graph))
    await until(lambda: {3, 4} <= set(STARTED))
    GATES[1].set()

    assert (await asyncio.wait_for(resumed, 20)).outputs == {"out": [10 * x for x in range(8)]}
    assert {x: KEYS[x] for x in before} == before


async def test_after_a_resume_nothing_stands_behind_an_item_that_takes_long() -> None:
    """More results wait for it than an edge holds: who hands out does not wait for these."""
    graph, memory = laned(n=8, lanes=3), Asked()
    GATES.update({x: asyncio.Event() for x in (0, 4, 5)})
    runner = hosted(memory, edge_capacity=2)
    task = asyncio.create_task(runner.run(graph, run_id="r"))
    await until(lambda: set(STARTED) == {0, 1, 2, 3, 4, 5} and set(ENDED) == {1, 2, 3})
    await memory.control.request("now")
    runner.stop("signal")
    with pytest.raises(RunStopped):
        await asyncio.wait_for(task, 20)
    assert len({edge.edge_id: edge.items for edge in memory.nodes["work"].inbox}["work/order"]) == 6
    for x in (4, 5):
        GATES[x].set()
    resumed = asyncio.create_task(hosted(memory, edge_capacity=2).resume("r", graph=graph))
    await until(lambda: 6 in STARTED)
    assert 0 not in ENDED
    GATES[0].set()

    assert (await asyncio.wait_for(resumed, 20)).outputs == {"out": [10 * x for x in range(8)]}


async def test_each_lane_may_wait_for_somebody() -> None:
    graph, memory = laned(asks, n=5, lanes=2), Memory()
    result = await hosted(memory).run(graph, run_id="r")
    asked = 0
    while result.status == "suspended":
        waits = {node_id: wait.state for node_id, wait in result.suspensions.items()}
        asked += len(waits)
        assert len(waits) <= 2
        result = await hosted(memory).resume("r", graph=graph, updates=dict.fromkeys(waits, "fine"))

    assert result.outputs == {"out": [f"{x}: fine" for x in range(5)]}
    assert asked == 5


async def test_an_item_goes_to_a_lane_that_does_not_wait_for_somebody() -> None:
    @node
    async def sometimes(x: int, context: Context) -> int:
        if x == 0:
            await context.suspend("what of it?")
        ENDED.append(x)
        return x

    graph, memory = laned(sometimes, n=20, lanes=2), Memory()
    result = await hosted(memory, edge_capacity=2).run(graph, run_id="r")

    assert list(result.suspensions) == ["work/1"]
    assert sorted(ENDED) == list(range(1, 20))
    result = await hosted(memory).resume("r", graph=graph, updates={"work/1": None})
    assert result.outputs == {"out": list(range(20))}
    assert sorted(ENDED) == list(range(20))


async def test_with_another_number_of_lanes_a_run_does_not_go_on() -> None:
    memory = Memory()
    await hosted(memory).run(laned(asks), run_id="r")
    with pytest.raises(GraphChanged, match="node 'work': lanes 3 became 4"):
        await hosted(memory).resume("r", graph=laned(asks, lanes=4))


async def test_a_run_with_lanes_goes_on_with_code_that_returns_one_value() -> None:
    def changed(body: Any) -> Graph:
        return laned(node(type="changed")(body))

    async def asks_first(x: int, context: Context) -> str:
        return f"{x}: {await context.suspend('what of it?')}"

    async def yields(x: int) -> AsyncIterator[int]:
        yield x

    memory = Memory()
    await hosted(memory).run(changed(asks_first), run_id="r")
    with pytest.raises(GraphInvalid, match=r"and 'changed' yields any number of them.*code that returns one"):
        await hosted(memory).resume("r", graph=changed(yields))
    assert (await hosted(memory).resume("r", graph=changed(asks_first), updates={"work/1": 1})).status == "suspended"


async def test_no_cut_sees_half_of_a_move() -> None:
    """At every turn of the loop: each item is in one place, and the numbers tell of those that are under way."""

    class Watching(Asked):
        async def watch(self) -> None:
            while self.status == "running":
                await self.control.request("watch")
                nodes = self.nodes
                given = nodes["work/spread"].firing if "work/spread" in nodes else 0
                lanes = [nodes[f"work/{k}"] for k in (1, 2, 3) if f"work/{k}" in nodes]
                gather: NodeSnapshot | None = nodes.get("work")
                waiting = {edge.edge_id: edge.items for edge in gather.inbox} if gather is not None else {}
                under_way = sum((lane.arguments is not None) + sum(len(e.items) for e in lane.inbox) for lane in lanes)
                ready = sum(len(items) for edge, items in waiting.items() if edge != "work/order")
                gone = gather.firing if gather is not None else 0
                assert given == gone + under_way + ready
                if gather is None or gather.status != "completed":
                    assert len(waiting.get("work/order", ())) == under_way + ready
                self.cuts += 1
                await asyncio.sleep(0)

        cuts = 0

    memory = Watching()
    run = asyncio.create_task(hosted(memory, edge_capacity=1).run(laned(n=30), run_id="r"))
    await until(lambda: memory.info is not None and memory.nodes is not None)
    await asyncio.sleep(0)
    watch = asyncio.create_task(memory.watch())
    await asyncio.wait_for(run, 20)
    await asyncio.wait_for(watch, 20)
    assert memory.cuts > 20


class Rested(Asked):
    """Keeps a cut that is taken so many turns of the loop later, and says which nodes are over in the one that is resumed."""

    def __init__(self, turns: int = 0) -> None:
        super().__init__()
        self.turns = turns
        self.cut: asyncio.Task[Mapping[str, NodeSnapshot]] | None = None

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        await Asked.before_run(self, run, control)
        self.cut = asyncio.create_task(self.take_cut())

    async def take_cut(self) -> Mapping[str, NodeSnapshot]:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        await self.control.request("now")
        return dict(self.nodes)

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        over = frozenset(node_id for node_id, found in self.nodes.items() if found.status == "completed")
        return replace(await Memory.load(self, run_id, outputs=outputs), status="running", outputs=None, over=over)


async def rested_at_every_cut(graph: Graph, capacity: int, out: Mapping[str, Any]) -> list[Rested]:
    """A graph run again and again, with a cut that is taken one turn of the loop later each time, until all is over in it."""
    stored: list[Rested] = []
    while not stored or "out" not in stored[-1].nodes or stored[-1].nodes["out"].status != "completed":
        memory = Rested(len(stored))
        assert (await hosted(memory, edge_capacity=capacity).run(graph, run_id="r")).outputs == out
        assert memory.cut is not None
        memory.nodes = {**await memory.cut}
        stored.append(memory)
    return stored


@pytest.mark.parametrize("source", [upto, seldom])
@pytest.mark.parametrize("capacity", [1, 64])
async def test_a_run_goes_on_from_every_cut(capacity: int, source: Any) -> None:
    """What is over is not planned any more: of what lies around the lanes that are left, parts are missing."""
    out = {"out": [10 * x for x in range(12)]}
    stored = await rested_at_every_cut(laned(turns, source=source), capacity, out)
    keys = dict(KEYS)
    assert 20 < len(stored) < 100
    for memory in stored:
        assert (await hosted(memory, nodes=[__name__], edge_capacity=capacity).resume("r")).outputs == out
        assert keys == KEYS
