"""PostgreSQL behind a line that breaks: what was written is known, or found out, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, text

from checkpoint_plugin import CheckpointManager, EventLogger, JobRepository, RecoveryService, StateManager, update_suspended_state
from checkpoint_plugin.database import postgresql_connection
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, StoreUnreadable, ValueNotStorable, WriterStopped
from checkpoint_plugin.models import Job
from checkpoint_plugin.saving import statements, writing
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.job import JobEnd
from checkpoint_plugin.tables.lease import Lease
from checkpoint_plugin.tables.node_rows import lock_epoch
from hookspecs import NodeSnapshot, RunExists, RunHeld, Snapshot, Suspension
from tests.checkpoint_plugin.proxy import COMMIT, Proxy
from tests.checkpoint_plugin.test_store import cut, definition
from tests.postgres import execute

HOLDER = Holder("first:worker")
THROW_OUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
GUARD_SECONDS = 60
"""A test that hangs is a failure, not a wait."""


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url) as proxy, asyncio.timeout(GUARD_SECONDS):
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[Store]:
    store = Store(locate(proxy.url), create=True)
    await store.jobs()
    yield store
    await store.close()


def a(state: Any, run_id: str = "r") -> Snapshot:
    return cut(NodeSnapshot("a", "running", state=state), run_id=run_id)


async def numbers(store: Store, run_id: str = "r") -> list[int]:
    return [row.number for row in await store.checkpoints(run_id)]


async def turns_to(connection: Any, question: str, answer: object) -> None:
    """Ask until the answer is this one."""
    for _ in range(500):
        if await connection.fetchval(question) == answer:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(question)


async def test_saves_and_transactions_share_a_connection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, made = asyncpg.connect, []

    async def counted(*arguments: Any, **more: Any) -> Any:
        made.append(1)
        return await connect(*arguments, **more)

    monkeypatch.setattr("checkpoint_plugin.database.postgresql.asyncpg.connect", counted)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in range(1, 5):
        await store.save(history, a(number), "1")
        assert await numbers(store) == list(range(1, number + 1))
    assert made == [], "the first was made with the store"

    async def save_all() -> None:
        for number in range(20):
            await store.save(history, a([number]), "1")

    saving = asyncio.create_task(save_all())
    while not saving.done():
        await numbers(store)  # a transaction beside a save has a connection of its own
    await saving
    assert await numbers(store) == list(range(1, 25)) and made


async def test_runs_that_share_a_store_begin_and_end_while_others_are_saved(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, broken = asyncpg.Connection.fetchrow, []

    async def watched(connection: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return await fetch(connection, *arguments, **more)
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            broken.append(error)
            raise

    monkeypatch.setattr(asyncpg.Connection, "fetchrow", watched)
    store = Store(locate(postgres_url), create=True)

    async def execute(run_id: str) -> None:
        await store.insert_job(run_id, definition(run_id), HOLDER)
        history = RunHistory(run_id, 1, 1)
        for number in range(5):
            await store.save(history, a(number, run_id), "1")
        await store.end_attempt(run_id, 1, None)

    await store.jobs()
    async with asyncio.TaskGroup() as group:
        for run_id in "abcdefgh":
            group.create_task(execute(run_id))
    assert [await numbers(store, run_id) for run_id in "abcdefgh"] == [[1, 2, 3, 4, 5]] * 8
    await store.close()
    assert broken == [], "no two use a connection at once"


async def test_a_server_is_asked_once_what_its_arrays_are(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also, this is how a version of asyncpg is found out that calls the question otherwise."""
    monkeypatch.setattr(postgresql_connection, "_KNOWN", {})
    ask, asked = asyncpg.Connection._introspect_types, []

    async def counted(connection: Any, numbers: Any, timeout: Any) -> Any:
        asked.append(numbers)
        return await ask(connection, numbers, timeout)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", counted)
    for run_id in ("r", "s", "t"):
        store = Store(locate(postgres_url), create=True)
        await store.insert_job(run_id, definition(run_id))
        history = RunHistory(run_id, 1, 1)
        await store.save(history, a([1], run_id), "1")
        await store.save(history, a(os.urandom(5_000), run_id), "2")  # rows of another table, with arrays of other numbers
        assert len(await store.checkpoints(run_id)) == 2
        await store.close()
    assert len(asked) == 1


# A commit whose answer is lost.


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_a_save_is_done_once(proxy: Proxy, store: Store, reply: bool, size: int) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, a(os.urandom(size)), "1")
    second = os.urandom(size)
    proxy.cut(b"" if size == 10 else COMMIT, reply=reply)
    ref = await store.save(history, a(second), "2")
    assert (ref.number, proxy.cuts) == (2, 1)
    await store.save(history, a("third"), "3")
    assert await numbers(store) == [1, 2, 3]
    found = await store.restore(RunHistory("r", 1, 1), 2)
    assert found is not None
    assert found.nodes[0].state == second


@pytest.mark.parametrize("reply", [True, False])
async def test_a_save_of_which_nobody_heard_is_gone_on_from(proxy: Proxy, reply: bool) -> None:
    """As with best effort: the next save holds more, so it is not the one that was tried."""
    store = Store(locate(f"{proxy.url}&reconnect_seconds=0.01"), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for state in ("begun", "first"):  # from here on the statement is prepared, and one message is a save
        await store.save(history, a(state), state)
    proxy.cut(b"", reply=reply)
    with pytest.raises(StoreUnreachable):
        await store.save(history, a("second"), "2")
    for state in ("third", "fourth"):
        await store.save(history, a(state), state)
    await store.close()
    store = Store(locate(proxy.url), create=False)
    wanted = ["begun", "first", *["second"] * reply, "third", "fourth"]
    for number, state in enumerate(wanted, 1):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        assert found.nodes[0].state == state
    assert await numbers(store) == list(range(1, len(wanted) + 1))
    await store.close()


@pytest.mark.parametrize("sent", [True, False])
async def test_a_save_of_which_nobody_heard_is_gone_on_from_after_others_that_failed(proxy: Proxy, sent: bool) -> None:
    """As when the server stays away for longer than one save is tried: the first of them was written."""
    store = Store(locate(f"{proxy.url}&reconnect_seconds=0.01"), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for state in ("begun", "first"):
        await store.save(history, a(state), state)
    proxy.cut(b"")
    for state in ("second", "third", "fourth"):
        with pytest.raises(StoreUnreachable):
            await store.save(history, a(state), state)
        proxy.cut(b"INSERT INTO checkpoint " if sent else b"", reply=False)
    proxy.cut(b"never sent")
    await store.save(history, a("fifth"), "5")
    assert (await numbers(store), history.unheard) == ([1, 2, 3, 4], [])
    for number, state in ((3, "second"), (4, "fifth")):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None and found.nodes[0].state == state
    await store.close()


@pytest.mark.parametrize("reply", [True, False])
async def test_saves_that_share_a_connection_are_done_once_each(proxy: Proxy, store: Store, reply: bool) -> None:
    runs = [f"r{number}" for number in range(5)]
    histories = [RunHistory(run_id, 1, 1) for run_id in runs]
    for run_id in runs:
        await store.insert_job(run_id, definition())
    proxy.cut(b"INSERT INTO checkpoint ", reply=reply)
    await asyncio.gather(*(store.save(history, a("x", history.run_id), "1") for history in histories))
    assert proxy.cuts == 1
    for history in histories:
        await store.save(history, a("y", history.run_id), "2")
        assert await numbers(store, history.run_id) == [1, 2]


async def test_who_waits_in_line_has_all_its_time_left_where_the_server_goes_away_then(proxy: Proxy, postgres_url: str) -> None:
    store = Store(locate(f"{proxy.url}&reconnect_seconds=0.3"), create=True)
    histories = [RunHistory(run_id, 1, 1) for run_id in "rs"]
    for history in histories:
        await store.insert_job(history.run_id, definition())
        await store.save(history, a("x", history.run_id), "1")
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT FROM lease WHERE run_id = 'r' FOR UPDATE")
        saves = [asyncio.create_task(store.save(history, a("y", history.run_id), "2")) for history in histories]
        await turns_to(other, WAITING, 1)
        await asyncio.sleep(0.5)  # longer than a server may be away
        proxy.cut(b"", reply=False)
    assert [(await save).number for save in saves] == [2, 2]
    assert proxy.cuts == 1
    await other.close()
    await store.close()


@pytest.mark.parametrize("reply", [True, False])
async def test_a_line_that_breaks_in_a_shared_transaction_loses_none(proxy: Proxy, store: Store, reply: bool) -> None:
    histories = [RunHistory(f"r{number}", 1, 1) for number in range(5)]
    for history in histories:
        await store.insert_job(history.run_id, definition())
    proxy.cut(b"RELEASE SAVEPOINT", reply=reply)
    saves = [CutWriter(history, a("x", history.run_id), "1", store.codec) for history in histories]
    assert all(await asyncio.gather(*map(store.write, saves)))
    assert proxy.cuts == 1
    assert [await numbers(store, history.run_id) for history in histories] == [[1]] * 5


async def begin_once(proxy: Proxy, store: Store) -> None:
    lease = await store.insert_job("r", definition(), HOLDER)
    assert lease is not None
    assert (lease.epoch, proxy.cuts) == (1, 1)
    await store.renew(lease, 30)
    with pytest.raises(RunExists):
        await store.insert_job("r", definition(), HOLDER)
    await store.save(RunHistory("r", 1, lease.epoch), a("x"), "1")


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("at", [b"INSERT INTO job", b"first:worker"])
async def test_a_run_is_begun_once(proxy: Proxy, store: Store, at: bytes, reply: bool) -> None:
    proxy.cut(at, reply=reply)  # in the message that prepares the statement, or in the one that has its values
    await begin_once(proxy, store)


@pytest.mark.parametrize("reply", [True, False])
async def test_the_first_run_of_a_store_is_begun_once(proxy: Proxy, reply: bool) -> None:
    store = Store(locate(proxy.url), create=True)
    try:
        proxy.cut(reply=reply, after=b"first:worker")
        await begin_once(proxy, store)
    finally:
        await store.close()


@pytest.mark.parametrize("at", [b"second:worker", COMMIT])
async def test_a_run_of_another_is_not_taken_for_ones_own(proxy: Proxy, store: Store, at: bytes) -> None:
    await store.insert_job("r", definition(), HOLDER)
    proxy.cut(at)
    with pytest.raises(RunExists):
        await store.insert_job("r", definition(), Holder("second:worker"))


@pytest.mark.parametrize("reply", [True, False])
async def test_a_run_is_taken_once(proxy: Proxy, store: Store, reply: bool) -> None:
    await store.insert_job("r", definition(), HOLDER)
    await store.end_attempt("r", 1, JobEnd("failed", "why", None))
    proxy.cut(reply=reply)
    lease, before = await store.begin_attempt("r", 2, HOLDER)
    assert (before.status, before.error, proxy.cuts) == ("failed", "why", 1)
    await store.renew(lease, 30)
    with pytest.raises(RunHeld):
        await store.begin_attempt("r", 3, Holder("second:worker"))


@pytest.mark.parametrize("reply", [True, False])
async def test_a_run_is_let_go(proxy: Proxy, store: Store, reply: bool) -> None:
    await store.insert_job("r", definition(), HOLDER)
    proxy.cut(reply=reply)
    await store.end_attempt("r", 1, JobEnd("failed", "why", None))
    assert ((await store.job("r")).status, await store.holder("r"), proxy.cuts) == ("failed", None, 1)


@pytest.mark.parametrize("reply", [True, False])
async def test_a_run_whose_end_is_saved_is_let_go(proxy: Proxy, store: Store, reply: bool) -> None:
    await store.insert_job("r", definition(), HOLDER)
    proxy.cut(b"", reply=reply)
    await store.end_attempt("r", 1, None)
    assert (await store.holder("r"), proxy.cuts) == (None, 1)


@pytest.mark.parametrize("reply", [True, False])
async def test_a_run_is_claimed_once(proxy: Proxy, store: Store, reply: bool) -> None:
    await store.insert_job("r", definition())
    resumed = []

    async def resume(run_id: str) -> None:
        job = await JobRepository(store=store).get(run_id)
        resumed.append((run_id, job.status, job.retry_count))
        await JobRepository(store=store).change(run_id, lambda job: job.mark_completed())

    service = RecoveryService("first:worker", url=proxy.url, execute=resume)
    proxy.cut(after=b"first:worker", reply=reply)
    assert [outcome.status for outcome in await service.recover_all(0)] == ["completed"]
    assert (resumed, proxy.cuts) == ([("r", "recovering", 1)], 1)
    assert (await JobRepository(store=store).get("r")).retry_count == 0


@pytest.mark.parametrize("reply", [True, False])
async def test_a_run_is_set_aside_once(proxy: Proxy, store: Store, reply: bool) -> None:
    await store.insert_job("r", definition())
    await JobRepository(store=store).change("r", lambda job: setattr(job, "retry_count", 5))
    service = RecoveryService("first:worker", url=proxy.url, execute=lambda run_id: asyncio.sleep(0))
    proxy.cut(after=b"came to no end", reply=reply)
    assert [outcome.status for outcome in await service.recover_all(0)] == ["set_aside"]
    assert proxy.cuts == 1


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("after", [b"first:worker", b"UPDATE lease SET owner=NULL"])
async def test_a_run_saved_by_hand_is_taken_and_let_go_once(proxy: Proxy, store: Store, after: bytes, reply: bool) -> None:
    await CheckpointManager("r", enabled=True, store=store).save_checkpoint(completed_nodes={"a"})
    resumed = []

    async def resume(run_id: str) -> None:
        resumed.append(run_id)

    service = RecoveryService("first:worker", url=proxy.url, execute=resume)
    proxy.cut(after=after, reply=reply)
    outcome = await service.resume("r")
    assert (outcome.status, resumed, proxy.cuts) == ("completed", ["r"], 1)
    assert await store.holder("r") is None


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("after", [b"UPDATE lease SET epoch", b"UPDATE lease SET owner=NULL"])
async def test_an_answer_is_given_once(proxy: Proxy, store: Store, after: bytes, reply: bool) -> None:
    await store.insert_job("r", definition())
    waits = NodeSnapshot("a", "suspended", suspension=Suspension("may it?", datetime.now(UTC)))
    await store.save(RunHistory("r", 1, 1), replace(cut(waits), status="suspended"), "1")
    proxy.cut(after=after, reply=reply)
    await update_suspended_state("r", "a", "yes", url=proxy.url)
    assert (proxy.cuts, await numbers(store), await store.holder("r")) == (1, [1, 2], None)


@pytest.mark.parametrize("is_new", [True, False])
async def test_events_of_a_commit_that_is_still_under_way_are_logged_once(
    proxy: Proxy, postgres_url: str, store: Store, is_new: bool
) -> None:
    connection = await asyncpg.connect(postgres_url)
    async with EventLogger("r", url=proxy.url, blocking={"x"}) as log:
        if not is_new:
            await log.log("x", payload={"i": 0})
        late = asyncio.Event()
        proxy.cut(after=b"INSERT INTO event_head" if is_new else b"", late=late)
        logged = asyncio.create_task(log.log("x", payload={"i": 1}))
        waiting = f"{OTHERS} AND wait_event_type = 'Lock'"
        await turns_to(connection, waiting, 1)
        late.set()
        await logged
        assert [event.payload["i"] for event in await log.events()] == ([1] if is_new else [0, 1])
    await connection.close()


@pytest.mark.parametrize("then", [StoreUnreachable("nobody listens", undone=True), StoreBusy("nobody listens")])
async def test_what_may_have_been_done_is_told_as_that_though_the_server_stays_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, then: StoreUnreadable
) -> None:
    tries = [StoreUnreachable("Whether it was written is not known"), then]

    async def away(*arguments: Any) -> Any:
        raise tries.pop(0)

    monkeypatch.setattr(store, "transact", away)
    with pytest.raises(StoreUnreachable, match="Whether it was written is not known") as caught:
        await store.let_go(Lease("r", HOLDER, 1, 0, datetime.now(UTC)))
    assert (tries, caught.value.undone, str(caught.value.__cause__)) == ([], False, "nobody listens")


async def test_what_may_have_been_done_is_not_done_again(proxy: Proxy, store: Store) -> None:
    counted = select(func.count()).select_from(text("checkpoint_schema"))
    calls = []

    def work(connection: Connection) -> int:
        calls.append(1)
        found: int = connection.execute(counted).scalar_one()
        return found

    proxy.cut(reply=False)
    with pytest.raises(StoreUnreachable, match="Whether it was written is not known") as caught:
        await store.transact(work)
    assert (len(calls), caught.value.undone) == (1, False)
    proxy.cut(b"checkpoint_schema")
    assert await store.transact(work) == 1
    assert len(calls) == 3


@pytest.mark.parametrize("at", [b"", b"BEGIN", b"FROM checkpoint"])
async def test_what_only_reads_is_read_again(proxy: Proxy, store: Store, at: bytes) -> None:
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), a("x"), "1")
    proxy.cut(at)
    assert await numbers(store) == [1]
    assert proxy.cuts == 1


class Slow:
    """A write of a run that takes some time, in which another transaction locks another run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def encode(self) -> None:
        """Nothing."""

    def write(self, connection: Connection) -> int | None:
        epoch = lock_epoch(connection, self.run_id)
        connection.execute(select(func.pg_sleep(0.1)))
        return epoch


async def test_transactions_that_lock_the_same_runs_do_not_wait_for_each_other_in_a_circle(postgres_url: str) -> None:
    stores = [Store(locate(postgres_url), create=True) for _ in range(2)]
    for run_id in "abcd":
        await stores[0].insert_job(run_id, definition())
    await stores[1].jobs()  # both are open
    orders = ("cab", "dba")  # the first is alone, and the others share a transaction
    writes = [store.write(Slow(run_id)) for store, order in zip(stores, orders, strict=True) for run_id in order]
    assert await asyncio.gather(*writes) == [1] * 6
    for store in stores:
        await store.close()


# Waits that end.


async def test_a_server_that_says_nothing_is_given_up(proxy: Proxy) -> None:
    url = f"{proxy.url}&statement_seconds=0.2&connect_seconds=0.2&reconnect_seconds=0.5&pgbouncer=1"
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    proxy.silent = True
    with pytest.raises(StoreUnreachable):
        await store.jobs()
    with pytest.raises(StoreUnreachable):
        await store.save(RunHistory("r", 1, 1), a("x"), "1")
    proxy.silent = False
    await store.save(RunHistory("r", 1, 1), a("x"), "1")
    assert await numbers(store) == [1]
    await store.close()


async def test_a_store_is_closed_though_the_server_says_nothing(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_plugin.database.postgresql.CLOSE_SECONDS", 0.2)
    store = Store(locate(proxy.url), create=True)
    lease = await store.insert_job("r", definition(), HOLDER)
    assert lease is not None
    await store.save(RunHistory("r", 1, 1), a("x"), "1")
    await store.renew(lease, 30)
    proxy.silent = True
    async with asyncio.timeout(GUARD_SECONDS / 4):
        await store.close()


async def test_a_save_waits_for_no_thread_of_the_event_loop(postgres_url: str) -> None:
    store, go = Store(locate(postgres_url), create=True), threading.Event()
    await store.insert_job("r", definition())
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.create_task(asyncio.to_thread(go.wait, 6))
    try:
        async with asyncio.timeout(5):
            await store.save(RunHistory("r", 1, 1), a(["x"] * 100_000), "1")
            assert await store.restore(RunHistory("r", 1), None) is not None
            await store.close()
    finally:
        go.set()
        await busy
    assert not [thread for thread in threading.enumerate() if thread.name == "workflow-checkpoint"]


async def test_the_event_loop_does_not_stand_still_while_a_statement_is_compiled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "SAVES", {})
    monkeypatch.setattr(writing, "SAVES", statements.SAVES)
    made: list[threading.Thread] = []
    compiled = statements._compile_save

    def note(*shape: Any) -> Any:
        made.append(threading.current_thread())
        return compiled(*shape)

    monkeypatch.setattr(statements, "_compile_save", note)
    await store.insert_job("r", definition(), HOLDER)
    history = RunHistory("r", 1, 1)
    for number in range(4):  # the first tells how the run stands, the others only what its nodes did
        await store.save(history, a(number), "every_firing")
    assert len(made) == 2
    assert threading.main_thread() not in made


@pytest.mark.parametrize("saves", [False, True])
async def test_what_is_under_way_when_a_store_is_closed_leaves_no_connection(postgres_url: str, saves: bool) -> None:
    def take(connection: Connection) -> None:
        connection.execute(text("UPDATE lease SET epoch = 1"))

    store = Store(locate(postgres_url), create=True)
    await store.insert_job("r", definition())
    history, other = RunHistory("r", 1, 1), await asyncpg.connect(postgres_url)
    await store.save(history, a(1), "1")
    async with other.transaction():
        await other.execute("SELECT 1 FROM lease FOR UPDATE")
        under_way = asyncio.create_task(store.save(history, a(2), "2") if saves else store.transact(take))
        await turns_to(other, "SELECT count(*) = 0 FROM pg_locks WHERE NOT granted", False)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.1)
    await closing
    await under_way
    await turns_to(other, OTHERS, 0)
    await other.close()


@pytest.mark.parametrize("made", [StateManager, EventLogger])
async def test_a_stop_that_is_cancelled_leaves_no_connection(
    postgres_url: str, made: type[StateManager] | type[EventLogger]
) -> None:
    other = await asyncpg.connect(postgres_url)
    for turns in range(6):
        writer = made("r", url=postgres_url)
        await writer.start()
        await (writer.log("x") if isinstance(writer, EventLogger) else writer.update_node_state("n", "running"))
        stopping = asyncio.create_task(writer.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
        await writer.stop()
    await turns_to(other, OTHERS, 0)
    await other.close()


async def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    store = Store(locate(postgres_url), create=True)
    await store.insert_job("r", definition())
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await admin.execute(THROW_OUT)
    back = f"ALTER DATABASE {name} RESET default_transaction_read_only"
    releases: list[asyncio.Task[str]] = []
    asyncio.get_running_loop().call_later(0.5, lambda: releases.append(asyncio.create_task(admin.execute(back))))
    await store.save(RunHistory("r", 1, 1), a("x"), "1")
    assert len(releases) == 1
    assert await numbers(store) == [1]
    await admin.close()
    await store.close()


async def test_a_statement_that_takes_too_long_is_ended(postgres_url: str) -> None:
    store = Store(locate(f"{postgres_url}&statement_seconds=0.1&reconnect_seconds=0.1"), create=True)
    with pytest.raises(StoreBusy, match="did not answer in time"):
        await store.transact(lambda connection: connection.execute(select(func.pg_sleep(30))), write=False)
    assert list(await store.jobs()) == []
    await store.close()


async def test_a_lock_that_others_keep_is_told(postgres_url: str) -> None:
    store = Store(locate(f"{postgres_url}&lock_seconds=0.1&reconnect_seconds=0.1"), create=True)
    await store.insert_job("r", definition())
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT * FROM lease FOR UPDATE")
        with pytest.raises(StoreBusy, match="did not give a lock in time"):
            await store.begin_attempt("r", 2, HOLDER)
    await other.close()
    await store.begin_attempt("r", 2, HOLDER)
    await store.close()


async def test_a_lock_that_is_given_back_meanwhile_is_waited_for(postgres_url: str) -> None:
    store = Store(locate(f"{postgres_url}&lock_seconds=0.05"), create=True)
    await store.insert_job("r", definition())
    await store.insert_job("s", definition())
    other = await asyncpg.connect(postgres_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT * FROM lease FOR UPDATE")
    releases: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().call_later(0.5, lambda: releases.append(asyncio.create_task(transaction.rollback())))
    await asyncio.gather(store.begin_attempt("r", 2, HOLDER), store.save(RunHistory("s", 1, 1), a("x", "s"), "1"))
    assert await numbers(store, "s") == [1]
    await other.close()
    await store.close()


async def test_who_is_chosen_to_give_way_in_a_circle_of_locks_tries_again(postgres_url: str) -> None:
    store = Store(locate(f"{postgres_url}&deadlock_timeout=10ms"), create=True)  # it is the first to look for a circle
    for run_id in "rs":
        await store.insert_job(run_id, definition(run_id))
    other = await asyncpg.connect(postgres_url)
    theirs, locked, tries = other.transaction(), asyncio.Event(), 0
    await theirs.start()
    lock = "SELECT epoch FROM lease WHERE run_id = '{}' FOR UPDATE"
    await other.execute(lock.format("s"))
    waits = text(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {other.get_server_pid()}")

    async def close_circle() -> None:
        await locked.wait()
        await other.execute(lock.format("r"))
        await theirs.rollback()

    def work(connection: Connection) -> int:
        nonlocal tries
        tries += 1
        connection.execute(text(lock.format("r")))
        locked.set()
        while tries == 1 and not connection.execute(waits).scalar_one():
            pass
        return int(connection.execute(text(lock.format("s"))).scalar_one())

    try:
        async with asyncio.timeout(GUARD_SECONDS):
            circle = asyncio.create_task(close_circle())
            assert await store.transact(work) == 1
            await circle
        assert tries > 1
    finally:
        await other.close()
        await store.close()


async def test_a_process_that_sleeps_in_a_transaction_is_thrown_out(postgres_url: str) -> None:
    import time

    store = Store(locate(f"{postgres_url}&statement_seconds=0.1"), create=True)
    await store.insert_job("r", definition())
    slow = [0.5, 0.0]

    def work(connection: Connection) -> None:
        connection.execute(text("SELECT 1 FROM lease FOR UPDATE"))
        time.sleep(slow.pop(0))  # the event loop, too, as of a process that is stopped
        connection.execute(text("SELECT 1"))

    await store.transact(work)
    assert slow == []
    await store.close()


async def test_each_wait_has_a_limit_unless_a_url_says_other(postgres_url: str) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit", "application_name")

    async def settings(more: str) -> list[str]:
        store = Store(locate(postgres_url + more), create=True)
        query = select(*(func.current_setting(name) for name in names))
        found = await store.transact(lambda connection: list(connection.execute(query).one()), write=False)
        await store.close()
        return found

    assert await settings("") == ["1min", "10s", "1min", "on", "workflow-checkpoint"]
    chosen = await settings("&statement_seconds=1.5&lock_seconds=2&application_name=mine")
    assert chosen == ["1500ms", "2s", "1500ms", "on", "mine"]
    assert (await settings("&lock_timeout=77"))[1] == "77ms"
    pooled = await settings("&pgbouncer=1")
    assert pooled == ["0", "0", "0", "on", "workflow-checkpoint"]


async def test_a_pooler_that_would_lose_saves_is_refused(postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = Store(locate(f"{postgres_url}&pgbouncer=1"), create=True)
    with pytest.raises(StoreUnreadable, match=r"synchronous_commit off.*ALTER ROLE"):
        await store.jobs()
    await store.close()


async def test_what_is_too_long_for_an_index_is_a_value_that_cannot_be_stored(postgres_url: str) -> None:
    long = "".join(f"{number:x}" for number in range(4_000))  # an index compresses what repeats
    with pytest.raises(ValueNotStorable, match="index row"):
        await JobRepository(postgres_url).add(Job(id="r", workflow_id=long))
    log = EventLogger(long, postgres_url)
    await log.start()
    async with asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(ValueNotStorable, match="index row"):  # at once, as no second try would mend it
            await log.log("created")
    with pytest.raises(WriterStopped):
        await log.stop()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_transactions_are_read_committed_whatever_is_set_for_the_database(postgres_url: str, level: str) -> None:
    """With another level PostgreSQL refuses a save beside a sign of life of its run."""
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    await execute(postgres_url, f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    store = Store(locate(postgres_url), create=True)
    lease = await store.insert_job("r", definition(), HOLDER)
    assert lease is not None
    history = RunHistory("r", 1, 1)

    async def save() -> None:
        for number in range(20):
            await store.save(history, a(number), "1")

    async def renew() -> None:
        for _ in range(20):
            await store.renew(lease, 30)

    try:
        await asyncio.gather(save(), renew())
        shown = select(func.current_setting("transaction_isolation"))
        assert await store.transact(lambda connection: connection.execute(shown).scalar_one()) == "read committed"
    finally:
        await store.close()
    store = Store(locate(f"{postgres_url}&pgbouncer=1"), create=True)
    with pytest.raises(StoreUnreadable, match=rf"default_transaction_isolation {level}.*ALTER ROLE"):
        await store.jobs()
    await store.close()


async def test_a_server_that_has_no_connection_left_is_waited_for(postgres_url: str) -> None:
    role, other = f"r{uuid.uuid4().hex}", await asyncpg.connect(postgres_url)
    await other.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    try:
        url = postgres_url.replace("//postgres@", f"//{role}@")
        only = await asyncpg.connect(url)
        store = Store(locate(url), create=True)
        asking = asyncio.create_task(store.layout())
        await asyncio.sleep(0.3)
        await only.close()
        assert (await asking)[0] is None
        await store.close()
    finally:
        await other.execute(f"DROP ROLE {role}")
        await other.close()


async def test_a_server_that_was_never_there_is_told_at_once(proxy: Proxy) -> None:
    store = Store(locate(proxy.url.replace("wfpx-", "nowhere-")), create=True)
    calls = 0

    def work(connection: Connection) -> None:
        nonlocal calls
        calls += 1

    with pytest.raises(StoreUnreachable) as caught:
        await store._database.transact(work)
    assert (calls, caught.value.undone) == (0, True)
    await store.close()


async def test_a_close_that_is_cancelled_says_farewell_all_the_same(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two signals, one after the other: what is torn apart is told on the standard error, by SQLAlchemy."""
    began = asyncio.Event()
    closed: list[bool] = []

    async def slowly(connection: Any, *, timeout: float | None = None) -> None:
        began.set()
        await asyncio.sleep(0.05)
        await close(connection, timeout=timeout)
        closed.append(connection.is_closed())

    close = asyncpg.Connection.close
    store = Store(locate(postgres_url), create=True)
    await store.jobs()
    monkeypatch.setattr(asyncpg.Connection, "close", slowly)
    closing = asyncio.create_task(store.close())
    await began.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert closed
    assert all(closed)
    assert [record.getMessage() for record in caplog.records] == []
