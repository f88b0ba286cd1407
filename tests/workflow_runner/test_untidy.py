"""Bodies that leave something behind, listeners and hooks that misbehave: the run ends as it should, and never hangs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from hookspecs import (
    CheckpointRef,
    HookError,
    NodeInfo,
    Outcome,
    PluginHost,
    RunControl,
    RunExists,
    RunInfo,
    Snapshot,
    StoredRun,
    StoreError,
    hookimpl,
)
from workflow_runner import (
    Cancelled,
    Context,
    Event,
    Graph,
    NodeChanged,
    NodeFailed,
    NodeProtocolError,
    Progressed,
    ReplayDiverged,
    RunEnded,
    RunStarted,
    RunStopped,
    Stream,
    ThreadContext,
    WorkflowRunner,
    node,
)
from workflow_runner.body import YIELDS_A_TURN

PATIENCE_SECONDS = 20


@node
async def upto(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


@node
async def slowly(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number
        await asyncio.sleep(0.02)


async def outputs(graph: Graph, **settings: Any) -> dict[str, list[Any]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return dict((await WorkflowRunner(**settings).run(graph)).outputs)


# Threads.


@node
def counts(n: int) -> Iterator[int]:
    yield from range(n)


@node
def increased(x: int) -> int:
    return x + 1


@node
def total(items: Stream[int]) -> int:
    return sum(items)


async def test_bodies_that_read_streams_take_no_slot_from_those_that_feed_them() -> None:
    graph = Graph()
    fed = graph.add(increased, x=graph.add(counts, n=3))
    for number in range(3):
        graph.output(f"o{number}", graph.add(total, f"total{number}", items=fed))
    assert await outputs(graph, max_threads=1) == {f"o{number}": [6] for number in range(3)}


async def test_a_timeout_does_not_count_the_wait_for_a_slot() -> None:
    gate = asyncio.Event()
    begun: list[int] = []
    loop = asyncio.get_running_loop()

    @node
    def first(n: int) -> int:
        begun.append(n)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(PATIENCE_SECONDS)
        return n

    @node(timeout=1)
    def second(n: int) -> int:
        begun.append(n)
        return n

    graph = Graph()
    graph.output("a", graph.add(first, n=1))
    graph.output("b", graph.add(second, n=2))
    loop.call_later(1.2, gate.set)
    assert await outputs(graph, max_threads=1) == {"a": [1], "b": [2]}
    assert begun == [1, 2]


def in_a_helper(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@node
def reads_elsewhere(items: Stream[int]) -> int:
    return sum(in_a_helper(lambda: list(items)))


@node
def commits_elsewhere(items: Stream[int], context: Context) -> None:
    in_a_helper(lambda: context.commit(1))


@node
def asks_elsewhere(items: Stream[int], context: Context) -> None:
    in_a_helper(context.checkpoint)


@pytest.mark.parametrize("body", [reads_elsewhere, commits_elsewhere, asks_elsewhere])
async def test_only_the_thread_of_the_body_is_answered(body: Any) -> None:
    graph = Graph()
    graph.add(body, "b", items=graph.add(upto, n=3))
    with pytest.raises(NodeFailed, match="node 'b': only the thread that its body runs in is answered") as raised:
        await outputs(graph)
    assert isinstance(raised.value.__cause__, NodeProtocolError)


async def test_the_thread_of_a_body_does_not_hold_the_process() -> None:
    @node
    def is_let_go() -> bool:
        return threading.current_thread().daemon

    graph = Graph()
    graph.output("out", graph.add(is_let_go))
    assert await outputs(graph) == {"out": [True]}


@pytest.mark.parametrize("at", ["a read", "a yield"])
async def test_a_thread_that_waits_when_its_run_is_stopped_cleans_up_and_ends(at: str) -> None:
    stands = asyncio.Event()
    loop = asyncio.get_running_loop()
    runner = WorkflowRunner(grace_seconds=10, edge_capacity=1)
    cleaned_up: list[bool] = []

    @node
    async def one_and_no_more() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(3600)

    @node
    def reads(items: Stream[int]) -> Iterator[int]:
        mine = threading.get_ident()
        try:
            for item in items:
                loop.call_soon_threadsafe(stands.set)
                while at == "a yield":
                    yield item
        finally:
            cleaned_up.append(threading.get_ident() == mine)

    @node
    async def takes_nothing(items: Stream[int]) -> None:
        await asyncio.sleep(3600)

    graph = Graph()
    graph.add(takes_nothing, items=graph.add(reads, items=graph.add(one_and_no_more)))
    async with asyncio.timeout(5):
        running = asyncio.ensure_future(runner.run(graph))
        await stands.wait()
        await asyncio.sleep(0.02)
        runner.stop("enough")
        with pytest.raises(RunStopped):
            await running
    assert cleaned_up == [True]


async def test_a_body_that_suspends_in_a_thread_ends_there() -> None:
    ended = threading.Event()

    @node
    def asks(context: ThreadContext) -> None:
        try:
            context.suspend("why?")
        finally:
            ended.set()

    graph = Graph()
    graph.add(asks)
    async with asyncio.timeout(PATIENCE_SECONDS):
        result = await WorkflowRunner(plugins=PluginHost().register(Saving(), name="p")).run(graph)
    assert result.status == "suspended"
    assert await asyncio.to_thread(ended.wait, 5)


async def test_every_thread_of_a_body_may_tell_its_progress() -> None:
    told: list[Progressed] = []

    @node
    def works(n: int, context: Context) -> int:
        context.progress(0, n)
        in_a_helper(lambda: context.progress(1, n))
        context.progress(2, n)
        left.append(lambda: context.progress(3, n))
        return n

    left: list[Callable[[], None]] = []
    graph = Graph()
    graph.output("out", graph.add(works, n=2))
    assert await outputs(graph, on_event=lambda event: told.append(event) if isinstance(event, Progressed) else None) == {
        "out": [2]
    }
    late = threading.Thread(target=left[0], daemon=True)  # the body is over
    late.start()
    await asyncio.to_thread(late.join, 5)
    assert not late.is_alive()
    assert [(event.done, event.total) for event in told] == [(0, 2), (1, 2), (2, 2)]


async def test_a_listener_that_raises_at_the_progress_of_another_thread_ends_the_run() -> None:
    @node
    def works(n: int, context: Context) -> int:
        in_a_helper(lambda: context.progress(1, n))
        return n + context.attempt  # which is asked of the event loop

    def raising(event: Event) -> None:
        if isinstance(event, Progressed):
            raise RuntimeError("listener")

    graph = Graph()
    graph.add(works, n=2)
    with pytest.raises(RuntimeError, match="listener"):
        await outputs(graph, on_event=raising)


# Reads that a body leaves behind.


async def test_a_read_that_a_body_leaves_behind_is_no_wait_of_the_run() -> None:
    left: list[asyncio.Task[int]] = []

    @node
    async def first(items: Stream[int]) -> int:
        reader = aiter(items)
        found = await anext(reader)
        left.append(asyncio.ensure_future(anext(reader)))  # a read ahead, which nobody awaits
        await asyncio.sleep(0)
        return found

    @node
    async def rests(x: int) -> int:
        await asyncio.sleep(0.02)  # nobody waits at an edge meanwhile, and the run is not stuck
        return x

    graph = Graph()
    source = graph.add(slowly, n=3)
    graph.output("first", graph.add(first, items=source))
    graph.output("all", graph.add(rests, x=source))
    assert await outputs(graph) == {"first": [0], "all": [0, 1, 2]}
    assert left[0].cancelled()


async def test_a_read_that_a_try_leaves_behind_does_not_stand_in_the_way_of_the_next() -> None:
    left: list[asyncio.Task[int]] = []

    @node(retries=1, backoff=0)
    async def flaky(items: Stream[int], context: Context) -> AsyncIterator[int]:
        reader = aiter(items)
        if context.attempt == 1:
            left.append(asyncio.ensure_future(anext(reader)))
            await asyncio.sleep(0)
            raise OSError("flaky")
        async for item in reader:
            yield item

    @node
    async def late(n: int) -> AsyncIterator[int]:
        await asyncio.sleep(0.02)
        for number in range(n):
            yield number

    graph = Graph()
    graph.output("out", graph.add(flaky, items=graph.add(late, n=3)))
    assert await outputs(graph) == {"out": [0, 1, 2]}
    assert left[0].cancelled()


async def test_a_read_that_a_try_leaves_behind_does_not_hide_that_everybody_waits() -> None:
    """The next try reads the end first: it is reached only because an edge grows when all wait."""
    left, tried_again = list[asyncio.Future[int]](), asyncio.Event()

    @node(outputs=("begin", "end"))
    async def in_halves(n: int) -> AsyncIterator[dict[str, int]]:
        await tried_again.wait()
        for name in ("begin", "end"):
            for number in range(n):
                yield {name: number}

    @node(retries=1, backoff=0)
    async def end_first(begin: Stream[int], end: Stream[int], context: Context) -> list[int]:
        if context.attempt == 1:
            left.append(asyncio.ensure_future(anext(end)))
            for _ in range(5):
                await asyncio.sleep(0)
            raise OSError("away")
        tried_again.set()
        return [*[x async for x in end], *[x async for x in begin]]

    graph = Graph()
    parts = graph.add(in_halves, n=5)
    graph.output("out", graph.add(end_first, begin=parts["begin"], end=parts["end"]))
    found = await outputs(graph, edge_capacity=1)
    assert left[0].cancelled()
    assert found == {"out": [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]]}


@pytest.mark.parametrize("plugins", [[], ["p"]])
async def test_what_a_try_left_behind_reads_nothing_of_the_next(plugins: list[str]) -> None:
    tries: list[list[int]] = []

    @node(retries=1, backoff=0)
    async def both(a: Stream[int], b: Stream[int]) -> list[int]:
        found: list[int] = []
        tries.append(found)

        async def read_a() -> None:
            found.extend([x async for x in a])
            if len(tries) == 1:
                raise OSError("flaky")

        async def read_b() -> None:
            await asyncio.sleep(0.02)  # it is no read that is cut short when the other half fails
            found.extend([x async for x in b])

        await asyncio.gather(read_a(), read_b())  # which leaves that one running
        return sorted(found)

    host = PluginHost()
    for name in plugins:
        host.register(Saving(), name=name)
    graph = Graph()
    graph.output("out", graph.add(both, a=graph.add(upto, "a", n=2), b=graph.add(upto, "b", n=3)))
    assert await outputs(graph, plugins=host) == {"out": [[0, 0, 1, 1, 2]]}
    assert tries[0] == [0, 1]


async def test_a_read_that_was_woken_when_its_body_ended_takes_nothing_and_waits_no_more() -> None:
    left: list[asyncio.Task[int]] = []
    gate = asyncio.Event()

    @node
    async def first(items: Stream[int]) -> int:
        found = await anext(items)
        left.append(asyncio.ensure_future(anext(items)))
        await gate.wait()
        return found

    @node
    async def opens(n: int) -> AsyncIterator[int]:
        yield n
        await asyncio.sleep(0.01)
        gate.set()  # the body goes on first, the read after it
        yield n
        await asyncio.sleep(0.01)

    @node
    async def rests(n: int) -> int:
        await asyncio.sleep(0.05)
        return n

    graph = Graph()
    graph.output("first", graph.add(first, items=graph.add(opens, n=1)))
    graph.output("rested", graph.add(rests, n=2))
    assert await outputs(graph) == {"first": [1], "rested": [2]}
    with pytest.raises(Cancelled, match="this try of node 'first' is over"):
        left[0].result()


def commits(context: Context) -> None:
    context.commit(1)


def stages(context: Context) -> None:
    context.on_durable(lambda: None)


def progresses(context: Context) -> None:
    context.progress(1)


def looks(context: Context) -> None:
    assert context.is_resuming in (True, False)


def makes_a_key(context: Context) -> None:
    assert context.idempotency_key


async def asks(context: Context) -> None:
    await context.checkpoint()


async def suspends(context: Context) -> None:
    await context.suspend("why")


USES = [commits, stages, progresses, looks, makes_a_key, asks, suspends]


@pytest.mark.parametrize("over_an_edge", [True, False])
@pytest.mark.parametrize("use", USES)
async def test_the_context_of_a_firing_that_is_over_does_nothing(use: Callable[[Context], Any], over_an_edge: bool) -> None:
    kept: list[Context] = []
    found: list[BaseException | None] = []

    async def leftover(context: Context) -> None:
        await asyncio.sleep(0.01)
        try:
            waits = use(context)
            if waits is not None:
                await waits
        except BaseException as error:
            found.append(error)

    @node
    async def leaves(x: int, context: Context) -> int:
        if not kept:
            tasks.append(asyncio.ensure_future(leftover(context)))
        else:
            await asyncio.sleep(0.03)  # the next firing of this node goes on meanwhile
        kept.append(context)
        return x + context.attempt

    tasks: list[asyncio.Task[None]] = []
    graph = Graph()
    graph.output("out", graph.add(leaves, "n", x=graph.add(upto, n=2) if over_an_edge else 0))
    async with asyncio.timeout(PATIENCE_SECONDS):
        runner = WorkflowRunner(plugins=PluginHost().register(Saving(), name="p"))
        assert (await runner.run(graph)).outputs == {"out": [1, 2] if over_an_edge else [1]}
        await asyncio.wait(tasks)
    (error,) = found
    assert isinstance(error, Cancelled)
    assert str(error) == "this try of node 'n' is over and counts no more"
    assert (kept[0].node_id, kept[0].state, kept[0].attempt) == ("n", None, 1)


async def test_a_second_item_of_a_plain_input_fails_a_body_that_would_never_end() -> None:
    begun = asyncio.Event()

    @node
    async def one_and_later_another() -> AsyncIterator[int]:
        yield 1
        await begun.wait()
        yield 2

    @node
    async def never_ends(limit: int, items: Stream[int]) -> int:
        begun.set()
        await asyncio.sleep(3600)
        return limit

    graph = Graph()
    graph.add(never_ends, limit=graph.add(one_and_later_another), items=graph.add(upto, n=1))
    with pytest.raises(NodeFailed, match=r"handle 'limit'.*brought a second"):
        await outputs(graph)


async def test_the_end_of_a_plain_input_is_no_second_item_of_it() -> None:
    begun = asyncio.Event()

    @node
    async def one_and_ends_later() -> AsyncIterator[int]:
        yield 1
        await begun.wait()

    @node
    async def reads(limit: int, items: Stream[int]) -> int:
        begun.set()
        for _ in range(9):  # meanwhile it ends
            await asyncio.sleep(0)
        return limit + len([item async for item in items])

    graph = Graph()
    graph.output("out", graph.add(reads, limit=graph.add(one_and_ends_later), items=graph.add(upto, n=1)))
    assert await outputs(graph) == {"out": [2]}


async def test_a_second_item_of_a_plain_input_that_comes_after_the_body_names_the_handle() -> None:
    @node
    async def twice() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.02)
        yield 2

    @node
    async def reads(items: Stream[int], k: int) -> int:
        return k + len([item async for item in items])

    graph = Graph()
    graph.output("out", graph.add(reads, items=graph.add(upto, n=1), k=graph.add(twice)))
    with pytest.raises(NodeFailed, match="handle 'k': a plain input of a streaming node takes exactly one item"):
        await outputs(graph)


async def test_each_read_in_arrival_order_is_a_step_with_a_key_of_its_own_also_with_nothing_stored() -> None:
    keys: list[str] = []

    @node
    async def reads(some: Stream[int], others: Stream[int], context: Context) -> None:
        async for _ in context.arrivals(some, others):
            keys.append(context.idempotency_key)

    graph = Graph()
    graph.add(reads, some=graph.add(upto, n=3), others=graph.add(upto, n=3))
    await outputs(graph)
    assert len(set(keys)) == len(keys) == 6


async def test_a_stateless_node_that_emits_nothing_passes_a_commit_at_each_read() -> None:
    told: list[tuple[str, int]] = []

    @node(stateless=True)
    async def acknowledges(items: Stream[int], context: Context) -> None:
        async for item in items:
            told.append(("read", item))
            context.on_durable(partial(told.append, ("called", item)))

    @node(stateless=True, retries=1)
    async def drops(some: Stream[int], others: Stream[int], context: Context) -> None:
        async for _ in context.arrivals(some, others):
            pass

    graph = Graph()
    graph.add(acknowledges, items=graph.add(upto, n=3))
    graph.add(drops, some=graph.add(upto, n=9), others=graph.add(upto, n=9))
    await outputs(graph, max_log=2)
    assert told == [(what, number) for number in range(3) for what in ("read", "called")]


@pytest.mark.parametrize("in_arrival_order", [False, True])
async def test_a_stateless_node_of_two_streams_is_tried_again_from_its_last_read(in_arrival_order: bool) -> None:
    keys: list[tuple[int, str]] = []

    def read(stream: Stream[int], context: Context) -> AsyncIterator[int]:
        return (item async for _, item in context.arrivals(stream)) if in_arrival_order else stream

    @node(stateless=True, retries=1, backoff=0)
    async def one_after_the_other(a: Stream[int], b: Stream[int], context: Context) -> AsyncIterator[int]:
        async for item in read(a, context):
            yield item
        async for item in read(b, context):
            keys.append((item, context.idempotency_key))
            yield item
            if item == 2 and context.attempt == 1:
                raise OSError("flaky")

    graph = Graph()
    streams = graph.add(upto, "a", n=2), graph.add(upto, "b", n=4)
    graph.output("out", graph.add(one_after_the_other, a=streams[0], b=streams[1]))
    assert await outputs(graph) == {"out": [0, 1, 0, 1, 2, 3]}
    assert [item for item, _ in keys] == [0, 1, 2, 2, 3]
    assert len(set(keys)) == 4  # the step that was repeated has the key that it had


async def test_a_stateless_node_that_emits_less_when_it_is_tried_again_swallows_nothing_of_its_next_step() -> None:
    @node(stateless=True, retries=1, backoff=0)
    async def silent_at_second(items: Stream[int], context: Context) -> AsyncIterator[int]:
        async for item in items:
            if item != 1 or context.attempt == 1:
                yield item
            if item == 1 and context.attempt == 1:
                raise OSError("flaky")

    graph = Graph()
    graph.output("out", graph.add(silent_at_second, items=graph.add(upto, n=5)))
    with pytest.raises(NodeFailed) as failed:
        await outputs(graph)
    assert isinstance(failed.value.__cause__, ReplayDiverged)


async def test_what_another_task_of_a_stateless_node_wants_called_is_called_with_its_next_read() -> None:
    called: list[str] = []
    waits, staged = asyncio.Event(), asyncio.Event()

    @node
    async def one_then_two() -> AsyncIterator[int]:
        yield 0
        await staged.wait()
        yield 1
        yield 2

    @node(stateless=True)
    async def reads(items: Stream[int], context: Context) -> AsyncIterator[list[str]]:
        async def stage() -> None:
            await waits.wait()
            context.on_durable(lambda: called.append("durable"))
            staged.set()

        task = asyncio.create_task(stage())
        await anext(items)
        waits.set()
        for _ in range(2):
            await anext(items)
        await context.checkpoint()
        yield [*called]
        await task

    graph = Graph()
    graph.output("out", graph.add(reads, items=graph.add(one_then_two)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        result = await WorkflowRunner(plugins=PluginHost().register(Saving(), name="p")).run(graph)
    assert result.outputs == {"out": [["durable"]]}


@node
async def cancels_its_task_as_it_returns(x: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return x


@pytest.mark.parametrize("listens", [False, True], ids=["nobody", "a plugin"])
async def test_a_body_that_cancels_its_own_task_as_it_returns_fails_where_it_waits_for_its_next_item(listens: bool) -> None:
    graph = Graph()
    graph.output("out", graph.add(cancels_its_task_as_it_returns, "cancels", x=graph.add(slowly, n=2)))
    runner = WorkflowRunner(plugins=PluginHost().register(Pairs(), name="pairs") if listens else PluginHost())
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(NodeFailed) as failed:
            await runner.run(graph)
    assert failed.value.node_id == "cancels"
    assert isinstance(failed.value.__cause__, asyncio.CancelledError)


async def test_a_body_that_raises_what_closes_coroutines_has_failed() -> None:
    @node
    async def closes(x: int) -> int:
        raise GeneratorExit

    for over_an_edge in (True, False):
        graph = Graph()
        graph.output("out", graph.add(closes, x=graph.add(upto, n=1) if over_an_edge else 1))
        with pytest.raises(NodeFailed, match="GeneratorExit"):
            await outputs(graph)


# Groups of tasks around a yield.


@node(retries=1, backoff=0, timeout=0.3)
async def with_tasks(n: int, context: Context) -> AsyncIterator[int]:
    async with asyncio.TaskGroup() as tasks:
        waits = tasks.create_task(asyncio.sleep(PATIENCE_SECONDS))
        for number in range(n):
            yield number + 100 * context.attempt
        waits.cancel()


async def test_a_generator_without_a_consumer_left_is_closed_in_a_group_of_tasks_too() -> None:
    @node
    async def first_of(items: Stream[int]) -> int:
        return await anext(items)

    graph = Graph()
    graph.output("out", graph.add(first_of, items=graph.add(with_tasks, n=1_000)))
    assert await outputs(graph) == {"out": [100]}


async def test_a_generator_without_a_consumer_left_fires_no_more() -> None:
    begun: list[int] = []

    @node
    async def twice(x: int) -> AsyncIterator[int]:
        begun.append(x)
        yield x
        yield x

    @node
    async def first_of(items: Stream[int]) -> int:
        return await anext(items)

    graph = Graph()
    graph.output("out", graph.add(first_of, items=graph.add(twice, x=graph.add(upto, n=1_000))))
    assert await outputs(graph, edge_capacity=1) == {"out": [0]}
    assert len(begun) < 9


async def test_what_closes_a_group_of_tasks_keeps_no_hook_from_hearing_the_end() -> None:
    @node
    async def fails(items: Stream[int]) -> int:
        raise ValueError(await anext(items))

    pairs = Pairs()
    graph = Graph()
    graph.output("out", graph.add(fails, "f", items=graph.add(with_tasks, "w", n=1_000)))
    with pytest.raises(NodeFailed, match="ValueError: 100"):
        await outputs(graph, plugins=PluginHost().register(pairs, name="pairs"))
    assert pairs.after == [("f", "Failed"), ("w", "Cancelled")]


async def test_what_closes_a_group_of_tasks_keeps_no_try_from_following() -> None:
    @node
    async def slowly_at_first(x: int) -> int:
        await asyncio.sleep(0.4 if x == 100 else 0)
        return x

    graph = Graph()
    graph.output("out", graph.add(slowly_at_first, x=graph.add(with_tasks, n=5)))
    assert await outputs(graph, edge_capacity=1) == {"out": [100, 101, 102, 203, 204]}


@node(retries=1, backoff=0)
async def has_a_child(n: int, context: Context) -> AsyncIterator[int]:
    async def child() -> None:
        await asyncio.sleep(0.1)
        if context.attempt == 1:
            raise OSError("the child failed")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child())
        for number in range(n):
            yield number


@node(retries=1, backoff=0)
async def in_time(n: int, context: Context) -> AsyncIterator[int]:
    async with asyncio.timeout(0.1 if context.attempt == 1 else None):
        for number in range(n):
            yield number


@node
async def ends_in_time(n: int) -> AsyncIterator[int]:
    try:
        async with asyncio.timeout(0.1):
            for number in range(1_000):
                yield number
    except TimeoutError:
        return


@node
async def goes_on_in_time(n: int) -> AsyncIterator[int]:
    try:
        async with asyncio.timeout(0.1):
            for number in range(1_000):
                yield number
    except TimeoutError:
        yield -1
        yield -2


@pytest.mark.parametrize(
    ("body", "last"), [(has_a_child, [8, 9]), (in_time, [8, 9]), (ends_in_time, []), (goes_on_in_time, [-1, -2])]
)
async def test_what_a_body_cancels_while_it_yields_it_hears_itself(body: Any, last: list[int]) -> None:
    @node
    async def slowly_passed(x: int) -> int:
        await asyncio.sleep(0.03)
        return x

    graph = Graph()
    graph.output("out", graph.add(slowly_passed, x=graph.add(body, n=10)))
    found = (await outputs(graph, edge_capacity=1))["out"]
    counted, rest = found[: len(found) - len(last)], found[len(found) - len(last) :]
    assert rest == last
    assert counted == list(range(len(counted)))
    assert len(counted) >= 3


async def test_several_outputs_at_once_wait_for_room_on_each_of_their_edges() -> None:
    emitted: list[int] = []

    @node(outputs=("blocked", "free"))
    async def both() -> AsyncIterator[dict[str, int]]:
        for number in range(20):
            emitted.append(number)
            yield {"blocked": number, "free": number}
            for _ in range(3):
                await asyncio.sleep(0)  # the other edge is emptied

    @node
    async def counts_first(items: Stream[int]) -> int:
        for _ in range(100):
            await asyncio.sleep(0)
        return len(emitted)

    graph = Graph()
    parts = graph.add(both)
    graph.output("emitted", graph.add(counts_first, items=parts["blocked"]))
    graph.output("free", parts["free"])
    found = await outputs(graph, edge_capacity=2)
    assert found == {"emitted": [3], "free": list(range(20))}


async def test_what_a_body_yields_after_the_end_of_its_run_is_refused() -> None:
    waits, went_on = asyncio.Event(), list[bool]()

    @node
    async def holds_out() -> AsyncIterator[int]:
        try:
            waits.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        yield 1
        went_on.append(True)

    @node
    async def fails() -> None:
        await waits.wait()
        raise OSError("away")

    graph = Graph()
    graph.output("out", graph.add(holds_out))
    graph.add(fails)
    with pytest.raises(NodeFailed, match="away"):
        await outputs(graph)
    assert not went_on


async def test_a_generator_that_goes_on_where_it_was_cancelled_waits_for_room_again() -> None:
    """Cancelled at its turn for the others, its edges full to the brim, it answers with the item for which there is no room."""
    emitted: list[int] = []

    @node
    async def goes_on() -> AsyncIterator[int]:
        task = asyncio.current_task()
        assert task is not None
        for number in range(YIELDS_A_TURN + 10):
            emitted.append(number)
            if number == YIELDS_A_TURN - 1:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield number
            except asyncio.CancelledError:
                task.uncancel()

    @node
    async def counts_first(items: Stream[int]) -> int:
        for _ in range(100):
            await asyncio.sleep(0)
        return len(emitted)

    graph = Graph()
    items = graph.add(goes_on)
    for name in ("one", "two"):
        graph.output(name, graph.add(counts_first, name, items=items))
    found = await outputs(graph, edge_capacity=YIELDS_A_TURN)
    assert found == {"one": [YIELDS_A_TURN + 1], "two": [YIELDS_A_TURN + 1]}


async def test_a_generator_whose_items_nobody_takes_lets_the_others_run() -> None:
    ended: list[bool] = []

    @node(outputs=("taken", "left"))
    async def splits() -> AsyncIterator[dict[str, int]]:
        for number in range(10_000_000):
            yield {"left": number}
        ended.append(True)
        yield {"taken": 1}

    @node
    async def first_of(items: Stream[int]) -> int:
        return await anext(items)

    graph = Graph()
    parts = graph.add(splits)
    graph.output("first", graph.add(first_of, items=parts["left"]))
    graph.output("taken", parts["taken"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await WorkflowRunner().run(graph)
    assert not ended


# Listeners.


async def test_a_generator_without_consumers_hears_what_it_cancels_too() -> None:
    heard: list[bool] = []

    @node
    async def in_time() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(0.01):
                while True:
                    yield 1
        except TimeoutError:
            heard.append(True)

    graph = Graph()
    graph.add(in_time)
    await outputs(graph)
    assert heard


async def test_a_listener_that_unsubscribes_itself_hides_nothing_from_the_next() -> None:
    runner = WorkflowRunner()
    heard: list[Event] = []

    def once(event: Event) -> None:
        end()

    end = runner.subscribe(once)
    runner.subscribe(heard.append)
    graph = Graph()
    graph.add(upto, n=1)
    await runner.run(graph)
    assert isinstance(heard[0], RunStarted)


class Pairs:
    """Counts what comes before nodes and after them."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[tuple[str, str]] = []

    @hookimpl
    async def before_node(self, node: NodeInfo) -> None:
        self.before.append(node.node_id)

    @hookimpl
    async def after_node(self, node: NodeInfo, outcome: Outcome) -> None:
        self.after.append((node.node_id, type(outcome).__name__))


@pytest.mark.parametrize("status", ["failed", "completed"])
@pytest.mark.parametrize("fails", [True, False])
async def test_a_listener_that_raises_keeps_no_hook_from_hearing_the_end(status: str, fails: bool) -> None:
    @node
    async def ends(n: int) -> AsyncIterator[int]:
        if fails:
            raise ValueError("no")
        yield n

    def raising(event: Event) -> None:
        if isinstance(event, NodeChanged) and event.status == status and event.node_id == "n":
            raise RuntimeError("listener")

    pairs = Pairs()
    runner = WorkflowRunner(plugins=PluginHost().register(pairs, name="pairs"))
    runner.subscribe(raising)
    graph = Graph()
    graph.add(ends, "n", n=1)
    with contextlib.suppress(NodeFailed):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await runner.run(graph)
    told = "Failed" if fails or status == "completed" else "Completed"
    assert pairs.before == ["n"]
    assert pairs.after == [("n", told)]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_listener_that_raises_at_the_end_of_a_run_hides_not_how_it_ended(fails: bool) -> None:
    @node
    async def ends(n: int) -> int:
        if fails:
            raise ValueError("no")
        return n

    def raising(event: Event) -> None:
        if isinstance(event, RunEnded):
            raise RuntimeError("listener")

    graph = Graph()
    graph.add(ends, "n", n=1)
    with pytest.raises(NodeFailed if fails else RuntimeError) as raised:
        await WorkflowRunner(on_event=raising).run(graph)
    assert getattr(raised.value, "__notes__", []) == (["and then RuntimeError: listener"] if fails else [])


async def test_inputs_of_unequal_length_are_told_to_the_hooks() -> None:
    @node
    async def added(a: int, b: int) -> int:
        return a + b

    pairs = Pairs()
    graph = Graph()
    graph.add(added, "sum", sync_mode="zip_all", a=graph.add(upto, "a", n=1), b=graph.add(upto, "b", n=2))
    with pytest.raises(NodeFailed, match="zip_all needs inputs of equal length"):
        await WorkflowRunner(plugins=PluginHost().register(pairs, name="pairs")).run(graph)
    assert sorted(pairs.before) == sorted(node_id for node_id, _ in pairs.after)


# Hooks and what waits for saves.


class Saving:
    """Keeps nothing; what it does when a checkpoint is saved is for a test to say."""

    def __init__(self) -> None:
        self.numbers = 0
        self.ended: list[str] = []
        self.statuses: list[str] = []

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        control.save_at("end", "error")

    @hookimpl
    async def after_run(self, outcome: Outcome) -> None:
        self.ended.append(type(outcome).__name__)

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        self.numbers += 1
        self.statuses.append(snapshot.status)
        return CheckpointRef(run.run_id, self.numbers, reason, datetime.now(UTC))

    @hookimpl
    async def restore_checkpoint(self) -> Snapshot | None:
        return None


class Cancelling(Saving):
    @hookimpl
    async def checkpoint_saved(self, ref: CheckpointRef) -> None:
        work = asyncio.ensure_future(asyncio.sleep(3600))
        work.cancel()
        await work


async def test_a_hook_that_waits_for_something_cancelled_fails_the_run() -> None:
    @node
    async def asks(n: int, context: Context) -> int:
        await context.checkpoint()
        return n

    plugin = Cancelling()
    graph = Graph()
    graph.add(asks, n=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(HookError, match="'checkpoint_saved': CancelledError"):
            await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph)
    assert plugin.ended == ["Failed"]


class FailingAfter:
    """Fails in a hook of the end."""

    def __init__(self, hook: str, error: BaseException) -> None:
        self.hook = hook
        self.error = error

    @hookimpl
    async def after_node(self) -> None:
        if self.hook == "after_node":
            raise self.error

    @hookimpl
    async def after_run(self) -> None:
        if self.hook == "after_run":
            raise self.error


@pytest.mark.parametrize("hook", ["after_node", "after_run"])
@pytest.mark.parametrize("error", [OSError("the disk is away"), StoreError("the disk is away")])
async def test_a_hook_that_fails_after_a_node_did_is_told_with_it(hook: str, error: Exception) -> None:
    @node
    async def bad(n: int) -> int:
        raise ValueError(n)

    graph = Graph()
    graph.add(bad, "a", n=1)
    with pytest.raises(NodeFailed, match="node 'a'") as raised:
        await WorkflowRunner(plugins=PluginHost().register(FailingAfter(hook, error), name="p")).run(graph)
    (note,) = raised.value.__notes__
    assert note.startswith("and then ")
    assert "the disk is away" in note


async def test_a_hook_that_waited_for_what_the_end_of_the_run_cancels_has_not_failed() -> None:
    @node
    async def bad(n: int) -> int:
        raise ValueError(n)

    class Asks(Saving):
        @hookimpl
        async def before_run(self, control: RunControl) -> None:
            self.control = control

        @hookimpl
        async def after_node(self) -> None:
            await self.control.request("after")

    graph = Graph()
    graph.add(bad, "a", n=1)
    with pytest.raises(NodeFailed, match="node 'a'") as raised:
        await WorkflowRunner(plugins=PluginHost().register(Asks(), name="p")).run(graph)
    assert not getattr(raised.value, "__notes__", ())


@pytest.mark.parametrize("on_failure", ["fail_fast", "finish_independent"])
async def test_a_call_that_raises_keeps_no_other_step_from_hearing_that_it_is_durable(on_failure: Any) -> None:
    told: list[str] = []

    def tell(name: str) -> None:
        told.append(name)
        if name == "a":
            raise ValueError("boom")

    @node
    async def step(name: str, context: Context) -> str:
        context.on_durable(lambda: tell(name))
        return name

    @node
    async def asks(n: int, context: Context) -> None:
        await asyncio.sleep(0.01)
        await context.checkpoint()
        await asyncio.sleep(0.01)

    graph = Graph()
    for name in "ab":
        graph.output(name, graph.add(step, name, name=name))
    graph.add(asks, n=1)
    runner = WorkflowRunner(plugins=PluginHost().register(Saving(), name="p"), on_failure=on_failure)
    with pytest.raises(NodeFailed, match="boom"):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await runner.run(graph)
    assert sorted(told) == ["a", "b"]


def refuse() -> None:
    raise OSError("upstream is away")


@node
async def acknowledges(n: int, context: Context) -> int:
    context.on_durable(refuse)
    return n


async def test_a_call_that_raises_when_the_last_cut_is_durable_fails_the_run() -> None:
    graph = Graph()
    graph.output("out", graph.add(acknowledges, "a", n=1))
    plugin = Saving()
    ended: list[RunEnded] = []
    runner = WorkflowRunner(plugins=PluginHost().register(plugin, name="p"))
    runner.subscribe(lambda event: ended.append(event) if isinstance(event, RunEnded) else None)
    with pytest.raises(NodeFailed, match="node 'a' of run 'r' failed: OSError: upstream is away"):
        await runner.run(graph, run_id="r")
    assert plugin.ended == ["Failed"]
    assert plugin.statuses == ["completed"]
    assert [event.status for event in ended] == ["failed"]


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_suspension_that_fails_after_all_makes_no_call(retries: int) -> None:
    told: list[int] = []

    @node(retries=retries, backoff=0)
    async def asks(n: int, context: Context) -> int:
        attempt = context.attempt
        context.on_durable(lambda: told.append(attempt))
        context.on_durable(lambda: told.append(10 * attempt))
        if attempt == 2:
            return n
        try:
            await context.suspend("why?")
        finally:
            raise ValueError("boom")

    graph = Graph()
    graph.add(asks, "a", n=1)
    with contextlib.nullcontext() if retries else pytest.raises(NodeFailed, match="boom"):
        await WorkflowRunner(plugins=PluginHost().register(Saving(), name="p")).run(graph)
    assert told == [2, 20] * retries


async def test_a_suspension_that_fails_after_all_while_items_are_read_again_reads_each_once() -> None:
    @node(retries=2, backoff=0)
    async def asks(items: Stream[int], context: Context) -> list[int]:
        found = []
        async for item in items:
            found.append(item)
            if context.attempt == 1 and item == 2:
                raise OSError("away")
            if context.attempt == 2:
                try:
                    await context.suspend("why?")
                finally:
                    raise ValueError("boom")
        return found

    graph = Graph()
    graph.output("out", graph.add(asks, items=graph.add(upto, n=5)))
    assert await outputs(graph, plugins=PluginHost().register(Saving(), name="p")) == {"out": [[0, 1, 2, 3, 4]]}


async def told_upstream() -> None:
    raise AssertionError("nobody awaits it")


@node
async def acknowledges_async(n: int, context: Context) -> int:
    context.on_durable(told_upstream)
    return n


@node
def acknowledges_async_in_a_thread(n: int, context: Context) -> int:
    context.on_durable(told_upstream)
    return n


@node
async def acknowledges_what_is_async(n: int, context: Context) -> int:
    context.on_durable(lambda: told_upstream())
    return n


@pytest.mark.parametrize("body", [acknowledges_async, acknowledges_async_in_a_thread, acknowledges_what_is_async])
@pytest.mark.parametrize("plugins", [{}, {"p": Saving()}], ids=["nothing", "saving"])
async def test_a_call_that_nobody_would_await_fails_its_node(body: Any, plugins: dict[str, Saving]) -> None:
    host = PluginHost()
    for name, plugin in plugins.items():
        host.register(plugin, name)
    graph = Graph()
    graph.output("out", graph.add(body, "a", n=1))
    with pytest.raises(NodeFailed, match=r"node 'a' .*TypeError: .*on_durable .*told_upstream.* nobody") as raised:
        await WorkflowRunner(plugins=host).run(graph)
    assert isinstance(raised.value.__cause__, TypeError)


async def test_a_generator_that_is_closed_while_its_run_ends_is_not_over() -> None:
    """Nobody is left to hear it, so it cleans up when another node fails: its last step is in no cut, and a resume repeats it."""
    closes, saves, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    called: list[int] = []
    commits: list[int] = []
    completed: list[str] = []

    class Slow(Saving):
        @hookimpl
        async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
            commits.extend(found.commits for found in snapshot.nodes if found.node_id == "numbers")
            saves.set()
            await closed.wait()
            return CheckpointRef(run.run_id, 1, reason, datetime.now(UTC))

    @node
    async def numbers(context: Context) -> AsyncIterator[int]:
        try:
            for number in range(1_000):
                context.on_durable(partial(called.append, number))
                yield number
                context.commit()
        finally:
            closes.set()
            await saves.wait()
            closed.set()

    @node
    async def first_of(items: Stream[int]) -> int:
        return await anext(items)

    @node
    async def fails() -> None:
        await closes.wait()
        raise OSError("away")

    def listen(event: Event) -> None:
        if isinstance(event, NodeChanged) and event.status == "completed":
            completed.append(event.node_id)

    graph = Graph()
    graph.output("out", graph.add(first_of, "first", items=graph.add(numbers, "numbers")))
    graph.add(fails)
    with pytest.raises(NodeFailed, match="away"):
        await outputs(graph, plugins=PluginHost().register(Slow(), name="slow"), on_event=listen)
    assert [called] == [list(range(number)) for number in commits]
    assert completed == ["first", "out"]


async def test_a_generator_that_is_closed_before_it_has_repeated_its_step_may_commit_as_it_cleans_up() -> None:
    over = asyncio.Event()
    states: list[Any] = []

    @node(retries=1, backoff=0)
    async def numbers(context: Context) -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
            await over.wait()
            raise OSError("away")
        finally:
            if context.attempt == 2:
                context.commit("cleaned up")
                states.append(context.state)

    @node
    async def first_of(items: Stream[int]) -> int:
        return await anext(items)

    @node
    async def lets_go(x: int) -> int:
        over.set()
        return x

    graph = Graph()
    graph.output("out", graph.add(lets_go, x=graph.add(first_of, items=graph.add(numbers))))
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await outputs(graph) == {"out": [0]}
    assert states == ["cleaned up"]


async def test_calls_that_raise_at_the_cut_of_a_failure_are_its_notes() -> None:
    @node
    async def breaks(n: int) -> int:
        raise ValueError("boom")

    graph = Graph()
    graph.add(breaks, "b", n=graph.add(acknowledges, "a", n=1))
    with pytest.raises(NodeFailed, match="boom") as raised:
        await WorkflowRunner(plugins=PluginHost().register(Saving(), name="p")).run(graph, run_id="r")
    assert raised.value.__notes__ == ["and node 'a' of run 'r' failed: OSError: upstream is away"]


async def test_all_calls_of_a_step_are_made_with_nothing_enabled() -> None:
    told: list[int] = []

    @node
    async def step(n: int, context: Context) -> int:
        context.on_durable(refuse)
        context.on_durable(lambda: told.append(n))
        context.on_durable(refuse)
        return n

    graph = Graph()
    graph.add(step, n=1)
    with pytest.raises(NodeFailed, match="upstream is away"):
        await outputs(graph)
    assert told == [1]


async def test_a_call_that_looks_at_something_cancelled_fails_its_node_and_not_the_saves() -> None:
    def look() -> None:
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found.cancel()
        found.result()

    @node
    async def step(n: int, context: Context) -> int:
        context.on_durable(look)
        return n

    graph = Graph()
    graph.add(step, "a", n=1)
    plugin = Saving()
    with pytest.raises(NodeFailed, match="node 'a' of run 'r' failed: CancelledError"):
        await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph, run_id="r")
    assert plugin.ended == ["Failed"]


async def test_a_call_that_looks_at_something_cancelled_is_told_to_the_hooks_with_nothing_stored() -> None:
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    found.cancel()

    @node
    async def step(n: int, context: Context) -> int:
        context.on_durable(found.result)
        return n

    graph = Graph()
    graph.add(step, "a", n=1)
    pairs = Pairs()
    with pytest.raises(NodeFailed, match="node 'a' of run 'r' failed: CancelledError"):
        await WorkflowRunner(plugins=PluginHost().register(pairs, name="pairs")).run(graph, run_id="r")
    assert pairs.before == ["a"]
    assert pairs.after == [("a", "Failed")]


class Asking(Saving):
    """Asks for a checkpoint when a firing is over, and again, and writes down what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[CheckpointRef | None] = []

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        self.control = control
        control.save_at("end", "error")

    @hookimpl
    async def after_node(self, outcome: Outcome) -> None:
        for _ in range(2):
            self.found.append(await self.control.request("after"))


async def test_a_checkpoint_that_is_asked_for_when_all_nodes_are_over_is_the_last_one() -> None:
    plugin = Asking()
    graph = Graph()
    graph.add(upto, n=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph)
    assert [found and (found.number, found.reason) for found in plugin.found] == [(1, "end"), (1, "end")]
    assert plugin.statuses == ["completed"]


class AskingLate(Asking):
    """Asks when the run is over, too."""

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        self.control = control
        control.save_at("suspend", "error", "signal")

    @hookimpl
    async def after_run(self, outcome: Outcome) -> None:
        await super().after_run(outcome)
        self.found.append(await self.control.request("late"))


@pytest.mark.parametrize(
    ("way", "ended", "status"),
    [("suspends", "Suspended", "suspended"), ("fails", "Failed", "failed"), ("stops", "Cancelled", "paused")],
)
async def test_a_checkpoint_that_is_asked_for_when_the_run_is_over_is_the_last_one(way: str, ended: str, status: str) -> None:
    @node
    async def ends(n: int, context: Context) -> int:
        if way == "suspends":
            await context.suspend("wait", None)
        if way == "fails":
            raise OSError("away")
        runner.stop("signal")
        await asyncio.sleep(3600)
        return n

    plugin = AskingLate()
    graph = Graph()
    graph.add(ends, n=1)
    runner = WorkflowRunner(plugins=PluginHost().register(plugin, name="p"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        if way == "suspends":
            assert (await runner.run(graph)).status == "suspended"
        else:
            with pytest.raises((NodeFailed, RunStopped)):
                await runner.run(graph)
    assert plugin.ended == [ended]
    assert plugin.statuses[-1] == status
    last = len(plugin.statuses)
    # A body that suspends is told before the run is, so that a cut of the running run is taken.
    assert [found and found.number for found in plugin.found] == ([1, 1, last] if way == "suspends" else [last] * 3)


class LosingTheLast(AskingLate):
    """Cannot save the last cut, and lets the run end without."""

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        found = await super().save_checkpoint(run, snapshot, reason)
        return found if snapshot.status == "running" else None


async def test_who_asks_when_the_last_checkpoint_could_not_be_saved_is_given_none_of_before() -> None:
    @node
    async def waits(context: Context) -> None:
        await context.suspend("wait")

    plugin = LosingTheLast()
    graph = Graph()
    graph.add(waits)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph)
    assert plugin.statuses == ["running", "suspended"]
    assert [found and found.number for found in plugin.found] == [1, 1, None]


class FailingAtTheEnd(Saving):
    """Cannot save the last cut, and asks for one more when the run is over."""

    refused = False

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        self.control = control
        control.save_at("end")

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef:
        raise StoreError("the disk is full")

    @hookimpl
    async def after_run(self, outcome: Outcome) -> None:
        request = asyncio.ensure_future(self.control.request("late"))
        await asyncio.wait((request,), timeout=5)
        self.refused = request.cancelled()


async def test_nobody_waits_for_a_checkpoint_that_is_asked_for_when_the_last_one_has_failed() -> None:
    plugin = FailingAtTheEnd()
    graph = Graph()
    graph.add(upto, n=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(StoreError, match="the disk is full"):
            await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph)
    assert plugin.refused


class AskingEarly(Saving):
    """Asks for a checkpoint before its run has begun, and waits for it there or in a task of its own."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.waits = waits
        self.found: list[CheckpointRef | None] = []

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        control.save_at("end")
        if self.waits:
            await control.request("early")
        self.waiting = asyncio.ensure_future(self.wait(control.request("early")))

    async def wait(self, request: Awaitable[CheckpointRef | None]) -> None:
        self.found.append(await request)

    @hookimpl
    async def after_run(self, outcome: Outcome) -> None:
        await asyncio.wait({self.waiting})


@pytest.mark.parametrize("waits", [True, False])
async def test_before_run_may_ask_for_a_checkpoint_but_not_wait_for_it(waits: bool) -> None:
    plugin = AskingEarly(waits)
    graph = Graph()
    graph.add(upto, n=1)
    running = asyncio.ensure_future(WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph))
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "the run waits for itself"
    if waits:
        with pytest.raises(HookError, match=r"'p' failed in hook 'before_run': .*before the run has begun"):
            await running
    else:
        await running
        assert [found and found.number for found in plugin.found] == [1]


class Ending:
    """Ends the run before it has begun, in one way or another."""

    def __init__(self, way: str) -> None:
        self.way = way

    @hookimpl(trylast=True)
    async def before_run(self, run: RunInfo, control: RunControl) -> None:
        await asyncio.sleep(0)
        if self.way == "refuses":
            raise RunExists(run.run_id)
        if self.way == "raises":
            raise OSError("the disk is away")
        if self.way == "fails":
            control.fail(RunExists(run.run_id))


class Damaged(AskingEarly):
    @hookimpl
    async def restore_checkpoint(self) -> Snapshot | None:
        raise StoreError("the cut is damaged")

    def __call__(self, url: str | None) -> Damaged:
        return self

    async def load(self, run_id: str, *, outputs: bool = True) -> StoredRun:
        graph = Graph()
        graph.add(upto, n=1)
        return StoredRun(run_id, 1, "running", graph.to_document(), {}, {})

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("way", "error"), [("refuses", RunExists), ("raises", HookError), ("fails", RunExists), ("restores", StoreError)]
)
async def test_nobody_waits_for_a_checkpoint_of_a_run_that_ends_before_it_has_begun(way: str, error: type[Exception]) -> None:
    plugin = Damaged(waits=False)
    graph = Graph()
    graph.add(upto, n=1)
    host = PluginHost().register(Ending(way), name="ending").register(plugin, name="p", store=plugin)
    runner = WorkflowRunner(plugins=host)
    running = asyncio.ensure_future(runner.resume("r", graph=graph) if way == "restores" else runner.run(graph))
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "somebody waits for a checkpoint"
    with pytest.raises(error):
        await running
    assert plugin.waiting.cancelled()


class AskingWhenStopped(Saving):
    """Asks for a checkpoint in a task of its own, when the run was stopped and is not begun."""

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        control.save_at("signal")
        self.stopped = asyncio.Event()
        self.waiting = asyncio.create_task(self.wait(control))

    async def wait(self, control: RunControl) -> CheckpointRef | None:
        await self.stopped.wait()
        return await control.request("late")

    @hookimpl
    async def after_run(self, outcome: Outcome) -> None:
        self.stopped.set()
        await asyncio.wait({self.waiting})


async def test_nobody_waits_for_a_checkpoint_that_is_asked_for_when_the_run_was_stopped_before_it_began() -> None:
    class Stopping:
        @hookimpl(trylast=True)
        async def before_run(self) -> None:
            runner.stop("signal")
            await asyncio.sleep(0.01)

    plugin = AskingWhenStopped()
    graph = Graph()
    graph.add(upto, n=1)
    runner = WorkflowRunner(plugins=PluginHost().register(plugin, name="p").register(Stopping(), name="stopping"))
    running = asyncio.ensure_future(runner.run(graph))
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "somebody waits for a checkpoint"
    with pytest.raises(RunStopped):
        await running
    assert plugin.waiting.cancelled()


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_run_that_was_failed_while_a_plugin_opens_it_ends(stopped: bool) -> None:
    class Failing:
        @hookimpl
        async def before_run(self, run: RunInfo, control: RunControl) -> None:
            asyncio.get_running_loop().call_soon(control.fail, RunExists(run.run_id))

    class Hanging:
        @hookimpl(trylast=True)
        async def before_run(self) -> None:
            await asyncio.sleep(0.01)
            hangs.set()
            await asyncio.Event().wait()

    hangs = asyncio.Event()
    graph = Graph()
    graph.add(upto, n=1)
    host = PluginHost().register(Failing(), name="failing").register(Hanging(), name="hanging")
    runner = WorkflowRunner(plugins=host, grace_seconds=0.05)
    running = asyncio.ensure_future(runner.run(graph))
    await hangs.wait()
    if stopped:
        runner.stop("signal")
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "it waits for the plugin for ever"
    with pytest.raises(RunExists):
        await running


@pytest.mark.parametrize("first", ["stopped", "refused"])
async def test_who_is_told_that_a_run_is_refused_is_not_cut_short_where_it_is_stopped_too(first: str) -> None:
    class Opening:
        @hookimpl
        async def before_run(self) -> None: ...

        @hookimpl
        async def after_run(self) -> None:
            if first == "refused":
                runner.stop("signal")
            await asyncio.sleep(0.2)
            told.append(True)

    class Refusing:
        @hookimpl(trylast=True)
        async def before_run(self, run: RunInfo) -> None:
            if first == "stopped":
                runner.stop("signal")
            await asyncio.sleep(0.01)
            raise RunExists(run.run_id)

    told: list[bool] = []
    graph = Graph()
    graph.add(upto, n=1)
    host = PluginHost().register(Opening(), name="opening").register(Refusing(), name="refusing")
    runner = WorkflowRunner(plugins=host, grace_seconds=0.05)
    with pytest.raises(RunExists):
        await runner.run(graph)
    assert told


async def test_who_refuses_a_run_leaves_nobody_waiting_for_its_checkpoints() -> None:
    class Refusing(AskingEarly):
        @hookimpl
        async def before_run(self, control: RunControl) -> None:
            await super().before_run(control)
            await asyncio.sleep(0)
            raise StoreError("no")

    plugin = Refusing(waits=False)
    graph = Graph()
    graph.add(upto, n=1)
    with pytest.raises(StoreError):
        await WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph)
    await asyncio.wait({plugin.waiting}, timeout=1)
    assert plugin.waiting.cancelled()


class AskingAgain(Saving):
    """Asks for the next checkpoint while one is saved, and waits for it there or in a task of its own."""

    def __init__(self, hook: str, waits: bool) -> None:
        super().__init__()
        self.hook = hook
        self.waits = waits
        self.waiting: asyncio.Task[CheckpointRef | None] | None = None

    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        self.control = control

    @hookimpl
    async def save_checkpoint(self, run: RunInfo, snapshot: Snapshot, reason: str) -> CheckpointRef | None:
        await self.ask("save_checkpoint")
        return await super().save_checkpoint(run, snapshot, reason)

    @hookimpl
    async def checkpoint_saved(self, ref: CheckpointRef) -> None:
        await self.ask("checkpoint_saved")

    async def ask(self, hook: str) -> None:
        if hook != self.hook or self.waiting is not None:
            return
        if self.waits:
            await self.control.request("again")
        self.waiting = asyncio.create_task(self.wait(self.control.request("again")))

    async def wait(self, request: Awaitable[CheckpointRef | None]) -> CheckpointRef | None:
        return await request


@pytest.mark.parametrize("hook", ["save_checkpoint", "checkpoint_saved"])
@pytest.mark.parametrize("waits", [True, False])
async def test_a_save_may_ask_for_the_next_but_not_wait_for_it(hook: str, waits: bool) -> None:
    @node
    async def asks(n: int, context: Context) -> int:
        await context.checkpoint()
        return n

    plugin = AskingAgain(hook, waits)
    graph = Graph()
    graph.add(asks, n=1)
    running = asyncio.ensure_future(WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph))
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "the run waits for itself"
    if waits:
        with pytest.raises(HookError, match=rf"'p' failed in hook '{hook}': .*one checkpoint is taken after the other"):
            await running
    else:
        await running
        assert plugin.waiting is not None
        assert await plugin.waiting is not None


@pytest.mark.parametrize("hook", ["save_checkpoint", "checkpoint_saved"])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_the_last_save_may_ask_for_another_but_not_wait_for_it(hook: str, waits: bool, fails: bool) -> None:
    @node
    async def ends(n: int) -> int:
        if fails:
            raise OSError("away")
        return n

    class Saves(AskingAgain):
        @hookimpl
        async def before_run(self, control: RunControl) -> None:
            self.control = control
            control.save_at("error")

        async def ask(self, hook: str) -> None:
            await asyncio.sleep(0.01)  # the run waits for its last save by now
            await super().ask(hook)

    plugin = Saves(hook, waits)
    graph = Graph()
    graph.add(ends, n=1)
    running = asyncio.ensure_future(WorkflowRunner(plugins=PluginHost().register(plugin, name="p")).run(graph))
    await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    assert running.done(), "the run waits for itself"
    if fails:
        with pytest.raises(NodeFailed):
            await running
    elif waits:
        with pytest.raises(HookError, match=rf"'p' failed in hook '{hook}': .*one checkpoint is taken after the other"):
            await running
    else:
        await running
    if not waits:
        assert plugin.waiting is not None
        assert await plugin.waiting is not None


class Mistaken(Saving):
    @hookimpl
    async def before_run(self, control: RunControl) -> None:
        control.save_at("error", "sginal")


async def test_an_end_that_is_none_is_refused() -> None:
    graph = Graph()
    graph.add(upto, n=1)
    with pytest.raises(HookError, match=r"no run ends at 'sginal'\. Choose from cancel, end, error, signal, suspend"):
        await WorkflowRunner(plugins=PluginHost().register(Mistaken(), name="p")).run(graph)
