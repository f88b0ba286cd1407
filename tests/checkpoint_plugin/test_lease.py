"""Who may execute a run: taken, renewed, lost, let go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from checkpoint_plugin import CheckpointManager, Job, JobRepository
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreUnreachable
from checkpoint_plugin.models import JOB, LEASE
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.heartbeat import Heartbeat
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease, database_now, first_epoch, take_lease
from hookspecs import LeaseLost, NodeSnapshot, Refusal, RunHeld, RunNotFound, RunStatus, Snapshot
from tests.checkpoint_plugin.test_store import definition
from workflow_runner import Context, Graph, NodeFailed, WorkflowRunner, node


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


def elsewhere(name: str = "another") -> Holder:
    """A worker of a host of which this one knows nothing."""
    return Holder(name, "otherhost#0123456789ab", 1, 5.0)


async def take(store: Store, holder: Holder, seconds: float = 30.0, *, steal: bool = False) -> Lease:
    return await store.transact(lambda connection: take_lease(connection, "r", holder, seconds, steal=steal))


async def row(store: Store) -> Any:
    return await store.transact(lambda connection: connection.execute(select(LEASE)).one(), write=False)


async def let_expire(store: Store) -> None:
    def work(connection: Any) -> None:
        connection.execute(update(LEASE).values(expires_at=database_now(connection) - timedelta(microseconds=1)))

    await store.transact(work)


async def test_a_held_run_is_refused_with_who_and_until_when(store: Store) -> None:
    lease = await store.insert_job("r", definition(), elsewhere(), 30.0)
    assert lease is not None
    with pytest.raises(RunHeld) as caught:
        await take(store, Holder.here())
    assert caught.value.exit_code == 4
    assert caught.value.until == lease.expires_at
    text = str(caught.value)
    assert "worker another, process 1 on host otherhost until " in text
    assert "--steal" in text
    assert (await row(store)).owner == "another"
    assert await store.holder("r") == (elsewhere(), lease.expires_at)
    await let_expire(store)
    assert await store.holder("r") is None


async def test_a_worker_does_not_take_twice_what_it_holds(store: Store) -> None:
    holder = Holder.here("w")
    await store.insert_job("r", definition(), holder, 30.0)
    with pytest.raises(RunHeld, match="worker w"):
        await take(store, holder)
    assert (await row(store)).epoch == 1


async def test_epochs_only_grow(store: Store) -> None:
    await store.insert_job("r", definition(), elsewhere())
    stolen = await take(store, elsewhere("b"), steal=True)
    assert stolen.epoch > 1
    assert stolen.taken_from is not None
    told, until = stolen.taken_from.split(", who held it until ")
    assert told == "worker another, process 1 on host otherhost"
    assert datetime.fromisoformat(until) > datetime.now(UTC)
    await let_expire(store)
    after = await take(store, elsewhere("c"))
    assert after.epoch > stolen.epoch
    assert after.taken_from is None
    await store.end_attempt("r", after.epoch, None)
    assert (await row(store)).owner is None
    ahead = after.epoch + 10_000_000  # by a host whose clock is
    await store.transact(lambda connection: connection.execute(update(LEASE).values(epoch=ahead)))
    assert (await take(store, elsewhere("d"))).epoch == ahead + 1


async def test_a_worker_of_a_deleted_run_writes_nothing_of_the_one_that_has_its_id(store: Store, store_url: str) -> None:
    """It was stopped, as by the sleep of a laptop, when another took the run, brought it to its end, and the run was deleted."""

    async def run() -> Lease:
        await WorkflowRunner().run(Graph(), enable={"checkpoint": {"url": store_url}}, run_id="r")
        found = await row(store)
        return Lease("r", Holder.here(), found.epoch, found.generation, datetime.now(UTC))

    stale = await run()
    await prune_runs(store, Retention(drop_finished=0))
    with pytest.raises(RunNotFound):
        await store.job("r")
    newer = await run()
    assert newer.epoch > stale.epoch
    newest = (await row(store)).newest_number
    history = RunHistory("r", 1, stale.epoch)
    history.number = newest
    with pytest.raises(LeaseLost):
        await store.renew(stale, 30.0)
    with pytest.raises(LeaseLost):
        await store.save(history, Snapshot("r", 1, "running", (NodeSnapshot("a", "running"),), datetime.now(UTC)), "why")
    assert (await row(store)).newest_number == newest


async def test_of_two_workers_only_one_holds_a_run_though_the_database_forgot_the_first(store: Store) -> None:
    """As where an older copy took its place, or a standby that lacks the last commits."""
    await store.insert_job("r", definition())
    older = (await row(store))._asdict()
    forgotten = await take(store, elsewhere("a"))
    await store.transact(lambda connection: connection.execute(update(LEASE).values(older)))
    while first_epoch() <= forgotten.epoch:
        pass  # a millisecond at most
    lease = await take(store, elsewhere("b"))
    assert lease.epoch > forgotten.epoch
    with pytest.raises(LeaseLost):
        await store.renew(forgotten, 30.0)
    await store.end_attempt("r", forgotten.epoch, None)
    assert await store.holder("r") == (elsewhere("b"), lease.expires_at)


async def test_who_had_a_deleted_run_that_was_saved_by_hand_has_none_that_has_its_id(store: Store) -> None:
    graph = {"nodes": [{"id": "a"}], "edges": []}

    async def saved() -> CheckpointManager:
        manager = CheckpointManager("r", enabled=True, store=store)
        assert await manager.save_checkpoint(graph, {"a"})
        assert await manager.save_checkpoint(graph, {"a"})
        return manager

    manager = await saved()
    stale = await take(store, elsewhere("a"))
    await let_expire(store)
    await JobRepository(store=store).change("r", Job.mark_completed)
    await prune_runs(store, Retention(drop_finished=0))
    with pytest.raises(RunNotFound):
        await store.job("r")
    await saved()
    with pytest.raises(LeaseLost):
        await manager.save_checkpoint(graph, {"a"})
    assert (await take(store, elsewhere("b"))).epoch > stale.epoch
    with pytest.raises(LeaseLost):
        await store.renew(stale, 30.0)


async def test_who_lost_it_lets_nothing_go(store: Store) -> None:
    await store.insert_job("r", definition(), elsewhere("a"))
    await take(store, elsewhere("b"), steal=True)
    await store.end_attempt("r", 1, None)
    assert (await row(store)).owner == "b"


@pytest.mark.parametrize("status", ["running", "completed", "failed", "suspended", "paused"])
async def test_a_save_lets_a_run_go_only_where_it_completes_it(store: Store, status: RunStatus) -> None:
    lease = await store.insert_job("r", definition(), elsewhere())
    assert lease is not None
    history = RunHistory("r", 1, lease.epoch)
    for at_last in ("running", status):
        await store.save(history, Snapshot("r", 1, at_last, (NodeSnapshot("a", "running"),), datetime.now(UTC)), "why")
    held = await row(store)
    completes = status == "completed"
    assert (held.owner, held.pid, held.expires_at) == ((None,) * 3 if completes else ("another", 1, lease.expires_at))
    await store.renew(lease, 60.0)  # a sign of life that was on its way
    assert ((await row(store)).expires_at is None) == completes
    assert await store.holder("r") == (None if completes else (elsewhere(), (await row(store)).expires_at))


async def test_a_run_that_is_not_there(store: Store) -> None:
    with pytest.raises(RunNotFound):
        await take(store, Holder.here())


def test_a_process_of_this_host_that_is_over_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        here = Holder.here()
        there = replace(here, pid=child.pid)
        assert not here.is_gone
        assert not replace(here, owner="b").is_gone
        assert replace(here, started=(here.started or 0) - 1).is_gone, "the number was given to another process"
        assert not replace(there, started=None).is_gone
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert there.is_gone, "a zombie executes nothing"
    assert there.is_gone
    assert not replace(there, host="otherhost#0123456789ab").is_gone, "of another host this one cannot tell"
    assert not Holder("b").is_gone


async def test_a_heartbeat_renews_until_it_stops(store: Store) -> None:
    failed: list[Refusal] = []
    lease = await store.insert_job("r", definition(), Holder.here(), 0.6)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 0.6, failed.append)
    async with asyncio.timeout(20):
        while (await row(store)).expires_at < lease.expires_at + timedelta(seconds=1):  # noqa: ASYNC110  it lives in the database
            await asyncio.sleep(0.05)
    with pytest.raises(RunHeld):
        await take(store, elsewhere())
    beat = await store.transact(lambda connection: connection.execute(select(JOB.c.heartbeat_at)).scalar_one(), write=False)
    assert abs(beat - datetime.now(UTC)) < timedelta(seconds=20)
    await heartbeat.stop()
    assert failed == []


async def test_a_heartbeat_tells_of_a_lease_that_was_taken(store: Store) -> None:
    failed: list[Refusal] = []
    lease = await store.insert_job("r", definition(), Holder.here(), 0.6)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 0.6, failed.append)
    stolen = await take(store, elsewhere("thief"), steal=True)
    async with asyncio.timeout(20):
        while not failed:  # noqa: ASYNC110  the heartbeat's own time
            await asyncio.sleep(0.02)
    await heartbeat.stop()
    (error,) = failed
    assert isinstance(error, LeaseLost)
    assert (error.epoch, error.current) == (1, stolen.epoch)
    assert "worker thief" in str(error)


async def test_a_lease_that_cannot_be_renewed_stops_the_run_before_it_ends(store: Store, store_url: str) -> None:
    """Another program holds the database: a renewal cannot be written, though everything else still works."""
    failed: list[Refusal] = []
    lease = await store.insert_job("r", definition(), Holder.here(), 1.2)
    assert lease is not None
    other = Store(locate(store_url), create=False)
    held, done = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: Any) -> None:
        connection.execute(select(LEASE).with_for_update()).all()
        loop.call_soon_threadsafe(held.set)
        if connection.kind == "sqlite":
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result(30)
        else:
            connection.core.exec_driver_sql("SELECT pg_sleep(3)")

    holding = asyncio.ensure_future(other.transact(hold))
    await held.wait()
    heartbeat = Heartbeat(store, lease, 1.2, failed.append)
    async with asyncio.timeout(20):
        while not failed:  # noqa: ASYNC110  the heartbeat's own time
            await asyncio.sleep(0.02)
    done.set()
    await holding
    await heartbeat.stop()
    await other.close()
    (error,) = failed
    assert isinstance(error, LeaseLost)
    assert "could not be renewed for 1.2 seconds" in str(error)


async def test_a_lease_of_which_one_hears_late_is_renewed_at_once(store: Store) -> None:
    began = time.monotonic() - 200  # more than a third of it
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, lambda error: None, began)
    async with asyncio.timeout(20):
        while (await row(store)).expires_at == lease.expires_at:  # noqa: ASYNC110  it lives in the database
            await asyncio.sleep(0.02)
    await heartbeat.stop()


async def test_who_still_has_its_epoch_when_the_machine_has_slept_goes_on(store: Store) -> None:
    failed: list[Refusal] = []
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, failed.append, time.monotonic() - 1_000)
    async with asyncio.timeout(20):
        while (await row(store)).expires_at == lease.expires_at and not failed:  # noqa: ASYNC110  it lives in the database
            await asyncio.sleep(0.02)
    await heartbeat.stop()
    assert failed == []


async def test_a_renewal_that_fails_when_the_lease_has_ended_stops_the_run_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, failed = list[int](), list[Refusal]()
    stopped = asyncio.Event()

    async def refuse(*arguments: Any) -> datetime:
        asked.append(len(asked))
        raise StoreUnreachable("it is away", undone=True)

    def fail(error: Refusal) -> None:
        failed.append(error)
        stopped.set()

    monkeypatch.setattr(Store, "renew", refuse)
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, fail, time.monotonic() - 301)
    async with asyncio.timeout(20):
        await stopped.wait()
    await heartbeat.stop()
    assert asked == [0]
    assert isinstance(failed[0], LeaseLost) and "could not be renewed for 300 seconds" in str(failed[0])


async def test_a_renewal_that_fails_is_tried_again_for_as_long_as_the_one_before_it_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, asked, failed = Store.renew, list[int](), list[Refusal]()

    async def refuse_the_second(self: Store, lease: Lease, seconds: float) -> datetime:
        asked.append(len(asked))
        if len(asked) == 2:
            raise StoreUnreachable("it is away", undone=True)
        return await renew(self, lease, seconds)

    monkeypatch.setattr(Store, "renew", refuse_the_second)
    lease = await store.insert_job("r", definition(), Holder.here(), 3.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 3.0, failed.append, time.monotonic() - 2.9)  # the first renewal is nearly too late
    async with asyncio.timeout(20):
        while len(asked) < 3 and not failed:  # noqa: ASYNC110  the heartbeat's own time
            await asyncio.sleep(0.02)
    await heartbeat.stop()
    assert failed == []


async def test_a_renewal_that_is_tried_again_gets_no_answer_after_the_lease_has_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a database whose host refuses connections for a while, and then answers nothing."""
    now, asked, failed = 299.5, list[int](), list[Refusal]()
    stopped, answers = asyncio.Event(), asyncio.Event()

    async def refuse_and_hang(*arguments: Any) -> datetime:
        nonlocal now
        asked.append(len(asked))
        if len(asked) > 1:
            now = 300.0
            await answers.wait()
        raise StoreUnreachable("it is away", undone=True)

    def fail(error: Refusal) -> None:
        failed.append(error)
        stopped.set()

    monkeypatch.setattr(Store, "renew", refuse_and_hang)
    monkeypatch.setattr("checkpoint_plugin.runs.heartbeat.time", SimpleNamespace(monotonic=lambda: now))
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, fail, 0.0)
    async with asyncio.timeout(20):
        await stopped.wait()
    answers.set()
    await heartbeat.stop()
    assert asked == [0, 1]
    assert "could not be renewed for 300 seconds (the store does not answer)" in str(failed[0])


async def test_a_renewal_that_breaks_is_tried_again_as_one_that_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    renew, asked, failed = Store.renew, list[int](), list[Refusal]()

    async def break_once(self: Store, lease: Lease, seconds: float) -> datetime:
        asked.append(len(asked))
        if len(asked) == 1:
            raise RuntimeError("can't start new thread")
        return await renew(self, lease, seconds)

    monkeypatch.setattr(Store, "renew", break_once)
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, failed.append, time.monotonic() - 200)
    async with asyncio.timeout(20):
        while (await row(store)).expires_at == lease.expires_at and not failed:  # noqa: ASYNC110  it lives in the database
            await asyncio.sleep(0.02)
    await heartbeat.stop()
    assert (asked, failed) == ([0, 1], [])


async def test_a_renewal_that_stays_broken_stops_the_run_with_its_cause(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, stopped = list[Refusal](), asyncio.Event()

    async def break_down(*arguments: Any) -> datetime:
        raise ZeroDivisionError("by zero")

    def fail(error: Refusal) -> None:
        failed.append(error)
        stopped.set()

    monkeypatch.setattr(Store, "renew", break_down)
    lease = await store.insert_job("r", definition(), Holder.here(), 300.0)
    assert lease is not None
    heartbeat = Heartbeat(store, lease, 300.0, fail, time.monotonic() - 301)
    async with asyncio.timeout(20):
        await stopped.wait()
    await heartbeat.stop()
    (error,) = failed
    assert isinstance(error, LeaseLost) and isinstance(error.__cause__, ZeroDivisionError)
    assert "could not be renewed for 300 seconds (ZeroDivisionError: by zero)" in str(error)


@node
async def fails_once(x: int, context: Context) -> int:
    if context.attempt == 1:
        raise ValueError("not yet")
    return x


async def test_the_lease_of_a_run_is_counted_from_before_it_was_asked_for(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may come late: lost, and the server away. What counts is when the lease was written."""
    made, asked, counted = Heartbeat.__init__, list[float](), list[float]()
    insert, begin = Store.insert_job, Store.begin_attempt

    async def insert_job(*arguments: Any, **more: Any) -> Any:
        asked.append(time.monotonic())
        return await insert(*arguments, **more)

    async def begin_attempt(*arguments: Any, **more: Any) -> Any:
        asked.append(time.monotonic())
        return await begin(*arguments, **more)

    def count_from(self: Heartbeat, store: Store, lease: Lease, seconds: float, fail: Any, began: float) -> None:
        counted.append(began)
        made(self, store, lease, seconds, fail, began)

    monkeypatch.setattr(Store, "insert_job", insert_job)
    monkeypatch.setattr(Store, "begin_attempt", begin_attempt)
    monkeypatch.setattr(Heartbeat, "__init__", count_from)
    graph, runner = Graph(), WorkflowRunner()
    graph.output("out", graph.add(fails_once, x=1))
    with pytest.raises(NodeFailed):
        await runner.run(graph, enable={"checkpoint": {"url": store_url}}, run_id="r")
    assert (await runner.resume("r", graph=graph, url=store_url)).outputs == {"out": [1]}
    assert [began <= moment for began, moment in zip(counted, asked, strict=True)] == [True, True]
