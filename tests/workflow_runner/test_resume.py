"""Going on with a stored run, with a store in memory: what is refused, and what is not done twice."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hookspecs import (
    Cancelled,
    CheckpointRef,
    HookError,
    NodeSnapshot,
    Outcome,
    PluginHost,
    RunControl,
    RunInfo,
    RunNotFound,
    Snapshot,
    StoredRun,
    hookimpl,
)
from workflow_runner import (
    Context,
    Event,
    Graph,
    GraphChanged,
    InputChanged,
    InputInvalid,
    NodeFailed,
    NodeNotWaiting,
    ReplayDiverged,
    RunEnded,
    RunStarted,
    RunStopped,
    SourceChanged,
    StoreUnknown,
    Stream,
    WorkflowRunner,
    node,
)
from workflow_runner.node import node_type_of

BROKEN: set[str] = set()
"""Nodes that fail, while they are in here."""
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    BROKEN.clear()
    CALLS.clear()


class Memory:
    """Stores one run; copies go in and out."""

    def __init__(self) -> None:
        self.info: RunInfo | None = None
        self.status: Any = "running"
        self.nodes: dict[str, NodeSnapshot] = {}

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.info = run
        control.save_at("error")

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        self.nodes |= {found.node_id: copy.deepcopy(found) for found in snapshot.nodes}
        self.status = snapshot.status
        return CheckpointRef(run.run_id, 1, reason, datetime.now(UTC))

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: int | None) -> Snapshot | None:
        nodes = tuple(copy.deepcopy(found) for found in self.nodes.values())
        return Snapshot(run.run_id, 1, "running", nodes, datetime.now(UTC)) if nodes else None

    # The loader.

    def __call__(self, url: str | None) -> Memory:
        return self

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        if self.info is None or self.info.run_id != run_id:
            raise RunNotFound(run_id, "memory")
        info = self.info
        found: Mapping[str, Any] | None = {"out": ["stored"]} if outputs and self.status == "completed" else None
        return StoredRun(run_id, info.attempt, self.status, info.graph, info.inputs, info.enable, found)

    async def close(self) -> None: ...


def hosted(memory: Memory, **settings: Any) -> WorkflowRunner:
    return WorkflowRunner(plugins=PluginHost().register(memory, "memory", store=memory), **settings)


@node
async def source(n: int) -> AsyncIterator[int]:
    for i in range(n):
        CALLS.append(f"source {i}")
        yield i


@node
async def once(x: int) -> int:
    CALLS.append(f"once {x}")
    return x


@node
async def running(items: Stream[int], context: Context) -> AsyncIterator[int]:
    total = context.state or 0
    async for x in items:
        CALLS.append(f"running {x} {context.idempotency_key[:4]}")
        total += x
        yield total
        if "running" in BROKEN and x == 3:
            raise RuntimeError("broken")
        context.commit(total)


@node
async def fickle(items: Stream[int]) -> AsyncIterator[int]:
    async for x in items:
        if "fickle" in BROKEN or x < 2:
            yield x
        if "fickle" in BROKEN and x == 3:
            raise RuntimeError("broken")


def graph(streaming: Any = running) -> Graph:
    made = Graph()
    made.output("out", made.add(streaming, node_id="s", items=made.add(once, x=made.add(source, n=5))))
    return made


async def interrupted(memory: Memory, made: Graph) -> None:
    with pytest.raises(NodeFailed, match="broken"):
        await hosted(memory).run(made, run_id="r")


async def test_a_step_is_run_again_and_what_it_had_emitted_is_swallowed() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    assert memory.nodes["s"].emitted == 1
    assert [item for _, item in memory.nodes["s"].taken] == [3]
    before, CALLS[:] = CALLS[:], []
    BROKEN.clear()
    began_at = memory.nodes["s"].started_at
    result = await hosted(memory).resume("r", graph=graph())
    assert result.outputs == {"out": [0, 1, 3, 6, 10]}
    assert memory.nodes["s"].started_at == began_at is not None, "in the attempt before"
    assert [call for call in CALLS if call.startswith("once")] == [f"once {x}" for x in range(5) if f"once {x}" not in before], (
        "what was completed is not done again"
    )
    again = [call for call in CALLS if call.startswith("running 3")]
    assert again == [call for call in before if call.startswith("running 3")], "the key of the step is the same"


KEYS: list[tuple[int, str]] = []
DURABLE: list[int] = []


@node(stateless=True)
async def keyed(items: Stream[int], context: Context) -> AsyncIterator[int]:
    async for item in items:
        KEYS.append((item, context.idempotency_key))
        if item == 1:
            context.on_durable(lambda: DURABLE.append(1))
        if item == 3 and "keyed" in BROKEN:
            raise RuntimeError("broken")
        yield item


async def test_every_read_of_a_stateless_node_is_a_step_of_its_own() -> None:
    KEYS.clear()
    DURABLE.clear()
    BROKEN.add("keyed")
    memory = Memory()
    await interrupted(memory, graph(keyed))
    stored = memory.nodes["s"]
    assert [item for _, item in stored.taken] == [3] and (stored.commits, stored.emitted) == (3, 0)
    assert len({key for _, key in KEYS}) == 4
    assert DURABLE == [1]
    BROKEN.clear()
    assert (await hosted(memory).resume("r", graph=graph(keyed))).outputs == {"out": [0, 1, 2, 3, 4]}
    assert [item for item, _ in KEYS] == [0, 1, 2, 3, 3, 4]
    assert KEYS[4] == KEYS[3], "the step that is run again has its key"
    assert len({key for _, key in KEYS}) == 5


async def test_a_body_that_stood_where_it_waits_for_room_emits_nothing_more_before_there_is_some() -> None:
    emitted: list[int] = []

    @node
    async def takes_late(items: Stream[int]) -> list[int]:
        for _ in range(99):
            await asyncio.sleep(0)
        emitted.append(sum(call.startswith("once") for call in CALLS))
        if "late" in BROKEN:
            raise RuntimeError("broken")
        return [item async for item in items]

    BROKEN.add("late")
    memory, made = Memory(), Graph()
    made.output("out", made.add(takes_late, items=made.add(once, x=made.add(source, n=9))))
    with pytest.raises(NodeFailed, match="broken"):
        await hosted(memory, edge_capacity=2).run(made, run_id="r")
    for _ in range(2):
        with pytest.raises(NodeFailed, match="broken"):
            await hosted(memory, edge_capacity=2).resume("r", graph=made)
    BROKEN.clear()
    assert (await hosted(memory, edge_capacity=2).resume("r", graph=made)).outputs == {"out": [list(range(9))]}
    assert emitted == [3, 3, 3, 3]


async def test_a_try_that_the_end_of_its_run_cut_short_counts_as_one() -> None:
    begun = asyncio.Event()

    @node(retries=1, backoff=0)
    async def interrupted_once(x: int, context: Context) -> int:
        CALLS.append(f"try {context.attempt}")
        begun.set()
        if "other" in BROKEN:
            await asyncio.sleep(3600)
        raise OSError("away")

    @node
    async def other() -> None:
        await begun.wait()
        if "other" in BROKEN:
            raise RuntimeError("broken")

    BROKEN.add("other")
    memory, made = Memory(), Graph()
    made.add(interrupted_once, x=1)
    made.add(other)
    await interrupted(memory, made)
    BROKEN.clear()
    with pytest.raises(NodeFailed, match="OSError: away"):
        await hosted(memory).resume("r", graph=made)
    assert CALLS == ["try 1", "try 2"]
    with pytest.raises(NodeFailed, match="OSError: away"):
        await hosted(memory).resume("r", graph=made)
    assert CALLS[2:] == ["try 3", "try 4"], "it has failed, so its retries begin anew"


async def test_a_completed_run_gives_its_outputs() -> None:
    memory = Memory()
    await hosted(memory).run(graph(), run_id="r")
    CALLS.clear()
    assert (await hosted(memory).resume("r", graph=graph())).outputs == {"out": ["stored"]}
    assert CALLS == []


async def test_another_graph_is_refused_with_what_differs() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    other = Graph()
    other.output("out", other.add(running, node_id="s", items=other.add(source, n=6)))
    with pytest.raises(GraphChanged, match="node 'once' is gone") as caught:
        await hosted(memory).resume("r", graph=other)
    assert any("property 'n' was 5 and is 6" in line for line in caught.value.differences)


async def test_a_replay_that_emits_less_is_told() -> None:
    BROKEN.add("fickle")
    memory = Memory()
    await interrupted(memory, graph(fickle))
    BROKEN.clear()
    with pytest.raises(NodeFailed) as caught:
        await hosted(memory).resume("r", graph=graph(fickle))
    cause = caught.value.__cause__
    assert isinstance(cause, ReplayDiverged)
    assert (cause.node_id, cause.expected, cause.got) == ("s", 4, 2)


async def test_changed_source_in_the_middle_of_a_step_is_refused_unless_it_is_accepted() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    BROKEN.clear()
    memory.nodes["s"] = replace(memory.nodes["s"], source="another")
    with pytest.raises(SourceChanged, match="--accept-changed s"):
        await hosted(memory).resume("r", graph=graph())
    accepted = await hosted(memory).resume("r", graph=graph(), accept_changed=["s"])
    assert accepted.outputs == {"out": [0, 1, 3, 6, 10]}


async def test_changed_source_where_nothing_is_swallowed_is_fine() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    BROKEN.clear()
    for node_id in ("once", "source"):
        if memory.nodes[node_id].status != "completed" and not memory.nodes[node_id].emitted:
            memory.nodes[node_id] = replace(memory.nodes[node_id], source="another")
    assert (await hosted(memory).resume("r", graph=graph())).outputs == {"out": [0, 1, 3, 6, 10]}


async def test_changed_source_may_read_its_streams_in_another_order() -> None:
    @node
    async def both(a: Stream[int], b: Stream[int]) -> list[list[int]]:
        first, second = (a, b) if BROKEN else (b, a)
        found = [[x async for x in first], [x async for x in second]]
        if BROKEN:
            raise RuntimeError("broken")
        return found

    made = Graph()
    made.output("out", made.add(both, "s", a=made.add(source, "a", n=2), b=made.add(source, "b", n=3)))
    BROKEN.add("both")
    memory = Memory()
    await interrupted(memory, made)
    BROKEN.clear()
    assert len(memory.nodes["s"].taken) == 5
    memory.nodes["s"] = replace(memory.nodes["s"], source="another")
    async with asyncio.timeout(10):
        assert (await hosted(memory).resume("r", graph=made)).outputs == {"out": [[[0, 1, 2], [0, 1]]]}


@node(type="shop.twice")
async def yields_twice(items: int) -> AsyncIterator[int]:
    yield items
    yield items + 10
    if "yields_twice" in BROKEN:
        raise RuntimeError("broken")


@node(type="shop.twice")
async def returns_once(items: int) -> int:
    return items


@node(type="shop.twice", timeout=60)
def returns_in_time(items: int) -> int:
    return items


@node(type="shop.all")
async def yields_all(items: Stream[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item
        if "yields_all" in BROKEN and item == 2:
            raise RuntimeError("broken")


@node(type="shop.all")
async def returns_sum(items: Stream[int]) -> int:
    return sum([item async for item in items])


@pytest.mark.parametrize(
    ("before", "after", "emitted"),
    [(yields_twice, returns_once, 2), (yields_twice, returns_in_time, 2), (yields_all, returns_sum, 3)],
)
async def test_a_body_that_returns_what_another_had_yielded_has_emitted_less(before: Any, after: Any, emitted: int) -> None:
    def fed(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", items=made.add(source, n=5)))
        return made

    BROKEN.add(before.__name__)
    memory = Memory()
    await interrupted(memory, fed(before))
    assert memory.nodes["s"].emitted == emitted
    with pytest.raises(NodeFailed) as caught:
        await hosted(memory).resume("r", graph=fed(after), accept_changed=["s"])
    cause = caught.value.__cause__
    assert isinstance(cause, ReplayDiverged)
    assert (cause.expected, cause.got) == (emitted, 1)


async def test_changed_source_that_is_accepted_may_read_its_streams_in_another_order() -> None:
    @node
    async def both(a: Stream[int], b: Stream[int]) -> AsyncIterator[int]:
        for stream in (a, b) if BROKEN else (b, a):
            async for x in stream:
                yield x
        if BROKEN:
            raise RuntimeError("broken")

    made = Graph()
    made.output("out", made.add(both, "s", a=made.add(source, "a", n=2), b=made.add(source, "b", n=3)))
    BROKEN.add("both")
    memory = Memory()
    await interrupted(memory, made)
    BROKEN.clear()
    assert (len(memory.nodes["s"].taken), memory.nodes["s"].emitted) == (5, 5)
    memory.nodes["s"] = replace(memory.nodes["s"], source="another")
    async with asyncio.timeout(10):
        result = await hosted(memory).resume("r", graph=made, accept_changed=["s"])
    assert result.outputs == {"out": [0, 1, 0, 1, 2]}


async def test_stateless_code_that_is_accepted_and_reads_another_stream_first_does_not_repeat_its_step() -> None:
    """Each of its reads is a commit point: that of the other stream comes before what it must repeat."""

    @node(stateless=True)
    async def both(a: Stream[int], b: Stream[int]) -> AsyncIterator[int]:
        for stream in (a, b) if BROKEN else (b, a):
            async for x in stream:
                yield x
                if BROKEN:
                    raise RuntimeError("broken")

    made = Graph()
    made.output("out", made.add(both, "s", a=made.add(source, "a", n=2), b=made.add(source, "b", n=2)))
    BROKEN.add("both")
    memory = Memory()
    await interrupted(memory, made)
    BROKEN.clear()
    memory.nodes["s"] = replace(memory.nodes["s"], source="another")
    async with asyncio.timeout(10):
        with pytest.raises(NodeFailed) as caught:
            await hosted(memory).resume("r", graph=made, accept_changed=["s"])
    cause = caught.value.__cause__
    assert isinstance(cause, ReplayDiverged)
    assert (cause.expected, cause.got) == (1, 0)


async def test_stateless_code_that_is_accepted_repeats_its_step_where_it_reads_as_before() -> None:
    @node(stateless=True)
    async def twice(items: Stream[int]) -> AsyncIterator[int]:
        async for x in items:
            yield x
            if BROKEN:
                raise RuntimeError("broken")
            yield 10 * x

    BROKEN.add("twice")
    memory = Memory()
    await interrupted(memory, graph(twice))
    BROKEN.clear()
    memory.nodes["s"] = replace(memory.nodes["s"], source="another")
    result = await hosted(memory).resume("r", graph=graph(twice), accept_changed=["s"])
    assert result.outputs == {"out": [0, 0, 1, 10, 2, 20, 3, 30, 4, 40]}


@node
async def halting(n: int) -> AsyncIterator[int]:
    for i in range(n):
        if "halting" in BROKEN and i == 3:
            await asyncio.sleep(0.02)  # its consumer takes what is there
            raise RuntimeError("broken")
        yield i


@node(type="shop.sum_up")
async def one_by_one(items: int) -> int:
    if "one_by_one" in BROKEN and items == 2:
        raise RuntimeError("broken")
    return items


@node(type="shop.sum_up")
async def as_stream(items: Stream[int]) -> int:
    return sum([x async for x in items])


@pytest.mark.parametrize(
    ("before", "after", "broken", "outputs"),
    [
        pytest.param(one_by_one, as_stream, "halting", [0, 1, 2, 3, 4], id="a stream now, between firings"),
        pytest.param(one_by_one, as_stream, "one_by_one", [0, 1, 2, 3, 4], id="a stream now, in a firing"),
        pytest.param(as_stream, one_by_one, "halting", [10], id="no stream any more"),
    ],
)
async def test_an_input_that_became_a_stream_or_is_none_any_more_is_refused(
    before: Any, after: Any, broken: str, outputs: list[int]
) -> None:
    def summed(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", items=made.add(halting, "halting", n=5)))
        return made

    BROKEN.add(broken)
    memory = Memory()
    await interrupted(memory, summed(before))
    BROKEN.clear()
    saved = memory.nodes["s"]
    for accepted in ((), ("s",)):
        with pytest.raises(InputChanged, match=r"input 'items'.*Restore the old source") as caught:
            await hosted(memory).resume("r", graph=summed(after), accept_changed=accepted)
        assert (caught.value.node_id, caught.value.handle, caught.value.exit_code) == ("s", "items", 2)
    assert memory.nodes["s"] == saved
    assert (await hosted(memory).resume("r", graph=summed(before))).outputs == {"out": outputs}


async def test_an_input_that_became_a_stream_is_refused_though_the_source_is_the_same() -> None:
    def summed(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", items=made.add(source, n=5)))
        return made

    BROKEN.add("one_by_one")
    memory = Memory()
    await interrupted(memory, summed(one_by_one))
    BROKEN.clear()
    same = node_type_of(as_stream)
    assert same is not None
    memory.nodes["s"] = replace(memory.nodes["s"], source=same.fingerprint)  # as where it says `items: Items`, which is an alias
    with pytest.raises(InputChanged, match="input 'items' is a stream now"):
        await hosted(memory).resume("r", graph=summed(as_stream))


@node
async def lingering() -> AsyncIterator[int]:
    yield 10
    await asyncio.sleep(0.02)  # its consumer comes to its end
    if "lingering" in BROKEN:
        raise RuntimeError("broken")


@node(type="shop.add_up")
async def add_up(first: int, items: Stream[int]) -> int:
    return first + sum([x async for x in items])


@node(type="shop.add_up")
async def add_up_anew(first: int, items: Stream[int]) -> int:
    return sum([x async for x in items], first)


@node(type="shop.pair")
async def pair(first: int, items: int) -> int:
    return first + items


@node(type="shop.pair")
async def pair_up(first: int, items: Stream[int]) -> int:
    return first + sum([x async for x in items])


async def test_an_input_that_became_a_stream_and_holds_items_is_refused_though_its_node_has_fired_once() -> None:
    def paired(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", sync_mode="zip_shortest", first=made.add(lingering), items=made.add(source, n=3)))
        return made

    BROKEN.add("lingering")
    memory = Memory()
    await interrupted(memory, paired(pair))
    BROKEN.clear()
    assert (memory.nodes["s"].firing, memory.nodes["s"].arguments) == (1, None)
    with pytest.raises(InputChanged, match="input 'items' is a stream now"):
        await hosted(memory).resume("r", graph=paired(pair_up))
    assert (await hosted(memory).resume("r", graph=paired(pair))).outputs == {"out": [10]}


@node
async def halves(base: int) -> AsyncIterator[int]:
    yield base
    await asyncio.sleep(0.02)  # its consumer fires
    if "halves" in BROKEN:
        raise RuntimeError("broken")
    yield base + 1


async def refused_as_stream(plain: Graph, streaming: Graph) -> Mapping[str, Any]:
    """Interrupt a run between two firings of `s`, whose input is then a stream; what comes of it with the code it had."""
    BROKEN.add("halves")
    memory = Memory()
    await interrupted(memory, plain)
    BROKEN.clear()
    assert (memory.nodes["s"].firing, memory.nodes["s"].arguments) == (1, None)
    with pytest.raises(InputChanged, match="input 'items' is a stream now"):
        await hosted(memory).resume("r", graph=streaming)
    return (await hosted(memory).resume("r", graph=plain)).outputs


@pytest.mark.parametrize("mode", ["zip_all", "zip_shortest"])
async def test_an_input_that_became_a_stream_is_refused_between_two_firings_of_what_is_zipped(mode: Any) -> None:
    """It looks as a streaming node does whose body has ended: what came to its stream from then on was lost."""

    def paired(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", sync_mode=mode, first=made.add(halves, base=10), items=made.add(halves, base=20)))
        return made

    assert await refused_as_stream(paired(pair), paired(pair_up)) == {"out": [30, 32]}


async def test_an_only_input_that_became_a_stream_is_refused_between_the_first_firing_and_the_second() -> None:
    def summed(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", items=made.add(halves, base=10)))
        return made

    assert await refused_as_stream(summed(one_by_one), summed(as_stream)) == {"out": [10, 11]}


@pytest.mark.parametrize("mode", ["on_any", "zip_all"])
async def test_a_streaming_node_whose_body_has_ended_goes_on_with_the_same_code_in_any_mode(mode: Any) -> None:
    made = Graph()
    made.output("out", made.add(add_up, "s", sync_mode=mode, first=made.add(lingering), items=made.add(source, n=3)))
    BROKEN.add("lingering")
    memory = Memory()
    await interrupted(memory, made)
    BROKEN.clear()
    assert (await hosted(memory).resume("r", graph=made)).outputs == {"out": [13]}


async def test_code_may_change_of_a_streaming_node_whose_body_has_ended_before_its_plain_input() -> None:
    def added(body: Any) -> Graph:
        made = Graph()
        made.output("out", made.add(body, "s", first=made.add(lingering, "lingering"), items=made.add(source, n=3)))
        return made

    BROKEN.add("lingering")
    memory = Memory()
    await interrupted(memory, added(add_up))
    BROKEN.clear()
    assert (await hosted(memory).resume("r", graph=added(add_up_anew))).outputs == {"out": [13]}


async def test_a_run_is_not_resumed_without_its_plugin_or_under_a_wrong_id() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    with pytest.raises(RunNotFound, match="'s'"):
        await hosted(memory).resume("s", graph=graph())
    with pytest.raises(StoreUnknown, match="--disable memory"):
        await hosted(memory).resume("r", enable={"memory": False}, graph=graph())


async def test_a_url_is_for_the_loader_of_a_plugin_made_in_code_which_takes_no_options() -> None:
    BROKEN.add("running")
    memory = Memory()
    with pytest.raises(NodeFailed, match="broken"):
        await hosted(memory).run(graph(), run_id="r", enable={"memory": True})
    BROKEN.clear()
    assert (await hosted(memory).resume("r", graph=graph(), url="elsewhere")).outputs == {"out": [0, 1, 3, 6, 10]}


async def test_one_text_is_no_list_of_nodes() -> None:
    with pytest.raises(TypeError, match=r"Give nodes=\['nodes.py'\]"):
        WorkflowRunner(nodes="nodes.py")
    runner = hosted(Memory())
    with pytest.raises(TypeError, match=r"Give accept_changed=\['s'\]"):
        await runner.resume("r", accept_changed="s")
    with pytest.raises(TypeError, match=r"Give replay=\['s'\]"):
        await runner.resume("r", replay="s")


async def test_a_stop_while_the_run_is_read_keeps_it_from_beginning() -> None:
    class Slow(Memory):
        async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
            runner.stop("signal")
            return await super().load(run_id, outputs=outputs)

    BROKEN.add("running")
    memory = Slow()
    runner = hosted(memory)
    await interrupted(memory, graph())
    BROKEN.clear()
    CALLS.clear()
    with pytest.raises(RunStopped, match="workflow resume r"):
        await runner.resume("r", graph=graph())
    assert not CALLS
    assert memory.info is not None
    assert memory.info.attempt == 1


@node
async def all_of(items: Stream[int]) -> list[int]:
    return [x async for x in items]


@node
async def as_they_come(a: Stream[int], b: Stream[int], context: Context) -> list[int]:
    return sorted([x async for _, x in context.arrivals(a, b)])


@pytest.mark.parametrize("body", [all_of, as_they_come])
async def test_the_item_at_which_the_log_is_full_is_there_after_a_resume(body: Any) -> None:
    made = Graph()
    feeds: dict[str, Any] = {name: made.add(source, name, n=5) for name in (("items",) if body is all_of else ("a", "b"))}
    made.output("out", made.add(body, node_id="reads", **feeds))
    memory = Memory()
    with pytest.raises(NodeFailed, match="took 3 items without a commit"):
        await hosted(memory, max_log=3).run(made, run_id="r")
    result = await hosted(memory).resume("r", graph=made)
    assert result.outputs == {"out": [sorted([0, 1, 2, 3, 4] * len(feeds))]}


@node
async def with_first(items: Stream[int], first: int) -> list[int]:
    return [first, *[x async for x in items]]


async def test_a_second_item_of_a_plain_input_is_refused_after_a_resume_too() -> None:
    made = Graph()
    made.output("out", made.add(with_first, "s", items=made.add(source, "a", n=2), first=made.add(source, "b", n=2)))
    memory = Memory()
    with pytest.raises(NodeFailed, match="brought a second"):
        await hosted(memory).run(made, run_id="r")
    assert (0, 1) in [edge.items for edge in memory.nodes["s"].inbox]
    with pytest.raises(NodeFailed, match="brought a second"):
        await hosted(memory).resume("r", graph=made)


async def test_a_state_that_a_plain_body_keeps_is_final_when_it_suspends() -> None:
    states: list[object] = []

    @node
    async def asks(context: Context) -> Any:
        states.append(context.state)
        context.commit(7)
        return await context.suspend("how many")

    made = Graph()
    made.output("out", made.add(asks, "a"))
    memory = Memory()
    assert (await hosted(memory).run(made, run_id="r")).status == "suspended"
    result = await hosted(memory).resume("r", graph=made, updates={"a": 3})
    assert result.outputs == {"out": [3]}
    assert states == [None, 7]


async def test_a_second_item_of_a_plain_input_fails_a_body_that_would_never_end_after_a_resume_too() -> None:
    begun = asyncio.Event()

    @node
    async def one_and_later_another(context: Context) -> AsyncIterator[int]:
        if context.state is None:
            yield 1
            context.commit(1)
        await begun.wait()
        if BROKEN:
            raise RuntimeError("broken")
        yield 2

    @node
    async def never_ends(limit: int, items: Stream[int]) -> int:
        begun.set()
        await asyncio.sleep(3600)
        return limit

    made = Graph()
    made.add(never_ends, "s", limit=made.add(one_and_later_another), items=made.add(source, n=1))
    BROKEN.add("source")
    memory = Memory()
    await interrupted(memory, made)
    BROKEN.clear()
    begun.clear()
    async with asyncio.timeout(20):
        with pytest.raises(NodeFailed, match="brought a second"):
            await hosted(memory).resume("r", graph=made)


async def test_a_resume_tells_how_many_nodes_there_are_and_how_many_were_completed() -> None:
    @node
    async def asks(x: int, context: Context) -> Any:
        return await context.suspend("how many")

    made = Graph()
    made.output("out", made.add(asks, "a", x=made.add(once, x=1)))
    memory = Memory()
    events: list[Event] = []
    await hosted(memory).run(made, run_id="r")
    await hosted(memory, on_event=events.append).resume("r", graph=made)
    assert isinstance(events[0], RunStarted)
    assert (events[0].attempt, events[0].nodes, events[0].completed) == (2, 3, 1)


async def test_an_answer_that_was_brought_before_is_not_replaced_by_a_resume() -> None:
    @node
    async def asks(context: Context) -> Any:
        return await context.suspend("how many")

    made = Graph()
    made.output("out", made.add(asks, "a"))
    memory = Memory()
    await hosted(memory).run(made, run_id="r")
    waits = memory.nodes["a"]
    assert waits.suspension is not None
    memory.nodes["a"] = replace(waits, suspension=replace(waits.suspension, answered=True, answer=3))
    with pytest.raises(NodeNotWaiting, match="answered already"):
        await hosted(memory).resume("r", graph=made, updates={"a": 4})
    assert (await hosted(memory).resume("r", graph=made)).outputs == {"out": [3]}


class PassesMeanwhile(datetime):
    """A time that lies ahead when it is first compared, and has passed from then on."""

    looks = 0

    def __le__(self, other: object) -> bool:
        PassesMeanwhile.looks += 1
        return PassesMeanwhile.looks > 1


async def test_a_deadline_that_passes_while_the_run_is_read_is_one_of_the_next_resume() -> None:
    """That it has passed is saved before the body acts on it, so it is asked once whether it has."""

    @node
    async def asks(x: int, context: Context) -> str:
        return f"{x} {await context.suspend('in time?', until=PassesMeanwhile(2100, 1, 1, tzinfo=UTC))}"

    memory, asking = Memory(), Graph()
    asking.output("out", asking.add(asks, node_id="n", x=1))
    await hosted(memory).run(asking, enable={"memory": True}, run_id="r")
    assert (await hosted(memory).resume("r", graph=asking)).status == "suspended"
    assert (await hosted(memory).resume("r", graph=asking)).outputs == {"out": ["1 None"]}


async def test_a_body_that_passed_a_commit_after_its_answer_does_not_go_on_after_that_answer_again() -> None:
    @node
    async def gate(items: Stream[int], context: Context) -> AsyncIterator[int]:
        if context.is_resuming:
            yield context.saved_state
            context.commit()
        async for x in items:
            if x == 1:
                await context.suspend("may it pass?", state=x)
            if x == 3 and BROKEN:
                raise RuntimeError("broken")
            yield x
            context.commit()

    made = Graph()
    made.output("out", made.add(gate, "gate", items=made.add(source, n=5)))
    memory = Memory()
    assert (await hosted(memory).run(made, run_id="r")).status == "suspended"
    BROKEN.add("gate")
    with pytest.raises(NodeFailed, match="broken"):
        await hosted(memory).resume("r", graph=made, updates={"gate": True})
    BROKEN.clear()
    assert (await hosted(memory).resume("r", graph=made)).outputs == {"out": [0, 1, 2, 3, 4]}


async def test_an_interrupted_step_is_run_again_though_nothing_more_comes_to_its_node() -> None:
    tries: list[int] = []

    @node
    async def one_and_asks(context: Context) -> AsyncIterator[int]:
        if not context.is_resuming:
            yield 1
            await context.suspend("are there more?")

    @node
    async def fails_first(x: int, context: Context) -> int:
        for _ in range(10):
            await asyncio.sleep(0)  # its producer waits for its answer by now
        tries.append(context.attempt)
        if context.attempt == 1:
            raise RuntimeError("broken")
        return x

    made = Graph()
    made.output("out", made.add(fails_first, "s", x=made.add(one_and_asks, "asks")))
    memory = Memory()
    await interrupted(memory, made)
    assert (await hosted(memory).resume("r", graph=made)).status == "suspended"
    assert tries == [1, 2]
    assert (await hosted(memory).resume("r", graph=made, updates={"asks": None})).outputs == {"out": [1]}
    assert tries == [1, 2]


async def test_changed_nodes_that_are_none_of_the_run_are_told() -> None:
    BROKEN.add("running")
    memory = Memory()
    await interrupted(memory, graph())
    with pytest.raises(InputInvalid, match="run 'r' has no node 'S'"):
        await hosted(memory).resume("r", graph=graph(), accept_changed=["s", "S"])


class Skipping(Memory):
    """Cannot save some of its cuts, and lets the run go on."""

    def __init__(self, skipped: set[int]) -> None:
        super().__init__()
        self.skipped = skipped
        self.saves = 0

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        await super().before_run(run, control)
        self.control = control

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        self.saves += 1
        if self.saves in self.skipped:
            await asyncio.sleep(0.01)
            self.control.degrade("the disk is full")
            return None
        return await super().save_checkpoint(run, snapshot, reason)


@node
async def saving(items: Stream[int], context: Context) -> AsyncIterator[int]:
    async for x in items:
        yield x
        await context.checkpoint()
        if "saving" in BROKEN and x == 3:
            raise RuntimeError("broken")


@pytest.mark.parametrize("skipped", [{1}, {1, 2}, {3}, {1, 3}, {4}, {1, 2, 3, 4}])
async def test_what_could_not_be_saved_is_in_the_next_save(skipped: set[int]) -> None:
    BROKEN.add("saving")
    memory = Skipping(skipped)
    await interrupted(memory, graph(saving))
    BROKEN.clear()
    assert set(memory.nodes) == {node["id"] for node in graph(saving).to_document()["nodes"]}
    result = await hosted(memory).resume("r", graph=graph(saving))
    assert result.outputs["out"] == [0, 1, 2, 3, 4]
    assert [*(f"source {i}" for i in range(5)), *(f"once {i}" for i in range(5))] == CALLS


async def test_nodes_that_are_over_no_more_when_the_cut_is_restored_run_again() -> None:
    """Somebody has gone back to an older checkpoint since the run was looked up."""

    class Ahead(Memory):
        async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
            return replace(await Memory.load(self, run_id, outputs=outputs), over=frozenset({"source", "once"}))

    BROKEN.add("running")
    memory = Ahead()
    await interrupted(memory, graph())
    BROKEN.clear()
    memory.nodes.clear()
    assert (await hosted(memory).resume("r", graph=graph())).outputs == {"out": [0, 1, 3, 6, 10]}


class Failing(Memory):
    """A store that does not do what a loader does."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("found", "told"),
    [(OSError("the disk is away"), "'memory' failed in hook 'load': OSError: the disk is away"), (None, "it gave NoneType")],
)
async def test_a_loader_that_fails_is_named(found: Any, told: str) -> None:
    with pytest.raises(HookError, match=told):
        await hosted(Failing(found)).resume("r")


class Hanging(Memory):
    """Never opens a run, in the hook that it is told."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self._hook = hook
        self.hangs = asyncio.Event()
        self.was_cancelled = False
        self.outcomes: list[Outcome] = []

    async def _hang(self, hook: str) -> None:
        if hook == self._hook:
            self.hangs.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.info = run
        if run.resumed:
            await self._hang("before_run")

    @hookimpl
    async def restore_checkpoint(self, run: RunInfo, checkpoint_id: int | None) -> Snapshot | None:
        await self._hang("restore_checkpoint")
        return await super().restore_checkpoint(run, checkpoint_id)

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        await asyncio.sleep(0.1)  # as long as it takes: this is cancelled by nobody
        self.outcomes.append(outcome)


@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize(("hook", "heard"), [("before_run", 0), ("restore_checkpoint", 1)])
async def test_a_plugin_that_never_opens_the_run_is_given_up(hook: str, heard: int, cancels: bool) -> None:
    graph = Graph()
    graph.output("out", graph.add(once, x=1))
    memory = Hanging(hook)
    runner = hosted(memory, grace_seconds=0.05)
    await runner.run(graph, run_id="r")
    memory.status = "running"
    memory.outcomes.clear()
    resume = asyncio.ensure_future(runner.resume("r", graph=graph))
    await memory.hangs.wait()
    if cancels:
        resume.cancel()
    else:
        runner.stop("signal")
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError if cancels else RunStopped):
            await resume
    assert memory.was_cancelled
    assert memory.outcomes == [Cancelled("cancel" if cancels else "signal")] * heard


async def test_a_run_whose_task_is_cancelled_while_a_plugin_restores_it_was_stopped() -> None:
    """As by an event loop that ends: it has not come to its end, though nothing of it is left to be done."""
    memory = Hanging("restore_checkpoint")
    graph = Graph()
    graph.output("out", graph.add(once, x=1))
    runner = hosted(memory)
    await runner.run(graph, run_id="r")
    memory.status = "running"
    memory.outcomes.clear()
    resume = asyncio.ensure_future(runner.resume("r", graph=graph))
    await memory.hangs.wait()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "workflow-r")
    task.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(RunStopped):
            await resume
    assert memory.outcomes == [Cancelled("cancel")]


async def test_a_run_whose_task_is_cancelled_while_an_answer_is_saved_starts_nothing() -> None:
    class Slow(Memory):
        def __init__(self) -> None:
            super().__init__()
            self.saves, self.goes_on = asyncio.Event(), asyncio.Event()
            self.outcomes: list[Outcome] = []

        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
            if reason == "answer":
                self.saves.set()
                await self.goes_on.wait()
            return await super().save_checkpoint(run, snapshot, reason)

        @hookimpl
        async def after_run(self, outcome: Outcome) -> None:
            self.outcomes.append(outcome)

    @node
    async def asks(context: Context) -> Any:
        CALLS.append("asks")
        return await context.suspend("how many")

    made = Graph()
    made.output("out", made.add(asks, "a"))
    memory = Slow()
    await hosted(memory).run(made, run_id="r")
    resume = asyncio.ensure_future(hosted(memory).resume("r", graph=made, updates={"a": 3}))
    await memory.saves.wait()
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "workflow-r")
    task.cancel()
    await asyncio.sleep(0)
    memory.goes_on.set()
    async with asyncio.timeout(20):
        with pytest.raises(RunStopped):
            await resume
    assert CALLS == ["asks"]
    assert memory.outcomes[-1] == Cancelled("cancel")
    assert (await hosted(memory).resume("r", graph=made)).outputs == {"out": [3]}, "the answer was saved"


async def test_a_hook_that_waited_for_what_a_run_that_is_given_up_cancels_hides_no_end() -> None:
    class Asks(Hanging):
        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            self.info = run
            self.control = control

        @hookimpl
        async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            await self.control.request("late")

    graph = Graph()
    graph.output("out", graph.add(once, x=1))
    memory = Asks("restore_checkpoint")
    events: list[Event] = []
    runner = hosted(memory, grace_seconds=0.05, on_event=events.append)
    await runner.run(graph, run_id="r")
    memory.status = "running"
    events.clear()
    resume = asyncio.ensure_future(runner.resume("r", graph=graph))
    await memory.hangs.wait()
    runner.stop("signal")
    async with asyncio.timeout(20):
        with pytest.raises(RunStopped) as raised:
            await resume
    assert not getattr(raised.value, "__notes__", ())
    assert [type(event) for event in events] == [RunEnded]


def raises(*_: Any) -> Any:
    raise OSError("the disk is away")


@pytest.mark.parametrize(("make", "told"), [(raises, "OSError: the disk is away"), (lambda url: None, "its entry gave NoneType")])
async def test_a_loader_that_cannot_be_made_is_named(make: Any, told: str) -> None:
    runner = WorkflowRunner(plugins=PluginHost().register(Memory(), "memory", store=make))
    with pytest.raises(HookError, match=f"'memory' failed in hook 'load': .*{told}"):
        await runner.resume("r")


@pytest.mark.parametrize("method", ["learn", "use", "share"])
async def test_a_loader_that_fails_when_it_is_told_something_is_named(method: str) -> None:
    memory = Memory()
    setattr(memory, method, raises)
    async with hosted(memory) as runner:
        with pytest.raises(HookError, match="'memory' failed in hook 'load': OSError: the disk is away"):
            await runner.resume("r", enable={"memory": {"some": 1}})


async def test_a_loader_that_cannot_be_closed_is_named_and_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    monkeypatch.setattr(memory, "close", raises)
    with pytest.raises(RunNotFound) as missing:
        await hosted(memory).resume("r")
    assert "'memory' failed in hook 'close': OSError" in missing.value.__notes__[0]
    await hosted(memory).run(graph(), run_id="r")
    with pytest.raises(HookError, match="'memory' failed in hook 'close': OSError: the disk is away"):
        await hosted(memory).resume("r", graph=graph())


@pytest.mark.parametrize("stopped_at", [None, 5, 20])
async def test_a_stream_that_its_body_left_keeps_no_producer_of_its_plain_input_waiting(stopped_at: int | None) -> None:
    @node(outputs=("limit", "item"))
    async def limit_and_items(n: int, context: Context) -> AsyncIterator[dict[str, int]]:
        if context.state is None:
            yield {"limit": 3}
        for i in range(context.state or 0, n):
            if i == stopped_at and context.attempt == 1:
                raise RuntimeError("broken")
            yield {"item": i}
            context.commit(i + 1)
            await asyncio.sleep(0)

    @node
    async def upto(limit: int, items: Stream[int]) -> list[int]:
        return [await anext(items) for _ in range(limit)]

    graph = Graph()
    both = graph.add(limit_and_items, n=50)
    graph.output("out", graph.add(upto, limit=both["limit"], items=both["item"]))
    memory = Memory()
    if stopped_at is None:
        result = await hosted(memory, edge_capacity=2, max_edge_capacity=8).run(graph)
    else:
        with pytest.raises(NodeFailed, match="broken"):
            await hosted(memory, edge_capacity=2, max_edge_capacity=8).run(graph, run_id="r")
        result = await hosted(memory, edge_capacity=2, max_edge_capacity=8).resume("r", graph=graph)
    assert result.outputs == {"out": [[0, 1, 2]]}


class Early(Memory):
    """Stores the cut before the first step of any node, and no other before the end."""

    @hookimpl
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        self.info = run
        if not run.resumed:
            control.request("early")


async def test_a_body_that_only_reads_streams_begins_before_anything_arrives_in_a_resume_too() -> None:
    begun = asyncio.Event()

    @node
    async def listens(items: Stream[int]) -> AsyncIterator[int]:
        begun.set()
        async for item in items:
            yield item

    @node
    async def waits_for_its_consumer() -> AsyncIterator[int]:
        await begun.wait()
        if "source" in BROKEN:
            raise RuntimeError("broken")
        yield 1

    graph, memory = Graph(), Early()
    graph.output("out", graph.add(listens, "listens", items=graph.add(waits_for_its_consumer)))
    BROKEN.add("source")
    with pytest.raises(NodeFailed):
        await hosted(memory).run(graph, run_id="r")
    assert memory.nodes["listens"].status == "idle"
    BROKEN.clear()
    begun.clear()
    async with asyncio.timeout(20):
        assert (await hosted(memory).resume("r", graph=graph)).outputs == {"out": [1]}
