"""Failed nodes and stored runs, on both databases: retries that survive, independent branches that are not repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from checkpoint_plugin.loader import open_loader
from checkpoint_plugin.runs.jobs import JobRepository
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_plugin import Host, checkpoints, status
from tests.checkpoint_plugin.test_policy import look_at
from workflow_runner import CheckpointSaved, Context, Graph, NodeFailed, NodeRetried, Stream, WorkflowRunner, node

CALLS: list[Any] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    BROKEN.clear()


@node
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        CALLS.append(("count", i))
        yield i


@node
async def good(x: int) -> int:
    CALLS.append(("good", x))
    return x


@node
async def maybe(x: int) -> int:
    CALLS.append(("maybe", x))
    if "maybe" in BROKEN and x == 2:
        raise RuntimeError("maybe")
    return 10 * x


@node
async def sums(items: Stream[int], context: Context) -> AsyncIterator[int]:
    total = context.state or 0
    async for x in items:
        CALLS.append(("sums", x))
        total += x
        yield total
        if x % 2:
            context.commit(total)
        if "sums" in BROKEN and x == 4:
            raise RuntimeError("sums")


@node
async def below(x: int) -> int:
    CALLS.append(("below", x))
    return x


def fork(n: int = 6) -> Graph:
    graph = Graph(on_failure="finish_independent")
    source = graph.add(count, n=n)
    graph.output("good", graph.add(good, x=source))
    graph.output("maybe", graph.add(below, node_id="below_maybe", x=graph.add(maybe, x=source)))
    graph.output("sums", graph.add(below, node_id="below_sums", x=graph.add(sums, items=source)))
    return graph


WHOLE = {"good": [0, 1, 2, 3, 4, 5], "maybe": [0, 10, 20, 30, 40, 50], "sums": [0, 1, 3, 6, 10, 15]}


def runner(url: str, **settings: Any) -> WorkflowRunner:
    return WorkflowRunner(plugins=Host(url), edge_capacity=2, **settings)


@pytest.mark.parametrize("options", [True, {"every_firing": True}, {"every_nodes": 1}], ids=["default", "firing", "nodes"])
async def test_independent_branches_end_and_are_not_repeated(store_url: str, options: Any) -> None:
    BROKEN.update({"maybe", "sums"})
    with pytest.raises(NodeFailed) as raised:
        await runner(store_url).run(fork(), enable={"checkpoint": options}, run_id="r")
    assert len(raised.value.others) == 1
    assert await status(store_url) == "failed"
    nodes = await look_at(store_url)
    assert {name: nodes[name].status for name in ("count", "good", "maybe", "sums")} == {
        "count": "completed",
        "good": "completed",
        "maybe": "failed",
        "sums": "failed",
    }
    assert nodes["maybe"].error == "RuntimeError: maybe"
    before = list(CALLS)
    CALLS.clear()
    BROKEN.clear()
    result = await runner(store_url).resume("r", graph=fork())
    assert result.outputs == WHOLE
    assert not {name for name, _ in CALLS} & {"count", "good"}
    assert [x for name, x in CALLS if name == "maybe"] == [2, 3, 4, 5]
    assert [x for name, x in CALLS if name == "sums"] == [4, 5]
    assert len([x for name, x in [*before, *CALLS] if name == "below"]) == 12


async def test_one_is_mended_at_a_time(store_url: str) -> None:
    BROKEN.update({"maybe", "sums"})
    with pytest.raises(NodeFailed):
        await runner(store_url).run(fork(), enable={"checkpoint": True}, run_id="r")
    BROKEN.discard("sums")
    CALLS.clear()
    with pytest.raises(NodeFailed) as raised:
        await runner(store_url).resume("r", graph=fork())
    assert raised.value.node_id == "maybe"
    BROKEN.clear()
    CALLS.clear()
    assert (await runner(store_url).resume("r", graph=fork())).outputs == WHOLE
    assert {name for name, _ in CALLS} == {"maybe", "below"}


async def test_a_failure_is_saved_when_it_happens(store_url: str) -> None:
    saved = asyncio.Event()

    @node
    async def watches(x: int) -> int:
        await saved.wait()
        return x

    graph = Graph(on_failure="finish_independent")
    graph.add(maybe, x=2)
    graph.add(watches, x=2)
    BROKEN.add("maybe")
    made = runner(store_url, on_event=lambda event: saved.set() if isinstance(event, CheckpointSaved) else None)
    with pytest.raises(NodeFailed):
        await made.run(graph, enable={"checkpoint": True}, run_id="r")
    assert await checkpoints(store_url) == ["error", "error"]


@node(retries=3, backoff=1_000)
async def waits(items: Stream[int], context: Context) -> AsyncIterator[int]:
    CALLS.append(("try", context.idempotency_key))
    async for x in items:
        yield x
        if x == 1 and "waits" in BROKEN:
            raise RuntimeError("waits")


async def stop_in_backoff(url: str, start: Any) -> NodeSnapshot:
    """Stop a run while a node waits for its next try; what is stored of the node."""
    waiting = asyncio.Event()
    made = runner(url, on_event=lambda event: waiting.set() if isinstance(event, NodeRetried) else None)
    task = asyncio.ensure_future(start(made))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return (await look_at(url))["waits"]


async def test_a_cut_in_a_backoff_goes_on_with_the_try_that_was_waited_for(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(waits, items=graph.add(count, n=4)))
    BROKEN.add("waits")
    first = await stop_in_backoff(store_url, lambda made: made.run(graph, enable={"checkpoint": True}, run_id="r"))
    assert (first.attempt, first.emitted, [x for _, x in first.taken]) == (1, 2, [0, 1])
    second = await stop_in_backoff(store_url, lambda made: made.resume("r", graph=graph))
    assert second.attempt == 2
    BROKEN.clear()
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": [0, 1, 2, 3]}
    assert (await look_at(store_url))["waits"].attempt == 3
    assert len(CALLS) == 4 + 3
    assert len({key for name, key in CALLS if name == "try"}) == 1


async def test_tries_of_a_stored_run_are_limited_and_begin_anew_when_a_failed_one_is_resumed(store_url: str) -> None:
    graph = Graph()
    graph.add(maybe, x=2, failure={"retries": 2, "backoff": 0})
    BROKEN.add("maybe")
    for attempts in (3, 6):
        made = runner(store_url)
        going = made.run(graph, None, {"checkpoint": True}, "r") if attempts == 3 else made.resume("r", graph=graph)
        with pytest.raises(NodeFailed):
            await going
        assert len(CALLS) == attempts
        assert (await look_at(store_url))["maybe"].attempt == attempts


async def test_a_call_that_raises_when_its_node_is_over_is_told_by_the_run(store_url: str) -> None:
    def refuse() -> None:
        raise OSError("upstream is away")

    @node
    async def acknowledges(n: int, context: Context) -> int:
        context.on_durable(refuse)
        return n

    @node
    async def saves(context: Context) -> None:
        await asyncio.sleep(0.01)
        await context.checkpoint()
        await asyncio.sleep(0.01)

    graph = Graph(enable={"checkpoint": True})
    graph.output("out", graph.add(acknowledges, "a", n=1))
    graph.add(saves)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(graph, run_id="r")
    job = await JobRepository(url=store_url).get("r")
    assert (job.status, job.error) == ("failed", "node 'a' of run 'r' failed: OSError: upstream is away")


async def test_the_choice_is_stored_with_the_run(store_url: str) -> None:
    graph = fork()
    graph.on_failure = None
    BROKEN.update({"maybe"})
    with pytest.raises(NodeFailed):
        await runner(store_url, on_failure="finish_independent").run(graph, enable={"checkpoint": True}, run_id="r")
    CALLS.clear()
    BROKEN.clear()
    assert (await runner(store_url).resume("r", graph=graph)).outputs == WHOLE
    loader = open_loader(store_url)
    stored = await loader.load("r")
    await loader.close()
    assert stored.graph["on_failure"] == "finish_independent"
