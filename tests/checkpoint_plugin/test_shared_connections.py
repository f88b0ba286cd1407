"""Many runs at once: they share a few connections, and each is as it would be alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, update

from checkpoint_plugin import CheckpointManager
from checkpoint_plugin.database.location import Location, locate
from checkpoint_plugin.database.postgresql_engine import CONNECTIONS
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, ValueNotStorable
from checkpoint_plugin.models import SCHEMA
from checkpoint_plugin.opening.connections import Connections
from checkpoint_plugin.runs import heartbeat
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import Lease
from hookspecs import NodeSnapshot, ResourcePool, RunNotFound
from tests.checkpoint_plugin.roles import MAKE_WORKER
from tests.checkpoint_plugin.test_store import cut, definition
from tests.postgres import execute
from workflow_runner import Graph, WorkflowRunner, node

MANY = 60
"""Runs; more than the server of the tests has connections."""
FEW = 3
"""Connections."""


class Meeting:
    """Where the bodies of all runs wait until each has shown a sign of life."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.connections = 0
        self.over = asyncio.Event()


meeting: Meeting


@node
async def meet(number: int) -> int:
    await meeting.over.wait()
    return number


@node
async def give_odd() -> Any:
    return object()


def graph(number: int) -> Graph:
    made = Graph()
    made.output("end", made.add(meet, number=number))
    return made


def few(url: str, most: int = FEW) -> str:
    return f"{url}{'&' if '?' in url else '?'}connections={most}"


async def count_connections(url: str) -> int:
    """Those of a server to this database, but for the one that asks; of SQLite, the threads that have one each."""
    if url.startswith("sqlite"):
        return sum(thread.name == "workflow-checkpoint" for thread in threading.enumerate())
    connection = await asyncpg.connect(url)
    try:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return int(await connection.fetchval(count))
    finally:
        await connection.close()


@pytest.mark.parametrize("is_open", [True, False], ids=["an open runner", "a runner that is not open"])
async def test_more_runs_at_once_than_there_are_connections(
    store_url: str, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    global meeting
    meeting = Meeting()
    renew = Store.renew

    async def told(store: Store, lease: Lease, seconds: float) -> datetime:
        until = await renew(store, lease, seconds)
        meeting.alive.add(lease.run_id)
        if len(meeting.alive) == MANY and not meeting.over.is_set():
            meeting.connections = await count_connections(store_url)
            meeting.over.set()
        return until

    monkeypatch.setattr(Store, "renew", told)
    monkeypatch.setattr(heartbeat, "BEATS", 20)
    enable = {"checkpoint": {"url": few(store_url), "every_firing": True, "lease_seconds": 10}}
    runner = WorkflowRunner()

    async def run_all() -> list[Any]:
        runs = (runner.run(graph(number), enable=enable, run_id=f"r{number}") for number in range(MANY))
        return await asyncio.gather(*runs)

    if is_open:
        async with runner:
            found = await run_all()
            assert await count_connections(store_url) <= CONNECTIONS * FEW, "those for signs of life are closed"
    else:
        found = await run_all()
    assert [result.outputs["end"] for result in found] == [[number] for number in range(MANY)]
    assert 0 < meeting.connections <= 2 * CONNECTIONS * FEW
    assert await count_connections(store_url) == 0


async def test_by_hand_as_well(store_url: str) -> None:
    async def save(number: int) -> int:
        async with CheckpointManager(f"r{number}", enabled=True, url=few(store_url)) as manager:
            await manager.save_checkpoint(None, {"a"}, outputs={"a": {"output": number}})
            arrived.append(number)
            if len(arrived) == MANY:
                found.append(await count_connections(store_url))
                all_there.set()
            await all_there.wait()
            data = await manager.restore_checkpoint()
        assert data is not None
        outputs = data.node_states["a"].outputs
        assert outputs is not None
        return int(outputs["output"])

    arrived: list[int] = []
    found: list[int] = []
    all_there = asyncio.Event()
    assert await asyncio.gather(*map(save, range(MANY))) == list(range(MANY))
    assert 0 < found[0] <= CONNECTIONS * FEW
    assert await count_connections(store_url) == 0


async def write(connections: Connections, name: str) -> None:
    change = update(SCHEMA).values(store_id=name)
    store = Store(connections.location, create=True, connections=connections)
    await store.transact(lambda connection: connection.execute(change))


class Users:
    """Who shares connections to a file, two of them at most."""

    def __init__(self, path: Path) -> None:
        self.location = locate(f"sqlite:///{path}?connections=2")
        self.pool = ResourcePool()
        self.all: list[Connections] = []

    async def take(self, location: Location | None = None) -> Connections:
        self.all.append(await Connections.take(self.pool, location or self.location, create=True))
        return self.all[-1]


@pytest.fixture
async def users(tmp_path: Path) -> AsyncIterator[Users]:
    users = Users(tmp_path / "a.db")
    yield users
    await users.pool.close()
    for each in users.all:  # once more than needed: a close that is one too many does nothing then
        await each.close()


async def test_each_has_its_own_while_there_are_enough_and_the_next_shares_those_with_the_fewest_users(users: Users) -> None:
    first, second, third, fourth = [await users.take() for _ in range(4)]
    assert first is not second
    assert {id(third), id(fourth)} == {id(first), id(second)}
    await third.close()
    assert await users.take() is third
    elsewhere = locate(users.location.url.replace("a.db", "b.db"))
    assert await users.take(elsewhere) not in (first, second)


async def test_they_are_kept_or_closed_when_the_last_user_has_left(users: Users) -> None:
    _, _, shared = [await users.take() for _ in range(3)]
    await shared.give(users.pool)
    await write(shared, "goes on")
    assert users.pool.take(("checkpoint", users.location)) is None
    await shared.give(users.pool)
    assert await users.take() is shared


async def test_who_leaves_waits_for_no_writes_of_others(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, shared = [await users.take() for _ in range(3)]

    async def never() -> None:
        raise AssertionError("under the load of others it would never be done")

    monkeypatch.setattr(shared.group, "finish", never)
    await shared.close()
    monkeypatch.undo()


async def test_with_what_was_wrong_others_go_on_and_nobody_begins(users: Users) -> None:
    *both, shared = [await users.take() for _ in range(3)]
    await shared.give(users.pool, is_sound=False)
    await write(shared, "goes on")
    assert await users.take() not in both
    await shared.give(users.pool)
    assert users.pool.take(("checkpoint", users.location)) is None


async def test_where_something_is_wrong_again_and_again_there_are_twice_as_many(users: Users) -> None:
    """Somebody who waits for a person uses each of them, and it is not closed until then."""
    waiting = []
    for _ in range(10):
        waiting.append(await users.take())
        failing = await users.take()
        await failing.give(None, is_sound=False)
    assert len(set(waiting)) <= 4


async def test_a_run_that_fails_by_itself_says_nothing_about_the_connections(store_url: str) -> None:
    """A value that cannot be stored, or a run that nobody knows, is not theirs."""
    global meeting
    meeting = Meeting()
    url = few(store_url, 1)
    enable = {"checkpoint": {"url": url, "every_firing": True}}
    async with WorkflowRunner() as runner:
        waiting = []
        for number in range(4):
            waiting.append(asyncio.create_task(runner.run(graph(number), enable=enable, run_id=f"r{number}")))
            bad = Graph()
            bad.output("end", bad.add(give_odd))
            with pytest.raises(ValueNotStorable):
                await runner.run(bad, enable=enable)
            with pytest.raises(RunNotFound):
                await runner.resume("unknown", url=url)
        found = await count_connections(store_url)
        meeting.over.set()
        await asyncio.gather(*waiting)
    assert found <= CONNECTIONS


async def test_connections_to_a_file_that_was_moved_are_given_to_nobody(users: Users) -> None:
    one, other = await users.take(), await users.take()
    await write(one, "moved")
    await write(other, "moved")
    assert users.location.path is not None
    users.location.path.rename(users.location.path.with_name("moved.db"))
    new = [await users.take() for _ in range(3)]
    assert one not in new
    assert other not in new
    assert len(set(new)) == 2, "of new ones there are as many as elsewhere"


async def test_connections_belong_to_an_event_loop(users: Users) -> None:
    taken = [await users.take() for _ in range(2)]

    async def elsewhere() -> bool:
        found = Connections.share(users.location, create=True)
        await found.close()
        return found in taken

    assert not await asyncio.to_thread(asyncio.run, elsewhere())


async def test_each_run_looks_at_the_tables_through_connections_that_others_use(users: Users) -> None:
    one, other = await users.take(), await users.take()
    for each in (one, other):
        await write(each, "looked")
    assert one.is_current
    shared = await users.take()
    assert shared in (one, other)
    assert not shared.is_current


async def test_a_save_that_shares_a_connection_to_a_server_is_one_message(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction for several of them would be a message more for each, to make and to leave a savepoint."""
    global meeting
    meeting = Meeting()
    meeting.over.set()
    enable = {"checkpoint": {"url": few(postgres_url, 1), "every_firing": True}}
    async with WorkflowRunner() as runner:
        await runner.run(graph(0), enable=enable, run_id="first")

        async def refuse(*given: object, **more: object) -> None:
            raise AssertionError("several messages to a server")

        monkeypatch.setattr("checkpoint_plugin.database.postgresql.PostgresDatabase.transact", refuse)
        await asyncio.gather(*(runner.run(graph(number), enable=enable, run_id=f"r{number}") for number in range(10)))
        monkeypatch.undo()


@pytest.fixture
async def store_of_one(postgres_url: str) -> AsyncIterator[Store]:
    """A store whose server gives it a single connection."""
    owner = Store(locate(postgres_url), create=True)
    await owner.transact(lambda connection: connection.execute(select(SCHEMA)).all())
    await owner.close()
    role = "worker_of_one"
    await execute(postgres_url, MAKE_WORKER.replace("worker", role))
    await execute(postgres_url, f"ALTER ROLE {role} CONNECTION LIMIT 1")
    await execute(postgres_url, f"GRANT USAGE ON SCHEMA public TO {role}")
    await execute(postgres_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    url = postgres_url.replace("//postgres@", f"//{role}@")
    store = Store(locate(f"{url}{'&' if '?' in url else '?'}reconnect_seconds=0.5&connect_seconds=2"), create=False)
    yield store
    await store.close()


async def test_a_lease_is_renewed_where_a_server_has_no_connection_left(store_of_one: Store) -> None:
    lease = await store_of_one.insert_job("r", definition(), Holder.here())
    assert lease is not None
    assert await store_of_one.renew(lease, 60) > lease.expires_at


async def test_the_only_connection_to_a_server_is_lent_between_saves_that_never_end(store_of_one: Store) -> None:
    store = store_of_one
    leases = [await store.insert_job(f"r{number}", definition(), Holder.here()) for number in range(3)]
    is_over = False

    async def save(lease: Lease) -> int:
        history = RunHistory(lease.run_id, 1, lease.epoch)
        while not is_over:
            await store.save(history, cut(NodeSnapshot("a", "running", state=history.number)), "1")
        return history.number

    saving = [asyncio.create_task(save(lease)) for lease in leases if lease is not None]
    try:
        for lease in leases:
            assert lease is not None
            assert await store.renew(lease, 60) > lease.expires_at
            assert await store.transact(lambda connection: connection.execute(select(SCHEMA)).all(), write=False)
    finally:
        is_over = True
        saved = await asyncio.gather(*saving)
    assert all(saved), "and nobody waits for ever"


async def test_whoever_waits_for_a_connection_hears_that_none_can_be_made(store_of_one: Store) -> None:
    other = await asyncpg.connect(store_of_one.location.dsn)
    try:
        read = [
            store_of_one.transact(lambda connection: connection.execute(select(SCHEMA)).all()) for _ in range(2 * CONNECTIONS)
        ]
        found = await asyncio.gather(*read, *(store_of_one.layout() for _ in read), return_exceptions=True)
    finally:
        await other.close()
    assert {type(each) for each in found} == {StoreUnreachable}


async def test_a_lease_is_renewed_while_others_wait_for_their_rows(postgres_url: str) -> None:
    """Each of these has a connection for its sign of life, and there are no more."""
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}connect_seconds=2"
    store = Store(locate(url), create=True)
    leases = [await store.insert_job(f"r{number}", definition(), Holder.here()) for number in range(CONNECTIONS + 1)]
    free, *held = [lease for lease in leases if lease is not None]
    other = await asyncpg.connect(postgres_url)
    try:
        async with other.transaction():
            await other.execute("SELECT * FROM lease WHERE run_id = ANY($1) FOR UPDATE", [lease.run_id for lease in held])
            waiting = [asyncio.create_task(store.renew(lease, 60)) for lease in held]
            await asyncio.sleep(0)
            assert await store.renew(free, 60) > free.expires_at
            found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [StoreBusy] * len(held)
    finally:
        await other.close()
        await store.close()


async def test_who_finds_no_connection_free_is_told_what_to_give(postgres_url: str) -> None:
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}connect_seconds=0.2&reconnect_seconds=0.1"
    store = Store(locate(url), create=True)
    sleeping = [
        store.transact(lambda connection: connection.core.exec_driver_sql("SELECT pg_sleep(2)")) for _ in range(CONNECTIONS)
    ]
    try:
        await store.transact(lambda connection: connection.execute(select(SCHEMA)).all())
        tasks = [asyncio.create_task(each) for each in sleeping]
        await asyncio.sleep(0.1)
        with pytest.raises(StoreBusy, match="connections="):
            await store.transact(lambda connection: connection.execute(select(SCHEMA)).all())
        await asyncio.gather(*tasks)
    finally:
        await store.close()


async def test_who_is_the_last_to_leave_a_file_moves_its_log_and_nobody_before(tmp_path: Path) -> None:
    """SQLite before 3.51.3 can damage a database when two connections of a process do so at once."""
    location, rested = locate(f"sqlite:///{tmp_path / 'c.db'}"), []

    def some(name: str) -> Connections:
        made = Connections(location, create=True)

        async def rest() -> None:
            rested.append(name)

        made.database.rest = rest  # type: ignore[method-assign]
        return made

    pool = ResourcePool()
    first, second, third = map(some, ("first", "second", "third"))
    await first.give(pool)
    await second.close()
    assert rested == [], "the third uses it"
    await third.give(pool)
    assert rested == ["third"]
    fourth, fifth = map(some, ("fourth", "fifth"))
    await fourth.close()
    assert rested == ["third"], "the fifth uses it"
    await fifth.close()  # which are not the last connections: the first and the third are kept
    assert rested == ["third", "fifth"]
    await pool.close()
    rested.clear()
    await some("alone").close()
    assert rested == [], "SQLite does it by itself"
