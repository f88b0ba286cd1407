"""How many firings, and with what: `on_any`, `zip_all`, `zip_shortest`, list handles; bounds and stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from workflow_runner import (
    Deadlock,
    EdgeChanged,
    Event,
    Graph,
    NodeChanged,
    NodeFailed,
    NodeProtocolError,
    Stream,
    WorkflowRunner,
    node,
)
from workflow_runner.actor import Actor
from workflow_runner.aligner import OnAny, SyncMode, Zip


@node
async def upto(n: int, name: str = "") -> AsyncIterator[Any]:
    for i in range(n):
        yield f"{name}{i}" if name else i


@node
async def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


@node
async def rows(items: list) -> list:  # type: ignore[type-arg]
    return items


@node
async def thirds(items: Stream[int]) -> AsyncIterator[int]:
    async for x in items:
        if x % 3 == 0:
            yield x


@node
async def last(items: Stream[int]) -> int:
    found = 0
    async for x in items:
        found = x
    return found


def pairs(a: int, b: int, mode: Any) -> Graph:
    graph = Graph()
    one = graph.add(upto, node_id="one", n=a, name="a")
    two = graph.add(upto, node_id="two", n=b, name="b")
    graph.output("out", graph.add(pair, node_id="pair", sync_mode=mode, a=one, b=two))
    return graph


async def out(graph: Graph, **settings: Any) -> list[Any]:
    return (await WorkflowRunner(**settings).run(graph)).outputs["out"]


@pytest.mark.parametrize("capacity", [1, 3, 64])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (5, 1), (1, 5), (4, 4), (0, 3), (3, 0)])
async def test_on_any_fires_items_minus_slots_plus_one_times(a: int, b: int, capacity: int) -> None:
    found = await out(pairs(a, b, "on_any"), edge_capacity=capacity)
    if not a or not b:
        assert found == []
        return
    assert len(found) == a + b - 1
    assert found[0] == ("a0", "b0")
    assert found[-1] == (f"a{a - 1}", f"b{b - 1}")
    steps = [(int(x[1:]), int(y[1:])) for x, y in found]
    assert all(sum(after) == sum(before) + 1 for before, after in pairwise(steps))


@pytest.mark.parametrize("capacity", [1, 64])
async def test_zip_all_takes_one_of_each(capacity: int) -> None:
    assert await out(pairs(3, 3, "zip_all"), edge_capacity=capacity) == [("a0", "b0"), ("a1", "b1"), ("a2", "b2")]


@pytest.mark.parametrize(("a", "b"), [(3, 2), (2, 3), (0, 1)])
async def test_zip_all_refuses_unequal_lengths(a: int, b: int) -> None:
    with pytest.raises(NodeFailed) as caught:
        await out(pairs(a, b, "zip_all"))
    assert caught.value.node_id == "pair"
    assert isinstance(caught.value.__cause__, NodeProtocolError)
    assert "zip_shortest" in str(caught.value)


@pytest.mark.parametrize(("a", "b", "n"), [(3, 2, 2), (2, 3, 2), (0, 1, 0)])
async def test_zip_shortest_drops_the_rest(a: int, b: int, n: int) -> None:
    assert await out(pairs(a, b, "zip_shortest")) == [(f"a{i}", f"b{i}") for i in range(n)]


async def test_a_list_handle_collects_in_the_order_of_its_edges() -> None:
    graph = Graph()
    sources = [graph.add(upto, n=2, name=name) for name in ("c", "a", "b")]
    graph.output("out", graph.add(rows, items=sources, sync_mode="zip_all"))
    assert await out(graph) == [["c0", "a0", "b0"], ["c1", "a1", "b1"]]


async def test_with_one_edge_the_value_itself_is_the_list() -> None:
    graph = Graph()

    @node
    async def give() -> list[int]:
        return [1, 2]

    graph.output("out", graph.add(rows, items=graph.add(give)))
    assert await out(graph) == [[1, 2]]


async def test_each_edge_of_a_list_handle_is_a_slot_of_on_any() -> None:
    graph = Graph()
    graph.output("out", graph.add(rows, items=[graph.add(upto, n=3), graph.add(upto, n=2)]))
    assert len(await out(graph)) == 4


@pytest.mark.parametrize("capacity", [1, 2, 64])
async def test_a_stall_is_resolved_by_growth(capacity: int) -> None:
    grown: list[Event] = []
    graph = Graph()
    source = graph.add(upto, n=300)
    graph.output("out", graph.add(pair, a=source, b=graph.add(thirds, items=source), sync_mode="zip_shortest"))
    found = await out(graph, edge_capacity=capacity, on_event=grown.append)
    assert found == [(i, 3 * i) for i in range(100)]
    assert any(isinstance(event, EdgeChanged) and event.status == "grown" for event in grown)


async def test_no_edge_grows_to_its_limit_while_a_smaller_one_may_grow() -> None:
    @node
    async def begin(items: Stream[int]) -> AsyncIterator[int]:
        async for x in items:
            if x == 40:
                yield 90
                return

    @node
    async def late(items: Stream[int]) -> AsyncIterator[int]:
        async for x in items:
            if x >= 80:
                yield x

    graph = Graph()
    first = graph.add(upto, n=600)
    second = graph.add(upto, n=graph.add(begin, items=first))  # when the edge of the first has grown
    # What the first is paired with comes only when the second is done, which waits at the edge of the other pair.
    graph.output("late", graph.add(pair, a=first, b=graph.add(late, items=second), sync_mode="zip_shortest"))
    graph.output("thirds", graph.add(pair, a=second, b=graph.add(thirds, items=second), sync_mode="zip_shortest"))
    found = (await WorkflowRunner(edge_capacity=1, max_edge_capacity=256).run(graph)).outputs
    assert found == {"late": [(i, 80 + i) for i in range(10)], "thirds": [(i, 3 * i) for i in range(30)]}


async def test_each_edge_is_told_to_end_once_with_the_bound_that_it_has_grown_to() -> None:
    bounds = {"e0": 1, "e1": 1, "e2": 1, "e3": 1}
    ended: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, EdgeChanged):
            if event.status == "grown":
                assert event.capacity == 2 * bounds[event.edge_id]
                bounds[event.edge_id] = event.capacity
            else:
                assert event.capacity == bounds[event.edge_id]
                ended.append(event.edge_id)

    graph = Graph()
    source = graph.add(upto, n=30)
    graph.output("out", graph.add(pair, a=source, b=graph.add(thirds, items=source), sync_mode="zip_shortest"))
    await out(graph, edge_capacity=1, on_event=hear)
    assert max(bounds.values()) > 1
    assert sorted(ended) == sorted(bounds)


async def test_a_stall_beyond_the_limit_is_a_deadlock_that_names_the_edges() -> None:
    graph = Graph()
    source = graph.add(upto, n=300)
    graph.output("out", graph.add(pair, a=source, b=graph.add(thirds, items=source), sync_mode="zip_shortest"))
    with pytest.raises(Deadlock) as caught:
        await out(graph, edge_capacity=2, max_edge_capacity=8)
    assert caught.value.edges
    assert "max_edge_capacity" in str(caught.value)


async def test_a_producer_waits_at_the_bound() -> None:
    ahead = 0
    behind = 0
    most = 0

    @node
    async def produce(n: int) -> AsyncIterator[int]:
        nonlocal ahead, most
        for i in range(n):
            ahead += 1
            most = max(most, ahead - behind)
            yield i

    @node
    async def consume(x: int) -> int:
        nonlocal behind
        behind += 1
        return x

    graph = Graph()
    graph.output("out", graph.add(consume, x=graph.add(produce, n=500)))
    assert len(await out(graph, edge_capacity=5)) == 500
    assert most <= 8


async def test_none_is_a_value_like_any_other() -> None:
    @node
    async def none(n: int) -> AsyncIterator[None]:
        for _ in range(n):
            yield None

    graph = Graph()
    graph.output("out", graph.add(pair, a=graph.add(none, n=2), b=graph.add(none, n=2), sync_mode="zip_all"))
    assert await out(graph) == [(None, None), (None, None)]


@pytest.mark.parametrize("n", [1001, 5000])
async def test_deep_and_wide_graphs(n: int) -> None:
    @node
    async def step(x: int) -> int:
        return x + 1

    deep = Graph()
    end: Any = deep.add(step, node_id="0", x=0)
    for i in range(1, n):
        end = deep.add(step, node_id=str(i), x=end)
    deep.output("out", end)
    assert await out(deep) == [n]
    wide = Graph()
    source = wide.add(step, node_id="s", x=0)
    middle = [wide.add(step, node_id=f"m{i}", x=source) for i in range(n)]
    wide.output("out", wide.add(rows, items=middle, sync_mode="zip_all"))
    assert await out(wide) == [[2] * n]


async def test_a_hundred_thousand_items() -> None:
    graph = Graph()
    graph.output("out", graph.add(thirds, items=graph.add(upto, n=100_000)))
    assert await out(graph, edge_capacity=3) == list(range(0, 100_000, 3))


@pytest.mark.parametrize("mode", ["on_any", "zip_all", "zip_shortest"])
@pytest.mark.parametrize("n", [50, 200])
async def test_a_fan_in_is_looked_at_once_a_set_however_many_edges_it_has(
    n: int, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    for kind in (OnAny, Zip):
        take = kind.take

        def look(aligner: Any, take: Any = take) -> Any:
            nonlocal looks
            looks += 1
            return take(aligner)

        monkeypatch.setattr(kind, "take", look)

    @node
    async def step(x: int) -> int:
        return x + 1

    graph = Graph()
    ends = [graph.add(step, x=0)]
    for _ in range(n - 1):
        ends.append(graph.add(step, x=ends[-1]))
    graph.output("out", graph.add(rows, items=ends[::-1], sync_mode=mode))
    assert await out(graph) == [[*range(n, 0, -1)]]
    assert looks <= 3


@pytest.mark.parametrize("n", [50, 200])
async def test_a_streaming_node_is_woken_once_for_its_plain_inputs_however_many_edges_they_have(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    wait = Actor.wait_for_items

    async def count(actor: Actor, edges: Any, **options: Any) -> None:
        if actor.node_id == "all":
            waits.append(len(edges))
        await wait(actor, edges, **options)

    monkeypatch.setattr(Actor, "wait_for_items", count)

    @node
    async def step(x: int) -> int:
        return x + 1

    @node
    async def all_of(items: list[int], more: Stream[int]) -> list[int]:
        return [*items, *[x async for x in more]]

    graph = Graph()
    ends = [graph.add(step, x=0)]
    for _ in range(n - 1):
        ends.append(graph.add(step, x=ends[-1]))
    graph.output("out", graph.add(all_of, node_id="all", items=ends, more=graph.add(upto, n=1)))
    assert await out(graph) == [[*range(1, n + 1), 0]]
    assert sum(waits) <= 3 * n


@pytest.mark.parametrize("turns", [0, 9])
@pytest.mark.parametrize("mode", ["on_any", "zip_shortest"])
async def test_an_edge_that_ends_without_items_ends_its_node_though_others_bring_none_yet(mode: Any, turns: int) -> None:
    is_over = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, NodeChanged) and (event.node_id, event.status) == ("rows", "completed"):
            is_over.set()

    @node
    async def late() -> AsyncIterator[int]:
        await is_over.wait()
        yield 1

    @node
    async def nothing() -> AsyncIterator[int]:
        for _ in range(turns):  # by the last of them the node waits
            await asyncio.sleep(0)
        for number in range(0):
            yield number

    graph = Graph()
    sources = [graph.add(upto, n=1), graph.add(late), graph.add(nothing)]
    graph.output("out", graph.add(rows, node_id="rows", items=sources, sync_mode=mode))
    async with asyncio.timeout(10):
        assert await out(graph, on_event=listen) == []


async def test_zip_all_refuses_one_item_more_though_other_edges_bring_none_yet() -> None:
    has_failed = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, NodeChanged) and (event.node_id, event.status) == ("rows", "failed"):
            has_failed.set()

    @node
    async def late() -> AsyncIterator[int]:
        await has_failed.wait()
        yield 1

    @node
    async def second() -> AsyncIterator[int]:
        await asyncio.sleep(0.01)  # the other has ended
        yield 1

    graph = Graph()
    sources = [graph.add(upto, n=0), graph.add(second), graph.add(late)]
    graph.output("out", graph.add(rows, node_id="rows", items=sources, sync_mode="zip_all"))
    async with asyncio.timeout(5):
        with pytest.raises(NodeFailed, match="equal length"):
            await out(graph, on_event=listen)


async def test_many_full_edges_grow_without_a_look_at_all_edges_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def look(actor: Actor) -> Any:
        nonlocal looks
        looks += 1
        return actor.__dict__["in_edges"]

    monkeypatch.setattr(
        Actor, "in_edges", property(look, lambda actor, edges: actor.__dict__.update(in_edges=edges)), raising=False
    )

    async def growths(n: int) -> tuple[int, int]:
        """How many edges grew, and how often edges were looked at, where so many pairs wait for a gate behind their streams."""
        nonlocal looks
        looks, grown, over = 0, 0, 0

        def listen(event: Event) -> None:
            nonlocal grown, over
            grown += isinstance(event, EdgeChanged) and event.status == "grown"
            over += isinstance(event, NodeChanged) and event.node_id.startswith("upto") and event.status == "completed"

        graph = Graph()
        sources = [graph.add(upto, n=20) for _ in range(n)]
        lasts = [graph.add(last, items=source) for source in sources]
        go = graph.add(rows, items=lasts, sync_mode="zip_all")
        for place, source in enumerate(sources):
            graph.output(f"out{place}", graph.add(pair, a=source, b=go, sync_mode="zip_shortest"))
        await WorkflowRunner(edge_capacity=8, on_event=listen).run(graph)
        assert over == n
        return grown, looks

    (few, little), (many, much) = await growths(20), await growths(80)
    assert few >= 20 and many == 4 * few
    assert much < 6 * little


@pytest.mark.parametrize("mode", ["on_any", "zip_all", "zip_shortest"])
async def test_the_first_set_fires_though_an_edge_brings_nothing_more_before_it_has(mode: SyncMode) -> None:
    fired = asyncio.Event()

    @node
    async def one_and_another_when_it_fired() -> AsyncIterator[int]:
        yield 0
        await fired.wait()
        yield 1

    @node
    async def later() -> AsyncIterator[int]:
        for _ in range(10):
            await asyncio.sleep(0)
        yield 0
        await fired.wait()
        yield 1

    @node
    async def fires(a: int, b: int) -> None:
        fired.set()

    graph = Graph()
    graph.add(fires, sync_mode=mode, a=graph.add(one_and_another_when_it_fired), b=graph.add(later))
    async with asyncio.timeout(20):
        await WorkflowRunner().run(graph)


@node
async def nothing_at_all() -> AsyncIterator[int]:
    for number in range(0):
        yield number


@node
async def one_later() -> AsyncIterator[int]:
    for _ in range(10):
        await asyncio.sleep(0)
    yield 1


async def test_a_generator_that_begins_when_its_consumer_is_over_is_closed_at_its_first_yield() -> None:
    begun: list[int] = []

    @node
    async def many(x: int) -> AsyncIterator[int]:
        for number in range(10_000):
            begun.append(number)
            yield number

    graph = Graph()
    late = graph.add(many, x=graph.add(one_later))
    graph.output("out", graph.add(pair, sync_mode="zip_shortest", a=graph.add(nothing_at_all), b=late))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": []}
    assert begun == [0]


@node(outputs=("never", "often"))
async def fills_one_output() -> AsyncIterator[dict[str, int]]:
    for number in range(1_000):
        yield {"often": number}


@node
async def writes_while_it_reads(items: Stream[int]) -> AsyncIterator[int]:
    reading = asyncio.ensure_future(anext(items, None))
    for number in range(100):
        yield number
    reading.cancel()


@node
async def last_of(items: Stream[int]) -> int:
    return [x async for x in items][-1]


@node
async def first_of_three(a: int, b: int, c: int) -> tuple[int, int, int]:
    return a, b, c


async def test_an_edge_that_grew_lets_a_body_go_on_of_which_another_task_still_waits() -> None:
    """Nobody else can go on then, and no other edge may grow: it is no deadlock."""
    graph = Graph()
    source = graph.add(fills_one_output)
    numbers = graph.add(writes_while_it_reads, items=source["never"])
    last = graph.add(last_of, items=numbers)
    graph.output("out", graph.add(first_of_three, a=numbers, b=last, c=source["often"], sync_mode="zip_shortest"))
    outputs = (await WorkflowRunner(edge_capacity=64, max_edge_capacity=128).run(graph)).outputs
    assert outputs == {"out": [(0, 99, 0)]}
