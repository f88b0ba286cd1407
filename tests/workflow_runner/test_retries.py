"""Steps that fail are run again from their last commit point; tries that take too long are given up."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from hookspecs import Completed, Failed, NodeInfo, Outcome, PluginHost, RunInfo, hookimpl
from workflow_runner import (
    Backoff,
    Context,
    Event,
    Graph,
    GraphInvalid,
    Node,
    NodeDefinitionError,
    NodeFailed,
    NodeRetried,
    NodeTimeout,
    ReplayDiverged,
    RunStopped,
    Stream,
    WorkflowRunner,
    node,
)
from workflow_runner.failure import FailurePolicy
from workflow_runner.node import node_type_of
from workflow_runner.streaming import StreamingActor

LOG: list[Any] = []
FAILURES: list[BaseException] = []
"""What the next tries raise."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    LOG.clear()
    FAILURES.clear()


def fail() -> None:
    if FAILURES:
        raise FAILURES.pop(0)


@node
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@node(retries=1, backoff=0)
async def flaky_total(items: Stream[int]) -> int:
    found = 0
    async for x in items:
        found += x
    fail()
    return found


class Read(list[Any]):
    """Counts in `LOG` the items that are read of it, those of copies as well."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        LOG.extend(found if isinstance(at, slice) else (found,))
        return found


@pytest.mark.parametrize("n", [100, 400])
async def test_a_step_run_again_reads_each_item_of_its_script_once(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rewind = StreamingActor.rewind

    def watch(actor: StreamingActor) -> None:
        actor.taken = Read(actor.taken)
        rewind(actor)

    monkeypatch.setattr(StreamingActor, "rewind", watch)
    FAILURES.append(ValueError("once"))
    graph = Graph()
    graph.output("out", graph.add(flaky_total, items=graph.add(count, n=n)))
    assert (await WorkflowRunner().run(graph)).outputs["out"] == [sum(range(n))]
    assert n <= len(LOG) <= 3 * n


@node(retries=2, backoff=0, retry_on=(OSError, TimeoutError))
async def flaky(x: int, context: Context) -> int:
    LOG.append((x, context.idempotency_key))
    context.commit("not final before the body returns")
    fail()
    return x * 10


@node(retries=2, backoff=0)
def flaky_thread(x: int) -> int:
    LOG.append(x)
    fail()
    return x * 10


@node(retries=5, backoff=0)
async def flaky_stream(items: Stream[int], context: Context) -> AsyncIterator[int]:
    state = context.state or {"sum": 0}
    LOG.append(("begins", state["sum"]))
    async for x in items:
        LOG.append((x, context.idempotency_key))
        state["sum"] += x
        yield state["sum"]
        if x % 3 == 2:
            fail()
            context.commit(state)
            state["spoilt"] = state.get("spoilt", 0) + 1
            assert state["spoilt"] == 1 + (context.state.get("spoilt", 0))


@node(retries=3, backoff=0)
def flaky_generator(n: int, context: Context) -> Iterator[int]:
    LOG.append("begins")
    try:
        for i in range(n):
            yield i
            fail()
    finally:
        LOG.append("cleans up")


def graph_of(target: Any, n: int = 3, **options: Any) -> Graph:
    graph = Graph()
    flaky = graph.add(target, node_id="flaky", **options)
    graph.connect(graph.add(count, n=n), flaky, "items" if target is flaky_stream else "x")
    graph.output("out", flaky)
    return graph


async def test_a_plain_body_is_called_again_with_the_same_arguments_and_key() -> None:
    FAILURES[:] = [OSError("one"), TimeoutError("two")]
    result = await WorkflowRunner().run(graph_of(flaky))
    assert result.outputs == {"out": [0, 10, 20]}
    assert [x for x, _ in LOG] == [0, 0, 0, 1, 2]
    assert len({key for _, key in LOG}) == 3
    assert len({key for _, key in LOG[:3]}) == 1


class Lazy(Mapping[str, int]):
    """Outputs that are made when they are read."""

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> int:
        if name == "b":
            fail()
        return 7


class Hears:
    @hookimpl
    async def after_node(self, node: NodeInfo) -> None: ...


@pytest.mark.parametrize("held", [False, True])
async def test_outputs_that_cannot_all_be_read_are_not_sent_at_all(held: bool) -> None:
    @node(outputs=("a", "b"), retries=1, backoff=0)
    async def lazy(x: int) -> Mapping[str, int]:
        return Lazy()

    FAILURES[:] = [OSError("not yet")]
    graph = Graph()
    both = graph.add(lazy, x=1)
    for name in "ab":
        graph.output(name, both[name])
    plugins = PluginHost().register(Hears(), "hears") if held else None
    assert (await WorkflowRunner(plugins=plugins).run(graph)).outputs == {"a": [7], "b": [7]}


async def test_after_the_last_try_the_node_fails() -> None:
    FAILURES[:] = [OSError(f"{i}") for i in range(9)]
    with pytest.raises(NodeFailed) as failed:
        await WorkflowRunner().run(graph_of(flaky))
    assert str(failed.value.__cause__) == "2"
    assert len(LOG) == 3


class Wordless(OSError):
    """Cannot be told."""

    def __str__(self) -> str:
        raise LookupError("no words")


async def test_an_error_whose_text_cannot_be_had_is_tried_again_and_told() -> None:
    FAILURES[:] = [Wordless()]
    assert (await WorkflowRunner().run(graph_of(flaky, n=1))).outputs == {"out": [0]}
    FAILURES[:] = [Wordless() for _ in range(9)]
    with pytest.raises(NodeFailed, match=r"failed: Wordless: \(its text cannot be had: LookupError\)") as failed:
        await WorkflowRunner().run(graph_of(flaky, n=1))
    assert type(failed.value.__cause__) is Wordless


async def test_every_firing_has_its_own_retries() -> None:
    graph = graph_of(flaky_thread, n=2)
    FAILURES[:] = [OSError(), OSError()]
    await WorkflowRunner().run(graph)
    assert LOG == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "error",
    [ValueError("not in retry_on"), asyncio.CancelledError(), ReplayDiverged("r", "n", 1, 0)],
    ids=lambda error: type(error).__name__,
)
async def test_other_errors_are_not_tried_again(error: BaseException) -> None:
    FAILURES[:] = [error]
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(graph_of(flaky))
    assert len(LOG) == 1


async def test_a_divergence_within_a_group_is_not_tried_again() -> None:
    FAILURES[:] = [ExceptionGroup("tasks", [OSError(), ReplayDiverged("r", "n", 1, 0)])]
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(graph_of(flaky_thread))
    assert LOG == [0]


async def test_a_stream_goes_on_at_its_last_commit() -> None:
    FAILURES[:] = [OSError(), OSError()]
    result = await WorkflowRunner(edge_capacity=1).run(graph_of(flaky_stream, n=7))
    assert result.outputs == {"out": [0, 1, 3, 6, 10, 15, 21]}
    items = [entry[0] for entry in LOG]
    assert items == ["begins", 0, 1, 2, "begins", 0, 1, 2, "begins", 0, 1, 2, 3, 4, 5, 6]
    keys: dict[int, set[str]] = {}
    for x, key in LOG:
        if x != "begins":
            keys.setdefault(x, set()).add(key)
    assert all(len(same) == 1 for same in keys.values())


@pytest.mark.parametrize("fails_once_at", [{0, 1}, {0, 1, 2}])
async def test_a_streaming_node_has_its_retries_for_all_of_its_items_together(fails_once_at: set[int]) -> None:
    left = set(fails_once_at)

    @node(retries=2, backoff=0)
    async def commits_each(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for x in items:
            if x in left:
                left.remove(x)
                raise OSError(x)
            yield x
            context.commit()

    graph = Graph()
    graph.output("out", graph.add(commits_each, items=graph.add(count, n=3)))
    if len(fails_once_at) > 2:
        with pytest.raises(NodeFailed, match="failed: OSError: 2"):
            await WorkflowRunner().run(graph)
    else:
        assert (await WorkflowRunner().run(graph)).outputs == {"out": [0, 1, 2]}


async def test_a_commit_is_not_undone() -> None:
    @node(retries=1, backoff=0)
    async def late(items: Stream[int], context: Context) -> AsyncIterator[int]:
        state = context.state or [0]
        async for x in items:
            state[0] += x
            yield state[0]
            context.commit(state)
            if x == 2:
                state[0] = 1_000  # the committed one is a copy
                fail()

    graph = Graph()
    graph.output("out", graph.add(late, items=graph.add(count, n=5)))
    FAILURES[:] = [OSError()]
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [0, 1, 3, 6, 10]}


async def test_what_a_try_that_failed_wanted_called_is_not_called() -> None:
    @node(retries=1, backoff=0)
    async def acknowledges(x: int, context: Context) -> int:
        attempt = context.attempt
        context.on_durable(lambda: LOG.append((x, attempt)))
        fail()
        return x

    FAILURES[:] = [OSError()]
    assert (await WorkflowRunner().run(graph_of(acknowledges, n=2))).outputs == {"out": [0, 1]}
    assert LOG == [(0, 2), (1, 1)]


async def test_a_commit_before_what_the_step_had_emitted_is_told() -> None:
    @node(retries=2, backoff=0)
    async def commits_first(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for x in items:
            if context.attempt == 2:
                context.commit()
            yield x
            fail()

    FAILURES[:] = [OSError()]
    graph = Graph()
    graph.output("out", graph.add(commits_first, items=graph.add(count, n=5)))
    with pytest.raises(NodeFailed) as failed:
        await WorkflowRunner().run(graph)
    assert isinstance(failed.value.__cause__, ReplayDiverged)


@pytest.mark.parametrize("outputs", [("output",), ("output", "output"), ("a", "b")])
async def test_what_a_try_had_yielded_is_emitted_once_whatever_gets_it(outputs: tuple[str, ...]) -> None:
    @node(retries=1, backoff=0)
    async def yields_one() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            if number == 2:
                fail()

    @node(outputs=("a", "b"), retries=1, backoff=0)
    async def yields_both() -> AsyncIterator[Mapping[str, int]]:
        for number in range(5):
            yield {"a": number, "b": number}
            if number == 2:
                fail()

    FAILURES[:] = [OSError()]
    graph = Graph()
    source = graph.add(yields_both if "a" in outputs else yields_one)
    for number, name in enumerate(outputs):
        graph.output(f"out{number}", source[name])
    assert list((await WorkflowRunner().run(graph)).outputs.values()) == [[0, 1, 2, 3, 4]] * len(outputs)


async def test_a_generator_in_a_thread_repeats_what_it_had_yielded() -> None:
    FAILURES[:] = [OSError()]
    graph = Graph()
    graph.output("out", graph.add(flaky_generator, n=3))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [0, 1, 2]}
    assert LOG == ["begins", "cleans up", "begins", "cleans up"]


async def test_what_a_body_does_while_it_is_closed_does_not_count() -> None:
    seen = asyncio.Event()

    @node(retries=1, backoff=0, timeout=0.2)
    async def untidy(context: Context) -> AsyncIterator[int]:
        LOG.append(context.state)
        try:
            for i in range(4):
                yield i  # waits here for the consumer, until it is too late
        finally:
            if len(LOG) == 1:
                seen.set()
                context.commit("cleaned up")

    @node
    async def patient(x: int) -> int:
        await seen.wait()
        return x

    graph = Graph()
    graph.output("out", graph.add(patient, x=graph.add(untidy)))
    assert (await WorkflowRunner(edge_capacity=1).run(graph)).outputs == {"out": [0, 1, 2, 3]}
    assert LOG == [None, None]


class Watcher:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    @hookimpl
    async def before_node(self, run: RunInfo, node: NodeInfo, inputs: Mapping[str, Any]) -> None:
        if node.node_id == "flaky":
            self.told.append(("before", node.firing, node.attempt, dict(inputs)))

    @hookimpl
    async def after_node(self, run: RunInfo, node: NodeInfo, outcome: Outcome) -> None:
        if node.node_id == "flaky":
            seconds = outcome.retry_seconds if isinstance(outcome, Failed) else None
            self.told.append(("after", node.firing, node.attempt, type(outcome), seconds))


async def test_hooks_and_events_tell_every_try() -> None:
    watcher = Watcher()
    events: list[Event] = []
    FAILURES[:] = [OSError("one"), OSError("two")]
    runner = WorkflowRunner(plugins=PluginHost().register(watcher, "watcher"), on_event=events.append)
    await runner.run(graph_of(flaky, n=1, failure={"backoff": [0, 0.01]}), run_id="r")
    assert watcher.told == [
        ("before", 1, 1, {"x": 0}),
        ("after", 1, 1, Failed, 0),
        ("before", 1, 2, {"x": 0}),
        ("after", 1, 2, Failed, 0.01),
        ("before", 1, 3, {"x": 0}),
        ("after", 1, 3, Completed, None),
    ]
    retried = [event for event in events if isinstance(event, NodeRetried)]
    assert [(event.attempt, event.delay_seconds, str(event.error)) for event in retried] == [(2, 0, "one"), (3, 0.01, "two")]


async def test_a_wait_for_a_retry_is_no_deadlock_and_a_stop_ends_it() -> None:
    FAILURES[:] = [OSError()]
    runner = WorkflowRunner()
    waiting = asyncio.Event()
    runner.subscribe(lambda event: waiting.set() if isinstance(event, NodeRetried) else None)
    run = asyncio.ensure_future(runner.run(graph_of(flaky, failure={"backoff": 1_000})))
    await waiting.wait()
    await asyncio.sleep(0.05)
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(LOG) == 1


@pytest.mark.parametrize("stopped_in_try", [1, 2])
async def test_a_stop_ends_a_run_of_which_a_body_cleans_up_after_a_try_or_has_done_so(stopped_in_try: int) -> None:
    stands, goes_on = asyncio.Event(), asyncio.Event()

    @node(outputs=("a", "b"), retries=1, backoff=0 if stopped_in_try == 2 else 1_000)
    async def lazy(context: Context) -> AsyncIterator[Mapping[str, int]]:
        if context.attempt == 2:
            stands.set()
            await asyncio.sleep(1_000)
        try:
            yield Lazy()
        finally:
            if stopped_in_try == 1:
                stands.set()
                await goes_on.wait()

    FAILURES[:] = [OSError("not yet")]
    graph = Graph()
    both = graph.add(lazy)
    for name in "ab":
        graph.output(name, both[name])
    runner = WorkflowRunner(grace_seconds=10)
    async with asyncio.timeout(5):
        run = asyncio.ensure_future(runner.run(graph))
        await stands.wait()
        runner.stop("enough")
        for _ in range(9):  # whoever does not clean up is cancelled
            await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(RunStopped):
            await run


# Timeouts.


@node
async def slow(x: int) -> int:
    LOG.append(x)
    await asyncio.sleep(1_000 if len(LOG) == 1 else 0)
    return x


async def test_a_try_that_takes_too_long_fails() -> None:
    with pytest.raises(NodeFailed) as failed:
        await WorkflowRunner().run(graph_of(slow, failure={"timeout": 0.02}))
    assert isinstance(failed.value.__cause__, NodeTimeout)
    assert "within 0.02 s" in str(failed.value.__cause__)


async def test_each_try_has_the_whole_timeout() -> None:
    result = await WorkflowRunner().run(graph_of(slow, failure={"timeout": 0.05, "retries": 1, "backoff": 0}))
    assert result.outputs == {"out": [0, 1, 2]}
    assert LOG == [0, 0, 1, 2]


async def test_a_timeout_error_of_the_body_is_its_own() -> None:
    FAILURES[:] = [TimeoutError("mine")]
    with pytest.raises(NodeFailed) as failed:
        await WorkflowRunner().run(graph_of(flaky, failure={"timeout": 60, "retries": 0}))
    assert str(failed.value.__cause__) == "mine"


async def test_a_try_that_commits_where_the_one_before_did_not_goes_on_with_what_that_one_had_read() -> None:
    """By the clock, say."""

    @node(retries=2, backoff=0)
    async def commits_more_often(items: Stream[int], context: Context) -> list[int]:
        found: list[int] = context.state or []
        async for x in items:
            LOG.append(x)
            found.append(x)
            if context.attempt == 2:
                context.commit(found)
            if x == 2:
                fail()
        return found

    FAILURES[:] = [OSError(), OSError()]
    graph = Graph()
    graph.output("out", graph.add(commits_more_often, items=graph.add(count, n=5)))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [[0, 1, 2, 3, 4]]}
    assert LOG == [0, 1, 2, 0, 1, 2, 3, 4]


async def all_of(items: Stream[int]) -> list[int]:
    return [item async for item in items]


@pytest.mark.parametrize("way", ["at once", "one after the other"])
async def test_a_try_that_reads_its_streams_in_another_order_is_given_what_each_had_brought(way: str) -> None:
    @node(retries=1, backoff=0)
    async def reads_both(a: Stream[int], b: Stream[int], context: Context) -> list[list[int]]:
        if context.attempt == 1:
            await anext(b)
            await all_of(a)
            await all_of(b)
            raise OSError("away")
        if way == "at once":
            return list(await asyncio.gather(all_of(a), all_of(b)))
        of_b = [await anext(b)]
        of_a = [await anext(a), *await all_of(a)]
        return [of_a, [*of_b, *await all_of(b)]]

    graph = Graph()
    graph.output("out", graph.add(reads_both, a=graph.add(count, n=3), b=graph.add(count, n=3)))
    async with asyncio.timeout(10):
        assert (await WorkflowRunner().run(graph)).outputs == {"out": [[[0, 1, 2], [0, 1, 2]]]}


@pytest.mark.parametrize("emits", [False, True])
async def test_a_task_that_reads_in_another_order_than_it_had_is_told(emits: bool) -> None:
    """It would wait for a read that is to come from itself."""

    @node(retries=1, backoff=0)
    async def reads_both(a: Stream[int], b: Stream[int], context: Context) -> AsyncIterator[int]:
        for stream in (a, b, a) if context.attempt == 1 else (b, a, a):
            item = await anext(stream)
            if emits:
                yield item
        raise OSError("away")

    graph = Graph()
    graph.output("out", graph.add(reads_both, "reads", a=graph.add(count, n=3), b=graph.add(count, n=3)))
    async with asyncio.timeout(10):
        with pytest.raises(NodeFailed) as failed:
            await WorkflowRunner().run(graph)
    assert isinstance(failed.value.__cause__, ReplayDiverged)
    assert "it read edge 'e1' where it had read 'e0'. Yield first, then commit" in str(failed.value)


async def test_another_task_may_read_later_what_it_had_read_sooner() -> None:
    @node(retries=1, backoff=0)
    async def reads_both(a: Stream[int], b: Stream[int], context: Context) -> list[int]:
        async def one(stream: Stream[int], turns: int) -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await anext(stream)

        first = asyncio.create_task(one(a, 20 if context.attempt == 2 else 0))
        await asyncio.sleep(0)
        second = await one(b, 0 if context.attempt == 2 else 9)
        if context.attempt == 1:
            raise OSError("away")
        return [await first, second]

    graph = Graph()
    graph.output("out", graph.add(reads_both, a=graph.add(count, n=3), b=graph.add(count, n=3)))
    async with asyncio.timeout(10):
        assert (await WorkflowRunner().run(graph)).outputs == {"out": [[0, 0]]}


async def test_a_try_that_comes_to_the_end_of_a_stream_sooner_goes_on_with_what_is_left_of_the_others() -> None:
    @node(retries=1, backoff=0)
    async def reads_both(a: Stream[int], b: Stream[int], context: Context) -> list[list[int]]:
        if context.attempt == 1:
            await anext(b)
            await anext(a)
            for _ in range(9):  # both have ended
                await asyncio.sleep(0)
            raise OSError("away")
        of_b = await all_of(b)
        return [await all_of(a), of_b]

    graph = Graph()
    graph.output("out", graph.add(reads_both, a=graph.add(count, n=1), b=graph.add(count, n=1)))
    async with asyncio.timeout(10):
        assert (await WorkflowRunner().run(graph)).outputs == {"out": [[[0], [0]]]}


async def test_a_thread_is_left_and_what_it_asks_later_is_refused() -> None:
    release, ended = threading.Event(), threading.Event()

    @node(timeout=0.05, retries=1, backoff=0)
    def stubborn(x: int, context: Context) -> int:
        LOG.append(x)
        if len(LOG) > 1:
            return x
        release.wait()
        for _ in range(2):  # it may ask again while it cleans up, and nobody is there any more
            try:
                context.commit("too late")
            except asyncio.CancelledError as error:
                LOG.append(str(error))
        ended.set()
        return 99

    graph = Graph()
    graph.output("out", graph.add(stubborn, x=1))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [1]}
    release.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert LOG[:2] == [1, 1]
    assert [("took too long" in told or "was stopped" in told) for told in LOG[2:]] == [True, True]


# How it is declared.


def test_declarations_are_checked() -> None:
    for wrong in (
        {"retries": -1},
        {"retries": True},
        {"backoff": -1},
        {"backoff": "1"},
        {"backoff": [1, -1]},
        {"backoff": {"initial": 1, "unit": "s"}},
        {"backoff": {"initial": 1, "jitter": -1}},
        {"retry_on": BaseException},
        {"retry_on": ["OSError"]},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"replayable": 1},
    ):
        with pytest.raises(NodeDefinitionError, match="body"):

            @node(**wrong)
            async def body(x: int) -> int:
                return x

    with pytest.raises(ValueError, match="factor"):
        Backoff(factor=0.5)


@pytest.mark.parametrize(("backoff", "seconds"), [(0, 0.0), ({"initial": 1, "jitter": 0}, 60.0)])
def test_a_backoff_has_no_other_wait_after_a_thousand_tries(backoff: Any, seconds: float) -> None:
    policy = FailurePolicy().overridden({"retries": 5_000, "backoff": backoff})
    assert {policy.delay(tries) for tries in (1_000, 1_024, 1_025, 5_000)} == {seconds}


async def test_a_class_declares_it_too() -> None:
    class Flaky(Node, retries=1, backoff=(0,), retry_on=OSError):
        x: int

        async def process(self, context: Context) -> int:
            fail()
            return self.x

    FAILURES[:] = [OSError()]
    graph = Graph()
    graph.output("out", graph.add(Flaky, x=4))
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [4]}

    class Once(Node, timeout=5, replayable=False):
        async def process(self) -> None: ...

    declared = node_type_of(Once)
    assert declared is not None
    assert (declared.failure.timeout, declared.failure.replayable) == (5, False)


async def test_the_document_overrides_it() -> None:
    graph = graph_of(flaky, n=1, failure={"retries": 0})
    document = graph.to_document()
    assert document["nodes"][0]["failure"] == {"retries": 0}
    again = Graph.from_tagged_json(graph.to_json())
    again.types = graph.types
    assert again.nodes == graph.nodes
    FAILURES[:] = [OSError()]
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(again)


@pytest.mark.parametrize(
    ("node_id", "failure", "message"),
    [
        (0, {"retry": 1}, "Did you mean 'retries'"),
        (0, {"retry_on": ["OSError"]}, "no option 'retry_on'"),
        (0, {"timeout": -1}, "timeout is a number above 0"),
        (0, {"timeout": "5"}, "timeout is a number above 0, not '5'"),
        (0, {"timeout": True}, "timeout is a number above 0"),
        (0, {"timeout": 10**400}, "timeout is a number above 0"),
        (0, {"backoff": [0, -(10**400)]}, "backoff is a number of at least 0"),
        (0, {"backoff": {"factor": 10**400}}, "backoff factor is a number of at least 1"),
        (0, {"backoff": {"jitter": float("nan")}}, "backoff jitter is a number of at least 0"),
        (0, "thrice", "is an object"),
        (2, {"retries": 1}, "cannot fail"),
    ],
)
def test_a_wrong_override_is_a_problem_of_the_graph(node_id: int, failure: Any, message: str) -> None:
    graph = graph_of(flaky)
    document = graph.to_document()
    document["nodes"][node_id]["failure"] = failure
    with pytest.raises(GraphInvalid, match=message):
        WorkflowRunner(nodes=[sys.modules[__name__]]).validate(document)


@node(retries=2, backoff=0)
async def counts_tries(x: int, context: Context) -> list[int]:
    LOG.append(context.attempt)
    fail()
    return [x, context.attempt]


@node(retries=2, backoff=0)
def counts_tries_in_a_thread(x: int, context: Context) -> list[int]:
    LOG.append(context.attempt)
    fail()
    return [x, context.attempt]


@pytest.mark.parametrize("target", [counts_tries, counts_tries_in_a_thread], ids=["coroutine", "thread"])
async def test_a_body_is_told_which_try_it_is(target: Any) -> None:
    FAILURES[:] = [ValueError(), ValueError()]
    graph = graph_of(target, n=2)
    assert (await WorkflowRunner().run(graph)).outputs == {"out": [[0, 3], [1, 1]]}
    assert LOG == [1, 2, 3, 1]


def test_the_name_of_an_exception_is_told_whole() -> None:
    async def fetch() -> int:
        return 1

    with pytest.raises(NodeDefinitionError, match="classes of exceptions, not 'OSError'"):
        node(retry_on="OSError")(fetch)  # type: ignore[arg-type]
