"""With `finish_independent`, nodes that do not need a failed one come to their end before the run fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hookspecs import Cancelled, Completed, Failed, HookError, NodeInfo, Outcome, PluginHost, RunControl, RunInfo, hookimpl
from tests.workflow_runner.test_runs import Saving
from workflow_runner import Context, Graph, GraphInvalid, NodeChanged, NodeFailed, Stream, WorkflowRunner, node
from workflow_runner.actor import Actor
from workflow_runner.run import Run

LOG: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()


@node
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i
    LOG.append("count ended")


@node
async def slow(x: int) -> int:
    await asyncio.sleep(0.001)
    LOG.append(x)
    return x


@node
async def bad(x: int) -> int:
    raise RuntimeError(f"bad {x}")


@node
async def bad_stream(items: Stream[int]) -> AsyncIterator[int]:
    async for x in items:
        yield x
        raise RuntimeError("bad stream")


@node
async def below(x: int) -> int:
    LOG.append(("below", x))
    return x


@node
async def asks(x: int, context: Context) -> None:
    await asyncio.sleep(0.005)
    await context.checkpoint()


def fork(n: int = 300) -> Graph:
    """A source with three consumers: a good one, one that fails at once, a stream that fails after its first item."""
    graph = Graph(on_failure="finish_independent")
    source = graph.add(count, n=n)
    graph.output("good", graph.add(slow, x=source))
    graph.output("bad", graph.add(below, x=graph.add(bad, x=source)))
    graph.output("stream", graph.add(bad_stream, items=source))
    return graph


class Watcher:
    def __init__(self) -> None:
        self.ends: dict[str, type[Outcome]] = {}
        self.run_end: Outcome | None = None

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        self.ends[node.node_id] = type(outcome)

    @hookimpl
    async def after_run(self, run: RunInfo, outcome: Outcome) -> None:
        self.run_end = outcome


async def test_the_others_come_to_their_end_and_all_failures_are_told() -> None:
    watcher = Watcher()
    failed: list[str] = []
    runner = WorkflowRunner(plugins=PluginHost().register(watcher, "watcher"), edge_capacity=2)
    runner.subscribe(lambda e: failed.append(e.node_id) if isinstance(e, NodeChanged) and e.status == "failed" else None)
    with pytest.raises(NodeFailed) as raised:
        await runner.run(fork(), run_id="r")
    assert [x for x in LOG if x != "count ended"] == list(range(300))
    assert "count ended" in LOG
    first = raised.value
    assert sorted([first.node_id, *(other.node_id for other in first.others)]) == ["bad", "bad_stream"]
    assert sorted(failed) == ["bad", "bad_stream"]
    assert str(first.others[0]) in first.__notes__[0]
    assert watcher.ends == {"count": Completed, "slow": Completed, "bad": Failed, "bad_stream": Failed}
    assert isinstance(watcher.run_end, Failed) and watcher.run_end.node_id == first.node_id


async def test_a_fault_of_the_runner_itself_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: Run, actor: Actor, cause: BaseException) -> None:
        raise LookupError("a fault of the runner") from cause

    monkeypatch.setattr(Run, "node_failed", fault)
    async with asyncio.timeout(30):
        with pytest.raises(LookupError, match="a fault of the runner"):
            await WorkflowRunner(edge_capacity=2).run(fork(10_000))
    assert len(LOG) < 10_000, "the others went on"
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_fail_fast_is_the_default_and_the_runner_wins_over_the_graph() -> None:
    with pytest.raises(NodeFailed) as raised:
        await WorkflowRunner(on_failure="fail_fast").run(fork())
    assert raised.value.others == ()
    assert len(LOG) < 300
    LOG.clear()
    graph = fork()
    graph.on_failure = None
    with pytest.raises(NodeFailed):
        await WorkflowRunner(on_failure="finish_independent").run(graph)
    assert len(LOG) == 301


async def test_the_limit_of_an_edge_ends_the_run_as_failed() -> None:
    with pytest.raises(NodeFailed):
        await WorkflowRunner(edge_capacity=2, max_edge_capacity=50).run(fork())
    assert 50 < len(LOG) < 300


async def test_an_error_of_a_plugin_ends_it_at_once() -> None:
    class Broken:
        @hookimpl
        async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Any) -> None:
            if node.node_id == "slow" and node.firing == 5:
                raise RuntimeError("hook")

    with pytest.raises(HookError) as raised:
        await WorkflowRunner(plugins=PluginHost().register(Broken(), "broken")).run(fork())
    assert any("bad" in note for note in raised.value.__notes__)
    assert len(LOG) <= 5


async def test_a_stop_comes_before_the_end() -> None:
    watcher = Watcher()
    runner = WorkflowRunner(plugins=PluginHost().register(watcher, "watcher"))
    third = asyncio.Event()
    runner.subscribe(lambda e: third.set() if isinstance(e, NodeChanged) and (e.node_id, e.firings) == ("slow", 3) else None)
    run = asyncio.ensure_future(runner.run(fork(10_000)))
    await third.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert isinstance(watcher.run_end, Cancelled)


async def test_a_body_that_still_runs_is_cancelled() -> None:
    watcher = Watcher()

    @node
    async def twice(by: int, items: Stream[int], context: Context) -> AsyncIterator[int]:
        LOG.append("waits")
        await asyncio.sleep(1_000)
        yield by

    graph = Graph()
    graph.output("out", graph.add(twice, by=graph.add(count, n=2), items=graph.add(count, n=2)))
    graph.output("good", graph.add(slow, x=graph.add(count, n=40)))
    runner = WorkflowRunner(plugins=PluginHost().register(watcher, "watcher"), on_failure="finish_independent")
    with pytest.raises(NodeFailed, match="brought a second"):
        await runner.run(graph)
    assert [x for x in LOG if isinstance(x, int)] == list(range(40))
    assert watcher.ends["slow"] is Completed


async def test_what_a_body_yields_after_its_node_has_failed_is_refused() -> None:
    """Its node failed while it waited for something else, and it goes on where it was cancelled for that; it fails once."""
    went_on = asyncio.Event()

    def refuse() -> None:
        raise OSError("nobody is there")

    @node
    async def goes_on(context: Context) -> AsyncIterator[int]:
        yield 0
        context.on_durable(refuse)
        context.commit()
        try:
            await asyncio.gather(context.checkpoint(), asyncio.sleep(60))
        except asyncio.CancelledError:
            LOG.append("goes on")
            went_on.set()
        yield 1

    @node
    async def is_not_over() -> None:
        await went_on.wait()

    graph = Graph(on_failure="finish_independent")
    graph.output("out", graph.add(below, x=graph.add(goes_on, "goes_on")))
    graph.add(is_not_over)
    runner = WorkflowRunner(plugins=PluginHost().register(Saving(), name="saving"))
    async with asyncio.timeout(20):
        with pytest.raises(NodeFailed, match="nobody is there") as failed:
            await runner.run(graph)
    assert failed.value.node_id == "goes_on"
    assert failed.value.others == ()
    assert LOG == [("below", 0), "goes on"]


async def test_a_node_that_has_failed_is_not_tried_again() -> None:
    def refuse() -> None:
        raise OSError("upstream is away")

    @node(retries=3, backoff=0)
    async def acknowledges(context: Context) -> AsyncIterator[int]:
        if context.attempt == 1:
            context.on_durable(refuse)
        for i in range(8):
            yield i
            context.commit(i + 1)
            await asyncio.sleep(0.005)
        LOG.append("went on")

    graph = Graph(on_failure="finish_independent")
    graph.output("acknowledged", graph.add(acknowledges, "a"))
    graph.output("good", graph.add(slow, x=graph.add(count, n=50)))
    graph.add(asks, "asks", x=1)
    saving = Saving()
    async with asyncio.timeout(20):
        with pytest.raises(NodeFailed, match="node 'a' of run 'r' failed: OSError: upstream is away"):
            await WorkflowRunner(plugins=PluginHost().register(saving, "saving")).run(graph, run_id="r")
    assert "went on" not in LOG
    assert LOG[-1] == 49


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_failure_that_ends_nothing_is_saved_where_failures_are(wanted: bool) -> None:
    class Chooses(Saving):
        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            control.save_at(*(["error"] if wanted else []))

    saving = Chooses()
    with pytest.raises(NodeFailed):
        await WorkflowRunner(plugins=PluginHost().register(saving, "saving")).run(fork(10))
    assert {reason for reason, _ in saving.cuts} == ({"error"} if wanted else set())


def test_it_is_checked_and_stands_in_the_document() -> None:
    document = fork().to_document()
    assert document["on_failure"] == "finish_independent"
    assert Graph.from_document(document).on_failure == "finish_independent"
    with pytest.raises(GraphInvalid, match="one of fail_fast, finish_independent"):
        Graph.from_document({**document, "on_failure": "ignore"})
    with pytest.raises(ValueError, match="on_failure"):
        WorkflowRunner(on_failure="ignore")  # type: ignore[arg-type]
