"""The plugin under the real runner, on both databases: enabled by its flag, killed by stopping, resumed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from checkpoint_plugin.codec import Codec
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import NotResumable, StoreDamaged, StoreMissing, ValueNotStorable
from checkpoint_plugin.loader import open_loader
from checkpoint_plugin.models import CHECKPOINT, JOB
from checkpoint_plugin.plugin import CheckpointPlugin, checkpoint
from checkpoint_plugin.policy import Policy
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.definition import INDEXED_BYTES, Definition, define
from hookspecs import (
    Cancelled,
    CheckpointRef,
    LeaseLost,
    PluginHost,
    PluginOptionsInvalid,
    RunExists,
    RunHeld,
    RunInfo,
    Snapshot,
    WorkflowError,
    loads_tagged,
)
from workflow_runner import (
    CheckpointSaved,
    Context,
    Event,
    Graph,
    NodeFailed,
    NodeNotWaiting,
    RunStopped,
    Stream,
    ThreadContext,
    WorkflowRunner,
    node,
)

CALLS: list[str] = []
"""What bodies did in this process; emptied before each test."""
STOP_AT: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    CALLS.clear()
    STOP_AT.clear()


@node
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        CALLS.append(f"count {i}")
        yield i


@node
async def double(x: int) -> int:
    CALLS.append(f"double {x}")
    if x in STOP_AT:
        raise RuntimeError(f"stop at {x}")
    return 2 * x


@node
async def total(items: Stream[int], context: Context) -> AsyncIterator[int]:
    seen = context.state or {"sum": 0}
    async for x in items:
        seen["sum"] += x
        yield seen["sum"]
        context.commit(seen)


@node
async def unstorable(x: int) -> object:
    return object()


@node
async def when(x: datetime) -> datetime:
    return x


@node
async def ask(x: int, context: Context) -> int | None:
    ref = await context.checkpoint("asked")
    return None if ref is None else ref.number


class Host(PluginHost):
    """Finds the plugin as its entry points say, without an installation."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def make(self, name: str, options: Any) -> CheckpointPlugin:
        assert name == "checkpoint"
        return checkpoint({"url": self.url, **options})

    def store_factory(self, name: str | None = None) -> tuple[str, Any]:
        return "checkpoint", lambda url: open_loader(url or self.url)


def pipeline(n: int = 6) -> Graph:
    graph = Graph()
    doubled = graph.add(double, x=graph.add(count, n=n))
    graph.output("doubled", doubled)
    graph.output("totals", graph.add(total, items=doubled))
    return graph


WHOLE = {"doubled": [0, 2, 4, 6, 8, 10], "totals": [0, 2, 6, 12, 20, 30]}


def runner(url: str, **settings: Any) -> WorkflowRunner:
    return WorkflowRunner(plugins=Host(url), **settings)


async def checkpoints(url: str, run_id: str = "r") -> list[str]:
    store = Store(locate(url), create=False)
    try:
        return [row.reason for row in await store.checkpoints(run_id)]
    finally:
        await store.close()


async def status(url: str, run_id: str = "r") -> str:
    store = Store(locate(url), create=False)
    try:
        return str((await store.job(run_id)).status)
    finally:
        await store.close()


async def test_a_flag_is_enough(store_url: str) -> None:
    result = await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    assert result.outputs == WHOLE
    assert await checkpoints(store_url) == ["end"]
    assert await status(store_url) == "completed"
    again = await runner(store_url).resume("r", graph=pipeline())
    assert again.outputs == WHOLE


async def test_a_graph_that_is_given_again_says_where_its_runs_are(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKFLOW_CHECKPOINT_URL", raising=False)
    graph = pipeline(3)
    graph.enable = {"checkpoint": {"url": store_url, "every_nodes": 1}}
    STOP_AT.append(1)
    with pytest.raises(NodeFailed):
        await WorkflowRunner().run(graph, run_id="r")
    STOP_AT.clear()
    elsewhere = "sqlite:///elsewhere.db"
    with pytest.raises(StoreMissing, match=r"elsewhere\.db"):
        await WorkflowRunner().resume("r", graph=graph, url=elsewhere)
    with pytest.raises(StoreMissing, match=r"elsewhere\.db"):
        await WorkflowRunner().resume("r", graph=graph, enable={"checkpoint": {"url": elsewhere}})
    seen = len(await checkpoints(store_url))
    done = await WorkflowRunner().resume("r", graph=graph)
    assert done.outputs == {"doubled": [0, 2, 4], "totals": [0, 2, 6]}
    assert "every_nodes" in (await checkpoints(store_url))[seen:]


def steps_of(seen: Any, context: Context, x: int) -> tuple[int, list[str]]:
    """The number of the firing, and the steps of it that are final; a state of the firing before tells none."""
    firing, steps = seen or (0, [])
    CALLS.append(f"firing {context.firing} of {x}, {len(steps) if firing == context.firing else 0} steps are final")
    return context.firing, steps if firing == context.firing else []


@node
async def many_steps(x: int, context: Context) -> AsyncIterator[str]:
    firing, steps = steps_of(context.state, context, x)
    while len(steps) < 2:
        yield f"{x}, step {len(steps)}"
        context.commit((firing, [*steps, "done"]))
        firing, steps = context.state
    if x in STOP_AT:
        raise RuntimeError(f"stop at {x}")


@node
def many_steps_in_a_thread(x: int, context: ThreadContext) -> Iterator[str]:
    firing, steps = steps_of(context.state, context, x)
    while len(steps) < 2:
        yield f"{x}, step {len(steps)}"
        context.commit((firing, [*steps, "done"]))
        firing, steps = context.state
    if x in STOP_AT:
        raise RuntimeError(f"stop at {x}")


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("definition", [many_steps, many_steps_in_a_thread])
async def test_a_body_knows_by_its_firing_whether_its_state_is_of_an_earlier_one(
    store_url: str, definition: Any, retries: int
) -> None:
    graph = Graph()
    failure = {"retries": retries, "backoff": 0}
    graph.output("out", graph.add(definition, failure=failure, x=graph.add(count, n=3)))
    STOP_AT.append(1)
    with pytest.raises(NodeFailed, match="stop at 1"):
        await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    STOP_AT.clear()
    done = await runner(store_url).resume("r", graph=graph)
    assert done.outputs == {"out": [f"{x}, step {i}" for x in range(3) for i in range(2)]}
    began = [call for call in CALLS if call.startswith("firing")]
    again = ["firing 2 of 1, 2 steps are final"] * (retries + 1)
    assert began == [
        "firing 1 of 0, 0 steps are final",
        "firing 2 of 1, 0 steps are final",
        *again,
        "firing 3 of 2, 0 steps are final",
    ]


async def test_a_run_id_is_used_once(store_url: str) -> None:
    await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    CALLS.clear()
    with pytest.raises(RunExists):
        await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    assert CALLS == []


@pytest.mark.parametrize("options", [{}, {"every_firing": True}, {"every_seconds": 0.001}], ids=["default", "firing", "interval"])
async def test_a_failed_run_goes_on_from_its_failing_step(store_url: str, options: dict[str, Any]) -> None:
    STOP_AT.append(4)
    with pytest.raises(NodeFailed, match="stop at 4"):
        await runner(store_url).run(pipeline(), enable={"checkpoint": options}, run_id="r")
    assert await status(store_url) == "failed"
    assert (await checkpoints(store_url))[-1] == "error"
    STOP_AT.clear()
    before, CALLS[:] = CALLS[:], []
    result = await runner(store_url).resume("r", graph=pipeline())
    assert result.outputs == WHOLE
    doubled = [call for call in CALLS if call.startswith("double")]
    assert doubled == ["double 4", "double 5"]
    assert before.count("double 4") == 1


async def test_every_firing_saves_before_anybody_sees(store_url: str) -> None:
    await runner(store_url).run(pipeline(3), enable={"checkpoint": {"every_firing": True}}, run_id="r")
    reasons = await checkpoints(store_url)
    assert reasons[-1] == "end"
    assert set(reasons[:-1]) == {"every_firing"}
    assert len(reasons) >= 6


async def test_a_run_killed_before_its_first_checkpoint_starts_from_its_inputs(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(double, x=graph.input("n")))
    STOP_AT.append(5)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(graph, {"n": 5}, enable={"checkpoint": {"explicit": True}}, run_id="r")
    assert await checkpoints(store_url) == []
    assert await status(store_url) == "failed"
    STOP_AT.clear()
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": [10]}


async def test_explicit_saves_when_a_node_asks(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(ask, x=1))
    result = await runner(store_url).run(graph, enable={"checkpoint": {"explicit": True}}, run_id="r")
    assert result.outputs == {"out": [1]}
    assert await checkpoints(store_url) == ["asked", "end"]


async def called(name: str) -> None:
    """Wait until a body has begun."""
    async with asyncio.timeout(20):
        while not any(call.startswith(name) for call in CALLS):  # noqa: ASYNC110  bodies know no event
            await asyncio.sleep(0.01)


@node
async def wait_at(x: int) -> int:
    CALLS.append(f"wait {x}")
    await asyncio.sleep(0 if STOP_AT else 60)
    return x


@pytest.mark.parametrize("reason", ["signal", "deployment", "error"])
async def test_a_stopped_run_is_paused_and_goes_on(store_url: str, reason: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(wait_at, x=graph.add(count, n=2)))
    first = runner(store_url)
    task = asyncio.ensure_future(first.run(graph, enable={"checkpoint": True}, run_id="r"))
    await called("wait")
    first.stop(reason)
    with pytest.raises(RunStopped, match="workflow resume r"):
        await task
    assert await status(store_url) == "paused"
    assert await checkpoints(store_url) == [reason]
    STOP_AT.append(0)
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": [0, 1]}


async def test_a_stop_for_whatever_reason_saves_nothing_without_on_signal(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(wait_at, x=1))
    first = runner(store_url)
    task = asyncio.ensure_future(first.run(graph, enable={"checkpoint": {"on_signal": False}}, run_id="r"))
    await called("wait")
    first.stop("error")
    with pytest.raises(RunStopped):
        await task
    assert await status(store_url) == "paused"
    assert await checkpoints(store_url) == []


async def test_a_cancelled_run_is_paused_after_its_cut(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(wait_at, x=1))
    task = asyncio.ensure_future(runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r"))
    await called("wait")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await status(store_url) == "paused"
    assert await checkpoints(store_url) == ["cancel"]


@pytest.mark.parametrize("method", ["insert_job", "begin_attempt"])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_run_that_is_cancelled_while_it_begins_is_let_go(
    store_url: str, method: str, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an event loop that ends: it cancels the run's own task, too."""
    begin = getattr(Store, method)

    async def cancelled(*arguments: Any, **more: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if begun:
            await begin(*arguments, **more)
        task.cancel()
        await asyncio.sleep(0)

    graph = Graph()
    graph.output("out", graph.add(double, x=1))
    begins = partial(runner(store_url).run, graph, enable={"checkpoint": True}, run_id="r")
    if resumed := method == "begin_attempt":
        STOP_AT.append(1)
        with pytest.raises(NodeFailed):
            await begins()
        begins = partial(runner(store_url).resume, "r", graph=graph)
    monkeypatch.setattr(Store, method, cancelled)
    with pytest.raises(asyncio.CancelledError):
        await begins()
    monkeypatch.undo()
    STOP_AT.clear()
    if begun:
        assert await status(store_url) == "paused"
    if begun or resumed:
        assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": [2]}


async def test_a_run_that_is_cancelled_again_while_it_is_let_go_leaves_nothing_open(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(*arguments: Any, **more: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    closed, close = [], Store.close

    async def closing(store: Store) -> None:
        await close(store)
        closed.append(store)

    for name, instead in {"insert_job": cancelled, "give_up": cancelled, "close": closing}.items():
        monkeypatch.setattr(Store, name, instead)
    graph = Graph()
    graph.output("out", graph.add(double, x=1))
    with pytest.raises(asyncio.CancelledError):
        await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    assert len(closed) == 1


def ending_the_loop_after(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel all other tasks, as an event loop does that ends, once a checkpoint is durable and before anybody hears so."""
    save, caller = Store.save, asyncio.current_task()

    async def cancelled(self: Store, history: RunHistory, snapshot: Snapshot, why: str) -> CheckpointRef:
        ref = await save(self, history, snapshot, why)
        if why == reason:
            for task in asyncio.all_tasks() - {caller}:
                task.cancel()
            await asyncio.sleep(0)
        return ref

    monkeypatch.setattr(Store, "save", cancelled)


@pytest.mark.parametrize(("waits", "reason", "ended"), [(False, "end", "completed"), (True, "suspend", "suspended")])
async def test_a_run_whose_event_loop_ends_when_its_end_is_durable_has_ended_so(
    store_url: str, waits: bool, reason: str, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    graph.output("out", graph.add(waits_for_a_word) if waits else graph.add(double, x=1))
    ending_the_loop_after(reason, monkeypatch)
    begun = asyncio.ensure_future(runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r"))
    with pytest.raises(asyncio.CancelledError):
        await begun
    assert await checkpoints(store_url) == [reason]
    assert await status(store_url) == ended


async def test_a_completed_run_whose_event_loop_ends_as_it_goes_back_is_paused_there(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    graph.output("out", graph.add(double, x=graph.add(count, n=2)))
    enable = {"checkpoint": {"every_firing": True}}
    assert (await runner(store_url).run(graph, enable=enable, run_id="r")).outputs == {"out": [0, 2]}
    ending_the_loop_after("back to 1", monkeypatch)
    begun = asyncio.ensure_future(runner(store_url).resume("r", graph=graph, checkpoint=1))
    with pytest.raises(asyncio.CancelledError):
        await begun
    assert (await checkpoints(store_url))[-1] == "back to 1"
    assert await status(store_url) == "paused"
    monkeypatch.undo()
    assert (await runner(store_url).resume("r", graph=graph)).outputs == {"out": [0, 2]}


async def test_an_older_attempt_that_wakes_is_refused(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(wait_at, x=graph.add(count, n=2)))
    old = asyncio.ensure_future(runner(store_url).run(graph, enable={"checkpoint": {"every_seconds": 0.05}}, run_id="r"))
    await called("wait")
    STOP_AT.append(0)
    with pytest.raises(RunHeld, match=r"run 'r' is held by worker .*process \d+ on host .* until 20.*--steal"):
        await runner(store_url).resume("r", graph=graph)
    assert (await runner(store_url).resume("r", graph=graph, steal=True)).outputs == {"out": [0, 1]}
    saved = await checkpoints(store_url)
    old.cancel()
    with pytest.raises((LeaseLost, asyncio.CancelledError)):  # its timer may have tried to save before
        await old
    assert await checkpoints(store_url) == saved
    assert await status(store_url) == "completed"


async def test_only_one_of_many_resumes(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(wait_at, x=1))
    task = asyncio.ensure_future(runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r"))
    await called("wait")
    task.cancel()
    await asyncio.wait((task,))
    STOP_AT.append(0)
    results = await asyncio.gather(*(runner(store_url).resume("r", graph=graph) for _ in range(5)), return_exceptions=True)
    won = [result for result in results if not isinstance(result, BaseException)]
    assert won
    assert all(result.outputs == {"out": [1]} for result in won)
    assert all(isinstance(result, RunHeld) for result in results if isinstance(result, BaseException))


async def test_what_cannot_be_stored_ends_the_run_with_its_place(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(unstorable, node_id="u", x=1))
    with pytest.raises(ValueNotStorable, match=r"run 'r', node '(out|u)'.*cannot be stored"):
        await runner(store_url).run(graph, enable={"checkpoint": {"every_firing": True}}, run_id="r")
    assert await status(store_url) == "failed"


async def test_a_time_with_a_zone_in_a_document_can_be_stored(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(when, x="2027-01-02T03:04:05Z"))
    runs = runner(store_url)
    result = await runs.run(graph, enable={"checkpoint": True}, run_id="r")
    again = await runs.resume("r")
    assert result.outputs == again.outputs == {"out": [datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)]}


async def test_inputs_that_cannot_be_stored_are_refused_before_anything_starts(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.input("x"))
    with pytest.raises(ValueNotStorable, match=r"run 'r', input 'x'\[0\] cannot be stored"):
        await runner(store_url).run(graph, {"x": [object()]}, enable={"checkpoint": True}, run_id="r")
    with pytest.raises(StoreMissing):  # not even the store was made
        await status(store_url)


@pytest.mark.parametrize(
    ("inputs", "nodes", "aside"),
    [
        ("x", 2, False),
        ("x" * 40_000, 2, True),
        ("x", 30, True),
        ([["x" * 16_000] * 32] * 32, 2, True),
        ({"x" * 40_000: 1}, 2, True),
    ],
)
async def test_what_a_run_is_started_with_is_encoded_off_the_loop_where_it_is_large(
    store_url: str, inputs: Any, nodes: int, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def defining(run: RunInfo, codec: Codec | None = None) -> Definition:
        threads.append(threading.current_thread())
        return define(run, codec)

    monkeypatch.setattr("checkpoint_plugin.tables.definition.define", defining)
    graph = Graph()
    for number in range(nodes - 1):
        graph.output(f"out{number}", graph.input("x"))
    await runner(store_url).run(graph, {"x": inputs}, enable={"checkpoint": True}, run_id="r")
    assert [thread is not threading.current_thread() for thread in threads] == [aside]


def test_a_node_id_is_as_long_as_every_database_can_index() -> None:
    for length, fits in ((INDEXED_BYTES // 2, True), (INDEXED_BYTES // 2 + 1, False)):
        info = RunInfo("r", 1, {"nodes": [{"id": "é" * length, "type": "t", "data": {}}], "edges": []}, {}, {})
        with nullcontext() if fits else pytest.raises(ValueNotStorable, match=r"node id .*longer than 1000 bytes"):
            assert define(info).body


@pytest.mark.parametrize("value", ["ü\0\n\u2028", "\udcff", 2**80, 1e300, {"\ud800": [None, True]}, {1: (2,)}])
@pytest.mark.parametrize("depth", [0, 50])
def test_the_graph_that_people_read_is_json_whatever_it_holds(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = [value]
    graph = {"nodes": [{"id": "a", "type": "t", "data": {"x": value}, "sync_mode": "on_any"}], "edges": []}
    definition = define(RunInfo("r", 1, graph, {"x": value}, {}))
    assert loads_tagged(definition.graph) == graph
    assert loads_tagged(definition.params) == {"x": value}


@pytest.mark.parametrize("odd", ["a\0b", "\ud800"])
async def test_an_id_that_no_database_keeps_is_refused_before_anything_starts(tmp_path: Path, odd: str) -> None:
    node: dict[str, Any] = {"id": "a", "type": "t", "data": {}}
    edge: dict[str, Any] = {"id": "e", "source": "a", "target": "a"}
    url = f"sqlite:///{tmp_path}/folder/c.db"
    for graph in ({"nodes": [{**node, "id": odd}], "edges": []}, {"nodes": [node], "edges": [{**edge, "id": odd}]}):
        info = RunInfo("r", 1, graph, {}, {})
        with pytest.raises(ValueNotStorable, match=r"(node|edge) id .*Rename it"):
            await checkpoint({"url": url}).before_run(info, WorkflowRun())
    assert list(tmp_path.iterdir()) == []


class WorkflowRun:
    """Hears what a plugin asks for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def request(self, reason: str) -> None:
        self.asked.append(reason)

    def hold_outputs(self, reason: str) -> None:
        self.asked.append(("hold", reason))

    def follow_outputs(self, reason: str, max_steps: int, max_bytes: int) -> None:
        self.asked.append(("follow", reason, max_steps, max_bytes))

    def degrade(self, reason: str) -> None:
        self.asked.append(("degrade", reason))

    def fail(self, error: WorkflowError) -> None:
        self.asked.append(("fail", error))

    def save_at(self, *moments: str) -> None:
        self.asked.append(moments)


async def test_a_timer_that_failed_is_told_and_the_store_closed(tmp_path: Path) -> None:
    class Broken(WorkflowRun):
        async def request(self, reason: str) -> None:
            await super().request(reason)
            raise ZeroDivisionError(reason)

    control = Broken()
    plugin = checkpoint({"url": f"sqlite:///{tmp_path}/c.db", "every_seconds": 0.001})
    info = RunInfo("r", 1, {"nodes": [], "edges": []}, {}, {})
    await plugin.before_run(info, control)
    async with asyncio.timeout(20):
        while "interval" not in control.asked:  # noqa: ASYNC110  the plugin's own timer
            await asyncio.sleep(0.01)
    with pytest.raises(ZeroDivisionError, match="interval"):
        await plugin.after_run(info, Cancelled("x"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workflow-checkpoint")]
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nobody gives a sign of life for the run any more"


async def test_a_refused_resume_leaves_the_run_as_it_was(store_url: str) -> None:
    STOP_AT.append(4)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    STOP_AT.clear()
    CALLS.clear()
    store = Store(locate(store_url), create=False)
    before = await store.job("r")
    (damaged, *_) = await store.checkpoints("r")
    await store.transact(lambda c: c.execute(update(CHECKPOINT).values(cut_hash=b"")))
    with pytest.raises(StoreDamaged):
        await runner(store_url).resume("r", graph=pipeline())
    after = await store.job("r")
    assert CALLS == []
    assert (after.status, after.error, after.finished_at) == (before.status, before.error, before.finished_at)
    assert after.attempt == before.attempt + 1
    await store.transact(lambda c: c.execute(update(CHECKPOINT).values(cut_hash=damaged.cut_hash)))
    await store.close()
    assert (await runner(store_url).resume("r", graph=pipeline())).outputs == WHOLE


async def test_a_run_that_only_says_it_is_completed_is_damaged(store_url: str) -> None:
    STOP_AT.append(4)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    store = Store(locate(store_url), create=False)
    await store.transact(lambda c: c.execute(update(JOB).values(status="completed")))
    await store.close()
    with pytest.raises(StoreDamaged, match="marked as completed"):
        await runner(store_url).resume("r", graph=pipeline())


async def test_a_run_that_goes_back_while_it_is_read_is_not_damaged(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await runner(store_url).run(pipeline(), enable={"checkpoint": {"every_firing": True}}, run_id="r")
    restore = Store.restore

    async def late(*arguments: Any, **more: Any) -> Snapshot | None:
        monkeypatch.undo()
        STOP_AT.append(4)
        with pytest.raises(NodeFailed):
            await runner(store_url).resume("r", graph=pipeline(), checkpoint=1)
        return await restore(*arguments, **more)

    monkeypatch.setattr(Store, "restore", late)
    loader = open_loader(store_url)
    stored = await loader.load("r")
    await loader.close()
    assert (stored.status, stored.attempt, stored.outputs) == ("failed", 2, None)


async def test_a_store_that_is_missing_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        await runner(f"sqlite:///{tmp_path}/none.db").resume("r")
    assert list(tmp_path.iterdir()) == []


async def test_the_url_is_never_stored(store_url: str) -> None:
    await runner("sqlite:///wrong.db").run(pipeline(), enable={"checkpoint": {"url": store_url, "on_error": True}}, run_id="r")
    loader = open_loader(store_url)
    stored = await loader.load("r")
    await loader.close()
    assert stored.enable == {"checkpoint": {"on_error": True}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_second": 1}, "no option 'every_second'. Did you mean 'every_seconds'"),
        ({"every_seconds": 0}, "above 0"),
        ({"witness": ""}, "'witness' is a folder"),
        ({"every_seconds": True}, "above 0"),
        ({"every_seconds": float("nan")}, "above 0"),
        ({"every_seconds": 10**400}, "above 0"),
        ({"every_firing": 1}, "true or false"),
        ({"durability": "later"}, '"sync"'),
        ({"explicit": True, "every_seconds": 1}, "explicit excludes every_seconds"),
        ({"url": 5}, "text"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginOptionsInvalid, match=message):
        Policy.from_options(options)


def test_policies() -> None:
    assert Policy.from_options({}) == Policy(5.0, on_error=True, on_signal=True)
    assert Policy.from_options({"every_firing": True}).every_seconds is None
    assert Policy.from_options({"explicit": True}).moments == ("suspend",)
    assert Policy.from_options({"on_signal": False, "on_suspend": False}).moments == ("error",)


async def test_a_cancelled_run_is_not_gone_on_with(store_url: str) -> None:
    STOP_AT.append(4)
    with pytest.raises(NodeFailed):
        await runner(store_url).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    STOP_AT.clear()
    await JobRepository(store_url).change("r", lambda job: job.mark_cancelled())
    CALLS.clear()
    with pytest.raises(NotResumable, match="run 'r' cannot be resumed: it is cancelled"):
        await runner(store_url).resume("r", graph=pipeline())
    assert CALLS == []
    assert await status(store_url) == "cancelled"


@node
async def cancels(x: int) -> int:
    await JobRepository(CANCELLED[0]).change("r", lambda job: job.mark_cancelled())
    return x


@node
async def never(x: int) -> int:
    await asyncio.sleep(60)
    return x


CANCELLED: list[str] = []


async def test_a_run_that_is_cancelled_while_it_is_executed_stops_and_stays_so(store_url: str) -> None:
    CANCELLED[:] = [store_url]
    graph = Graph()
    graph.output("out", graph.add(never, x=graph.add(cancels, x=1)))
    with pytest.raises(LeaseLost, match="this worker lost run 'r': it was cancelled"):
        await runner(store_url).run(graph, enable={"checkpoint": {"lease_seconds": 1}}, run_id="r")
    assert await status(store_url) == "cancelled"


async def test_a_run_that_ends_before_it_hears_that_it_is_cancelled_stays_so(store_url: str) -> None:
    CANCELLED[:] = [store_url]
    graph = Graph()
    graph.output("out", graph.add(cancels, x=1))
    assert (await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")).outputs == {"out": [1]}
    assert await status(store_url) == "cancelled"


async def test_a_refused_resume_leaves_what_a_run_waits_for(store_url: str) -> None:
    graph = Graph()
    graph.output("out", graph.add(waits_for_a_word, node_id="asks"))
    graph.output("other", graph.add(count, node_id="counts", n=1))
    await runner(store_url).run(graph, enable={"checkpoint": True}, run_id="r")
    before = await JobRepository(store_url).get("r")
    assert (before.suspended_node_id, before.suspension_reason) == ("asks", "a word")
    assert before.suspension_state_json and before.suspension_metadata_json
    with pytest.raises(NodeNotWaiting):
        await runner(store_url).resume("r", graph=graph, updates={"counts": 1})
    after = await JobRepository(store_url).get("r")
    changing = {"attempt", "version", "updated_at", "heartbeat_at", "worker_id"}
    assert after.model_dump(exclude=changing) == before.model_dump(exclude=changing)


@node
async def waits_for_a_word(context: Context) -> str:
    return str(await context.suspend("a word", {"k": 1}, {"who": "me"}))


async def test_a_run_that_is_saved_is_not_failed_by_a_lease_that_cannot_be_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)

    def hold(event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            other.execute("BEGIN IMMEDIATE")

    url = f"sqlite:///{tmp_path}/c.db?busy_seconds=0.1"
    graph = Graph()
    graph.output("out", graph.add(waits_for_a_word))
    with closing(other):
        result = await runner(url, on_event=hold).run(graph, enable={"checkpoint": {"explicit": True}}, run_id="r")
    assert result.status == "suspended"
    assert "run r: it is saved as it ended" in caplog.text and "database is locked" in caplog.text
    assert await status(url) == "suspended"


NODES_BEFORE = """
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from workflow_runner import Stream, node

@node(outputs=("number",))
async def first(x: int) -> dict[str, int]:
    return {"number": x}

@node
async def glance(item: Stream[int]) -> int:
    return await anext(item)

@node
async def second(y: int) -> AsyncIterator[int]:
    yield y
    for _ in range(20):  # the others come to their end
        await asyncio.sleep(0)
    if not Path(__file__).with_name("go").exists():
        raise ValueError("not yet")
    yield y + 1
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("async def first(x: int)", "async def first(z: int)"),
        ("number", "count"),
        ("async def first", "async def beginning"),
        ("item", "value"),
        ("async def glance", "async def peep"),
    ],
)
async def test_code_of_nodes_that_are_over_need_not_fit_any_more(tmp_path: Path, store_url: str, old: str, new: str) -> None:
    """Not even that of those next to a node that goes on; that of others is not looked at either."""
    graph = Graph.from_document(
        {
            "nodes": [
                {"id": "first", "type": "nodes.first", "data": {"x": 1}},
                {"id": "second", "type": "nodes.second"},
                {"id": "glance", "type": "nodes.glance"},
                {"id": "out", "type": "workflow.Output"},
                {"id": "seen", "type": "workflow.Output"},
            ],
            "edges": [
                {"source": "first", "sourceHandle": "number", "target": "second", "targetHandle": "y"},
                {"source": "second", "target": "glance", "targetHandle": "item"},
                {"source": "second", "target": "out", "targetHandle": "value"},
                {"source": "glance", "target": "seen", "targetHandle": "value"},
            ],
        }
    )
    for folder, text in (("before", NODES_BEFORE), ("after", NODES_BEFORE.replace(old, new))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nodes.py").write_text(text)
    (tmp_path / "after" / "go").touch()
    with pytest.raises(NodeFailed, match="not yet"):
        await WorkflowRunner(plugins=Host(store_url), nodes=[tmp_path / "before" / "nodes.py"]).run(
            graph, enable={"checkpoint": True}, run_id="r"
        )
    result = await WorkflowRunner(plugins=Host(store_url), nodes=[tmp_path / "after" / "nodes.py"]).resume("r")
    assert result.outputs == {"out": [1, 2], "seen": [1]}
