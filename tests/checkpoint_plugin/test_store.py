"""The contract of the store, on both databases."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, delete, event, func, insert, inspect, select, update
from sqlalchemy.util import await_only

from checkpoint_plugin import store as store_module
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.codec import Codec, encode
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.database.opening import open_database
from checkpoint_plugin.errors import StoreDamaged, StoreMissing, StoreUnreachable, StoreUnreadable, ValueNotStorable
from checkpoint_plugin.events.rows import append_events
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    RUN_DEFINITION,
    RUN_NODE_STATE,
    SCHEMA,
)
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.saving import history as history_module
from checkpoint_plugin.saving.completed import Tally
from checkpoint_plugin.saving.light import is_light
from checkpoint_plugin.saving.payloads import GROWING
from checkpoint_plugin.saving.rows import ROOM, GraphPlaces
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.stored_bytes.digests import row_digest
from checkpoint_plugin.tables.definition import INDEXED_BYTES, Definition
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.job import JobEnd
from hookspecs import (
    EdgeSnapshot,
    LeaseLost,
    NodeSnapshot,
    Prefix,
    RunExists,
    RunHeld,
    RunNotFound,
    RunStatus,
    Snapshot,
    StoreError,
    Suspension,
)
from tests.checkpoint_plugin.newest import newest_number

HOLDER = Holder("another")
BIG = "x" * 1_600
ODD = ["a::b", "a", "foo%", "quote'\"; DROP TABLE job; --", "new\nline", "Ünï\U0001f600", "x" * 200]


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "\udcff"),
        ("id", {"a set"}),
        ("attempt", 2**70),
        ("created_at", datetime(2026, 1, 1)),
        ("created_at", "2026-01-01"),
        ("id", "\0"),
    ],
)
async def test_a_value_that_a_database_does_not_take_is_not_told_as_damage_of_the_store(
    store: Store, column: str, value: object
) -> None:
    statements: list[Any] = [select(JOB.c.id).where(JOB.c[column] == value), update(JOB).values({column: value})]
    if value == "\0" and store.location.kind == "sqlite":
        statements = []  # it keeps one
    for write, statement in enumerate(statements):
        with pytest.raises(ValueNotStorable, match=r"a value that was given to the store at .*Give another one") as raised:
            await store.transact(lambda connection, wanted=statement: connection.execute(wanted), write=bool(write))  # type: ignore[misc]
        assert "damaged" not in str(raised.value) and "Check that it is there" not in str(raised.value)


@pytest.mark.parametrize("value", ["\udcff", 2**70], ids=["surrogate", "large"])
async def test_nor_is_one_of_a_statement_that_is_said_by_name(store: Store, value: Any) -> None:
    of_event = {"kind": value, "node_id": None, "time": datetime.now(UTC), "payload_json": None}
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: store.take(value, HOLDER),
        lambda: store.restore(RunHistory(value, 1, 1), None),
        lambda: store.jobs([value]),
        lambda: store.transact(lambda connection: append_events(connection, "r", [of_event])),
    ]
    for step in steps:
        with pytest.raises(ValueNotStorable, match=r"a value that was given to the store at .*Give another one"):
            await step()


def definition(run_id: str = "r", **inputs: Any) -> Definition:
    graph = {"nodes": [{"id": "a", "type": "t", "data": {}}], "edges": []}
    return Definition(encode({"graph": graph, "inputs": inputs, "enable": {}}, str), "{}", "{}")


def cut(*nodes: NodeSnapshot, attempt: int = 1, status: RunStatus = "running", run_id: str = "r", **more: Any) -> Snapshot:
    return Snapshot(run_id, attempt, status, nodes, datetime.now(UTC), **more)


def full_node(node_id: str = "a") -> NodeSnapshot:
    return NodeSnapshot(
        node_id,
        "running",
        attempt=2,
        firing=3,
        commits=4,
        state={"n": (1, BIG), "s": {1, 2}},
        arguments={"x": BIG, "y": None},
        taken=[("e1", 1.5), ("e2", BIG)],
        emitted=5,
        latest={"e1": BIG, "e2": (1,)},
        inbox=(EdgeSnapshot("e1", (1, BIG, None), False), EdgeSnapshot("e2", (), True)),
        order=("e1", "e1", "e1"),
        collected=Prefix([1, BIG]),
        source="abc",
        error="E: \udcff\0",
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        ended_at=datetime(2026, 1, 3, tzinfo=UTC),
    )


def plain(node: NodeSnapshot) -> dict[str, Any]:
    """A node's fields with lists for sequences, to compare."""
    fields = {name: getattr(node, name) for name in NodeSnapshot.__slots__}
    return {**fields, "taken": list(node.taken), "collected": list(node.collected)}


async def rows(store: Store, table: Any) -> int:
    def count(connection: Connection) -> int:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    return await store.transact(count)


async def test_a_cut_comes_back_as_it_was(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    assert await store.restore(RunHistory("r", 1, 1), None) is None
    ref = await store.save(history, cut(full_node(), NodeSnapshot("b", "idle", arguments={})), "why")
    assert (ref.number, ref.reason) == (1, "why")
    found = await store.restore(RunHistory("r", 2, 2), None)
    assert found is not None
    nodes = {node.node_id: plain(node) for node in found.nodes}
    assert nodes == {"a": plain(full_node()), "b": plain(NodeSnapshot("b", "idle", arguments={}))}
    assert type(nodes["a"]["state"]["n"]) is tuple


async def test_each_checkpoint_writes_what_changed_and_restores_the_whole(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    items: list[Any] = [1, BIG]
    await store.save(
        history, cut(NodeSnapshot("a", "running", state=1), NodeSnapshot("o", "running", collected=Prefix(items))), "1"
    )
    items += [3, BIG + "2"]
    await store.save(history, cut(NodeSnapshot("o", "running", collected=Prefix(items))), "2")
    await store.save(history, cut(NodeSnapshot("a", "completed", state=2)), "3")
    assert await rows(store, NODE_VERSION) == 4
    assert await rows(store, OUTPUT_SEGMENT) == 2
    assert await rows(store, PAYLOAD) == 2
    newest = await store.restore(RunHistory("r", 1, 1), None)
    first = await store.restore(RunHistory("r", 1, 1), 1)
    assert newest is not None
    assert first is not None
    assert {n.node_id: (n.state, list(n.collected)) for n in newest.nodes} == {"a": (2, []), "o": (None, [1, BIG, 3, BIG + "2"])}
    assert {n.node_id: (n.state, list(n.collected)) for n in first.nodes} == {"a": (1, []), "o": (None, [1, BIG])}
    with pytest.raises(StoreError, match="no checkpoint 9"):
        await store.restore(RunHistory("r", 1, 1), 9)


async def test_only_the_newest_checkpoint_is_gone_on_from(store: Store) -> None:
    """What went on from an older one would mix its rows with those that came later."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (1, 2):
        await store.save(history, cut(NodeSnapshot("a", "running", state=number)), str(number))
    older = RunHistory("r", 1, 1)
    await store.restore(older, 1)
    for stale in (older, RunHistory("r", 1, 1)):
        with pytest.raises(StoreError, match="newest checkpoint is 2"):
            await store.save(stale, cut(NodeSnapshot("b", "running")), "x")
    assert await rows(store, CHECKPOINT) == await rows(store, NODE_VERSION) == 2


async def test_a_restored_history_goes_on(store: Store) -> None:
    await store.insert_job("r", definition())
    items: list[Any] = [1]
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("o", "running", collected=Prefix(items))), "1")
    lease, _ = await store.begin_attempt("r", 2, HOLDER)
    history = RunHistory("r", 2, lease.epoch)
    await store.restore(history, None)
    items.append(2)
    await store.save(history, cut(NodeSnapshot("o", "completed", collected=Prefix(items)), attempt=2), "2")
    found = await store.restore(RunHistory("r", 2, lease.epoch), None)
    assert found is not None
    assert list(found.nodes[0].collected) == [1, 2]
    assert await rows(store, OUTPUT_SEGMENT) == 2


async def test_a_value_is_stored_once_whoever_mentions_it(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    nodes = [NodeSnapshot(f"n{i}", "running", inbox=(EdgeSnapshot("e", (BIG, BIG), False),), state=BIG + "") for i in range(20)]
    await store.save(history, cut(*nodes), "1")
    await store.save(history, cut(NodeSnapshot("n0", "running", state=BIG, firing=1)), "2")
    assert await rows(store, PAYLOAD) == 1


def items_of(snapshot: Snapshot | None) -> dict[str, Sequence[Any]]:
    assert snapshot is not None
    return {node.node_id: node.inbox[0].items for node in snapshot.nodes}


async def test_a_value_of_some_length_stands_in_a_row_once_and_no_row_is_long(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)

    def waiting(name: str, *items: Any) -> NodeSnapshot:
        return NodeSnapshot(name, "running", inbox=(EdgeSnapshot(name, items, False),))

    async def longest(number: int) -> int:
        found = select(func.max(func.length(NODE_VERSION.c.body))).where(NODE_VERSION.c.number == number)
        return await store.transact(lambda connection: int(connection.execute(found).scalar_one()))

    await store.save(history, cut(waiting("alone", "a" * 1_000)), "1")
    assert await rows(store, PAYLOAD) == 0
    shared = "s" * 1_000
    await store.save(history, cut(*(waiting(f"n{place}", shared) for place in range(20))), "2")
    assert await rows(store, PAYLOAD) == 1, "the first row holds it, the others mention it"
    many = [f"{place} {BIG}"[:1_000] for place in range(50)]
    await store.save(history, cut(waiting("many", *many)), "3")
    assert await rows(store, PAYLOAD) == 50
    assert await longest(3) < ROOM + 50 * 50
    await store.save(history, cut(waiting("many", *many[1:])), "4")
    assert await rows(store, PAYLOAD) == 50, "what is left is not written again, but for what the row holds itself"
    told = {"alone": ("a" * 1_000,), **{f"n{place}": (shared,) for place in range(20)}, "many": tuple(many[1:])}
    assert items_of(await store.restore(RunHistory("r", 1, 1), None)) == told
    assert items_of(await store.restore(RunHistory("r", 1, 1), 3)) == {**told, "many": tuple(many)}


async def test_a_save_of_a_run_that_goes_on_leaves_its_row_alone(store: Store) -> None:
    """On SQLite a change of that row costs as much as its graph is large."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running")), "1")
    before = await JobRepository(store=store).get("r")
    await store.save(history, cut(NodeSnapshot("a", "running", firing=1)), "2")
    assert await JobRepository(store=store).get("r") == before
    assert (before.has_checkpoint, await newest_number(store)) == (True, 2)


async def test_the_statements_of_a_save_do_not_grow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("first", "running", state=1)), "what is looked up once")
    seen: list[str] = []
    fetchval = asyncpg.Connection.fetchval

    async def fetch(connection: Any, sql: str, *arguments: Any) -> Any:
        seen.append(sql)
        return await fetchval(connection, sql, *arguments)

    database: Any = store._database
    if store.location.kind == "sqlite":
        await store.compute(lambda: database._opened(write=True).set_trace_callback(seen.append))
    else:
        monkeypatch.setattr(asyncpg.Connection, "fetchval", fetch)
        event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    counts, read = [], []
    for number in (1, 1200):
        nodes = [NodeSnapshot(f"n{i}", "completed", firing=number, state=f"{i}{BIG}", collected=[i]) for i in range(number)]
        seen.clear()
        await store.save(history, cut(*nodes), "x")
        counts.append(len({text.split("VALUES")[0] for text in seen}))  # SQLite traces a statement of many rows once for each
        seen.clear()
        await store.restore(RunHistory("r", 1, 1), None)
        read.append(len([text for text in seen if text.startswith("SELECT")]))
    assert counts[0] == counts[1] <= (10 if store.location.kind == "sqlite" else 2)
    assert read[0] == read[1] <= 5
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert len(found.nodes) == 1201


async def test_a_run_id_is_taken_once(store: Store) -> None:
    await store.insert_job("r", definition())
    with pytest.raises(RunExists, match="'r' exists"):
        await store.insert_job("r", definition())
    for missing in ("s", "", "r\0", "\udcff"):
        for read in (store.load_job, store.job):
            with pytest.raises(RunNotFound) as caught:
                await read(missing)
            assert repr(missing) in str(caught.value)


async def test_saves_of_which_nobody_heard_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)

    async def lost(write: object) -> object:
        error = StoreUnreadable("the answer was lost")
        error.undone = False
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store._connections.group, "save", lost)
        for number in range(store_module.MOST_UNHEARD + 4):
            with pytest.raises(StoreUnreadable):
                await store.save(history, cut(NodeSnapshot("a", "running", firing=number)), "x")
    assert len(history.unheard) == store_module.MOST_UNHEARD
    assert (await store.save(history, cut(NodeSnapshot("a", "running", firing=99)), "x")).number == 1
    assert not history.unheard


class Ahead(datetime):
    """The clock of a host that is an hour ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> Ahead:
        return super().now(tz) + timedelta(hours=1)


async def test_a_save_waits_for_a_database_that_is_away_no_longer_than_it_may(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert_job("r", definition())
    now, most = [0.0], store.location.limits.reconnect_seconds

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        assert now[0] < 2 * most, "it waits for ever"

    async def lose(write: Any) -> Any:
        raise StoreUnreachable("the connection was lost")

    monkeypatch.setattr(store_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(store_module, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(store._database, "save", lose)
    history = RunHistory("r", 1, 1)
    with pytest.raises(StoreUnreachable):
        await store.save(history, cut(NodeSnapshot("a", "running")), "step")
    assert most - 1 <= now[0] <= most
    monkeypatch.undo()
    assert (await store.save(history, cut(NodeSnapshot("a", "running")), "step")).number == 1


async def test_the_first_sign_of_life_is_of_the_clock_of_the_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_alive_now() -> bool:
        row = await store.transact(lambda connection: connection.execute(select(JOB)).one())
        assert row.heartbeat_at is not None
        return bool(abs(datetime.now(UTC) - row.heartbeat_at) < timedelta(minutes=5))

    monkeypatch.setattr(store_module, "datetime", Ahead)
    await store.insert_job("r", definition(), HOLDER)
    assert await is_alive_now(), "or who recovers passes over it for an hour"
    await store.begin_attempt("r", 2, HOLDER, steal=True)
    assert await is_alive_now()


async def test_of_many_that_start_a_run_at_once_one_does(store: Store, store_url: str) -> None:
    others = [Store(locate(store_url), create=True) for _ in range(6)]
    await asyncio.gather(*(other.jobs() for other in others))
    made = await asyncio.gather(*(other.insert_job("r", definition()) for other in others), return_exceptions=True)
    for other in others:
        await other.close()
    assert sorted(type(result).__name__ for result in made) == ["NoneType"] + ["RunExists"] * 5


async def test_a_cut_of_thousands_of_nodes_is_whole_or_not_there(store: Store) -> None:
    await store.insert_job("r", definition())
    nodes = [NodeSnapshot(f"n{place}", "completed", state=f"{place} {BIG}", ended_at=datetime.now(UTC)) for place in range(2_500)]
    outputs = [NodeSnapshot(f"o{place}", "running", collected=Prefix([place])) for place in range(1_200)]
    old = RunHistory("r", 1, 1)
    await store.save(old, cut(*nodes, *outputs), "1")
    history = RunHistory("r", 1)
    found = await store.restore(history, None)
    assert found is not None
    assert {n.node_id: (n.status, n.state, list(n.collected)) for n in found.nodes} == {
        n.node_id: (n.status, n.state, list(n.collected)) for n in (*nodes, *outputs)
    }
    tables = (CHECKPOINT, NODE_VERSION, PAYLOAD, RUN_NODE_STATE, OUTPUT_SEGMENT)
    before = [await rows(store, table) for table in tables]
    assert before == [1, 3_700, 2_500, 3_700, 1_200]
    await store.begin_attempt("r", 2, HOLDER)
    with pytest.raises(LeaseLost):
        await store.save(old, cut(*(NodeSnapshot(n.node_id, "running", state=f"new {n.state}") for n in nodes)), "2")
    assert [await rows(store, table) for table in tables] == before


async def test_an_older_attempt_writes_nothing(store: Store) -> None:
    await store.insert_job("r", definition())
    old = RunHistory("r", 1, 1)
    await store.save(old, cut(full_node()), "1")
    tables = (CHECKPOINT, NODE_VERSION, PAYLOAD, RUN_NODE_STATE)
    before = [await rows(store, table) for table in tables]
    lease, stood = await store.begin_attempt("r", 2, HOLDER)
    assert lease.epoch > 1
    assert stood.status == "running"
    with pytest.raises(LeaseLost) as caught:
        await store.save(old, cut(NodeSnapshot("b", "completed", state=BIG + "new")), "2")
    assert (caught.value.epoch, caught.value.current, caught.value.holder) == (1, lease.epoch, str(HOLDER))
    assert [await rows(store, table) for table in tables] == before
    await store.end_attempt("r", 1, JobEnd("failed", "too late", datetime.now(UTC)))
    assert (await store.job("r")).status == "running"
    with pytest.raises(RunHeld, match="meanwhile"):
        await store.begin_attempt("r", 2, HOLDER, steal=True)


async def test_one_of_many_takes_the_next_attempt(store: Store, store_url: str) -> None:
    await store.insert_job("r", definition())
    others = [Store(locate(store_url), create=False) for _ in range(6)]
    taken = await asyncio.gather(*(other.begin_attempt("r", 2, Holder.here()) for other in others), return_exceptions=True)
    for other in others:
        await other.close()
    assert sorted(type(result).__name__ for result in taken) == ["RunHeld"] * 5 + ["tuple"]


async def test_runs_do_not_mix(store: Store) -> None:
    for number, run_id in enumerate(["foo", "foobar", *ODD]):
        await store.insert_job(run_id, definition())
        node = NodeSnapshot(ODD[number % len(ODD)], "running", state=[number, BIG])
        await store.save(RunHistory(run_id, 1, 1), cut(node, run_id=run_id), ODD[number % len(ODD)])
    for number, run_id in enumerate(["foo", "foobar", *ODD]):
        found = await store.restore(RunHistory(run_id, 1, 1), None)
        assert found is not None
        assert [(node.node_id, node.state) for node in found.nodes] == [(ODD[number % len(ODD)], [number, BIG])]
        assert len(await store.checkpoints(run_id)) == 1


async def test_the_longest_ids_fit(store: Store) -> None:
    """What an index of PostgreSQL takes, which tries to compress it first."""
    rng = random.Random(1)
    run_id = "".join(chr(rng.randrange(0x10000, 0x110000)) for _ in range(200))
    node_id = "".join(chr(rng.randrange(0x10000, 0x110000)) for _ in range(INDEXED_BYTES // 4))
    await store.insert_job(run_id, definition())
    items = Prefix([1])
    await store.save(RunHistory(run_id, 1, 1), cut(NodeSnapshot(node_id, "running", collected=items), run_id=run_id), "x")
    found = await store.restore(RunHistory(run_id, 1, 1), None)
    assert found is not None
    assert [(node.node_id, list(node.collected)) for node in found.nodes] == [(node_id, [1])]


async def test_what_is_remembered_of_payloads_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "KNOWN_PAYLOADS", 2)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (0, 1, 2, 0, 1, 2):
        await store.save(history, cut(NodeSnapshot(f"n{number}", "running", state=f"{number}{BIG}")), "x")
        assert len(history.payloads) <= 2
    assert await rows(store, PAYLOAD) == 3
    again = RunHistory("r", 1, 1)
    found = await store.restore(again, None)
    assert found is not None
    assert sorted(node.state[0] for node in found.nodes) == ["0", "1", "2"]
    assert len(again.payloads) == 2


async def test_what_cannot_be_stored_fails_before_anything_is_written(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    bad = object()
    places = {
        "inbox of edge 'e'[1]['k']": NodeSnapshot("a", "running", inbox=(EdgeSnapshot("e", (1, {"k": bad}), False),)),
        "state": NodeSnapshot("a", "running", state=bad),
        "outputs[1]": NodeSnapshot("a", "running", collected=[1, bad]),
        "arguments['x']": NodeSnapshot("a", "running", arguments={"x": bad}),
        "taken from edge['e']": NodeSnapshot("a", "running", taken=[("e", bad)]),
    }
    for where, node in places.items():
        with pytest.raises(ValueNotStorable) as caught:
            await store.save(history, cut(NodeSnapshot("z", "running", state=BIG), node), "x")
        assert f"run 'r', node 'a', {where} cannot be stored" in str(caught.value)
    graph = {"edges": [{"id": "e", "source": "maker", "sourceHandle": "rows", "target": "a", "targetHandle": "x"}]}
    known = RunHistory("r", 1, 1, places=GraphPlaces(graph))
    for where, node in places.items():
        with pytest.raises(ValueNotStorable) as caught:
            await store.save(known, cut(node), "x")
        inside = "['k']" if "inbox" in where else ""
        told = "node 'a', state" if where == "state" else f"node 'maker', outputs['rows']{inside}"
        assert f"run 'r', {told} cannot be stored" in str(caught.value)
    assert [await rows(store, table) for table in (CHECKPOINT, NODE_VERSION, PAYLOAD)] == [0, 0, 0]
    assert (await store.save(history, cut(full_node()), "fine")).number == 1


async def test_the_tables_tell_the_current_truth(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(full_node()), "1")
    await store.save(history, cut(NodeSnapshot("a", "failed", error="E: x"), status="failed", error="E: x"), "error")
    job = await store.job("r")
    assert (job.status, job.error, job.updated_at.tzinfo is not None) == ("failed", "E: x", True)
    (state,) = await store.node_states("r")
    assert (state.node_id, state.status, state.last_error) == ("a", "failed", "E: x")


Damage = Callable[[Connection], object]


def swap(connection: Connection, table: Any, key: Any, keys: Sequence[Any], columns: Sequence[str]) -> None:
    """Exchange the columns of two rows."""
    found = [
        connection.execute(select(*(table.c[c] for c in columns)).where(key == k, *newest(table))).one()._mapping for k in keys
    ]
    for place, values in zip(keys, reversed(found), strict=True):
        connection.execute(update(table).where(key == place, *newest(table)).values(dict(values)))


def newest(table: Any) -> list[Any]:
    return [table.c.number == 1] if table is NODE_VERSION else []


def digests(connection: Connection) -> Sequence[Any]:
    return list(connection.execute(select(PAYLOAD.c.digest)).scalars())


DAMAGES: dict[str, Damage] = {
    "payload changed": lambda c: c.execute(update(PAYLOAD).values(body=b"\x01\xa1x")),
    "payload gone": lambda c: c.execute(delete(PAYLOAD)),
    "row changed": lambda c: c.execute(update(NODE_VERSION).where(NODE_VERSION.c.node_id == "a").values(body=b"\x80")),
    "row gone": lambda c: c.execute(delete(NODE_VERSION).where(NODE_VERSION.c.node_id == "b")),
    "newest row gone": lambda c: c.execute(delete(NODE_VERSION).where(NODE_VERSION.c.number == 2)),
    "row of another run": lambda c: c.execute(
        insert(NODE_VERSION).from_select(
            ["run_id", "node_id", "number", "body", "digest"],
            select(
                NODE_VERSION.c.run_id,
                NODE_VERSION.c.node_id + "x",
                NODE_VERSION.c.number,
                NODE_VERSION.c.body,
                NODE_VERSION.c.digest,
            ),
        )
    ),
    "segment gone": lambda c: c.execute(delete(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.first == 0)),
    "last segment gone": lambda c: c.execute(delete(OUTPUT_SEGMENT).where(OUTPUT_SEGMENT.c.first == 1)),
    "segment changed": lambda c: c.execute(update(OUTPUT_SEGMENT).values(body=b"\x91\x92\x00\xc4\x02\x01\x07")),
    "rows swapped": lambda c: swap(c, NODE_VERSION, NODE_VERSION.c.node_id, ("a", "b"), ("body", "digest")),
    "payloads swapped": lambda c: swap(c, PAYLOAD, PAYLOAD.c.digest, digests(c), ("body",)),
    "reason changed": lambda c: c.execute(update(CHECKPOINT).values(reason="another")),
    "error changed": lambda c: c.execute(update(CHECKPOINT).values(error="another")),
    "time changed": lambda c: c.execute(update(CHECKPOINT).values(created_at=datetime(2026, 1, 1, tzinfo=UTC))),
    "attempt changed": lambda c: c.execute(update(CHECKPOINT).values(attempt=7)),
    "newest checkpoint gone": lambda c: c.execute(delete(CHECKPOINT).where(CHECKPOINT.c.number == 2)),
    "every checkpoint gone": lambda c: c.execute(delete(CHECKPOINT)),
    "status changed": lambda c: c.execute(update(CHECKPOINT).values(status="completed")),
    "hash changed": lambda c: c.execute(update(CHECKPOINT).values(cut_hash=b"\0" * 32)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damage_is_an_error_that_names_the_run(store: Store, damage: Damage) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    items: list[Any] = [1]
    await store.save(
        history,
        cut(
            NodeSnapshot("a", "running", state=BIG, arguments={"x": BIG + "x"}),
            NodeSnapshot("b", "running", collected=Prefix(items)),
        ),
        "1",
    )
    items.append(2)
    await store.save(history, cut(NodeSnapshot("b", "running", collected=Prefix(items))), "2")
    await store.transact(damage)
    with pytest.raises(StoreDamaged, match="run 'r' is damaged"):
        await store.restore(RunHistory("r", 1, 1), None)


def lose_newest(connection: Connection) -> None:
    """Take node `a` back to its first row, and let the count of rows fit."""
    connection.execute(delete(NODE_VERSION).where(NODE_VERSION.c.node_id == "a", NODE_VERSION.c.number == 2))


def add_stranger(connection: Connection) -> None:
    """A row of a node that the checkpoint never had, with a digest that fits its place."""
    body = connection.execute(select(NODE_VERSION.c.body).limit(1)).scalar_one()
    values = {"run_id": "r", "node_id": "x", "number": 1, "body": body, "digest": row_digest("r", "x", 1, body)}
    connection.execute(insert(NODE_VERSION).values(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lose_newest, "not the one that the checkpoint was made of"), (add_stranger, "3 of 2 node rows")],
)
async def test_rows_that_are_whole_but_not_of_the_cut_are_damage(store: Store, damage: Damage, message: str) -> None:
    """Each is what was written once; only the checkpoint's count and hash tell that it is not all of this cut."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running", state=1), NodeSnapshot("b", "running")), "1")
    await store.save(history, cut(NodeSnapshot("a", "completed", state=2)), "2")
    await store.transact(damage)
    with pytest.raises(StoreDamaged, match=message):
        await store.restore(RunHistory("r", 1, 1), None)


async def test_a_file_that_vanishes_is_an_error_and_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    first = Store(locate(f"sqlite:///{path}"), create=True)
    await first.insert_job("r", definition())
    await first.close()
    for create in (True, False):
        store = Store(locate(f"sqlite:///{path}"), create=create)  # it looks for the file, and opens it at the first question
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(StoreUnreadable, match="unable to open"):
            await store.load_job("r")
        await store.close()
        assert list(tmp_path.iterdir()) == []
        path.write_bytes(data)


async def test_a_changed_definition_is_damage(store: Store) -> None:
    await store.insert_job("r", definition())
    await store.transact(lambda c: c.execute(update(RUN_DEFINITION).values(body=definition(x=1).body)))
    with pytest.raises(StoreDamaged, match="graph and inputs"):
        await store.load_job("r")


async def test_an_unknown_status_is_damage(store: Store) -> None:
    await store.insert_job("r", definition())
    await store.transact(lambda c: c.execute(update(JOB).values(status="cnmpleted")))
    with pytest.raises(StoreDamaged, match="'cnmpleted' is not one"):
        await store.load_job("r")


async def test_a_cancelled_save_tells_its_outcome_by_the_rows(store: Store) -> None:
    """Whoever cancels waits until the save is over: it is there whole, and the history knows it."""
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (1, 2):
        task = asyncio.ensure_future(store.save(history, cut(full_node()), "1"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await rows(store, CHECKPOINT) == history.number == number
    assert (await store.save(history, cut(NodeSnapshot("b", "idle")), "3")).number == 3
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert [plain(node) for node in found.nodes if node.node_id == "a"] == [plain(full_node())]


async def test_a_cancelled_save_that_failed_tells_both(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    task = asyncio.ensure_future(store.save(history, cut(NodeSnapshot("a", "running", state=object())), "1"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, ValueNotStorable)
    assert history == RunHistory("r", 1, 1)


@pytest.mark.parametrize(
    "large", [["x" * 100_000], [["y" * 10_000] * 30] * 5, [{"z" * 5_000: number} for number in range(10)], [1 << 1_000_000]]
)
async def test_values_are_encoded_off_the_loop_and_while_nothing_is_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch, large: list[Any]
) -> None:
    """Also those that are large together only."""
    await store.insert_job("r", definition())
    written: list[int] = []
    seen: list[tuple[int, int]] = []

    def watched(codec: Codec, value: Any, place: Any) -> bytes:
        seen.append((threading.get_ident(), len(written)))
        return encode(value, place)

    name = "statement" if store.location.kind == "postgresql" else "write_sqlite"
    write = getattr(CutWriter, name)

    def record(*arguments: Any) -> Any:
        written.append(1)
        return write(*arguments)

    monkeypatch.setattr(Codec, "encode", watched)
    monkeypatch.setattr(CutWriter, name, record)
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("o", "completed", collected=large)), "1")
    assert written
    assert seen
    assert all(thread != threading.get_ident() and before == 0 for thread, before in seen)


async def test_what_is_few_and_small_is_encoded_where_it_was_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.insert_job("r", definition())
    seen: list[int] = []

    def watched(codec: Codec, value: Any, place: Any) -> bytes:
        seen.append(threading.get_ident())
        return encode(value, place)

    monkeypatch.setattr(Codec, "encode", watched)
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("o", "completed", collected=["x" * 1_000])), "1")
    assert seen == [threading.get_ident()]


def test_a_large_answer_that_a_later_question_takes_along_is_encoded_off_the_loop() -> None:
    asked = Suspension("second?", datetime.now(UTC), earlier=(("first?", "x" * 100_000),))
    assert not is_light([NodeSnapshot("n", "suspended", suspension=asked)], {})


async def test_another_version_is_refused_untouched(store: Store, store_url: str) -> None:
    await store.insert_job("r", definition())
    await store.transact(lambda c: c.execute(update(SCHEMA).values(version=99)))
    for create in (True, False):
        other = Store(locate(store_url), create=create)
        with pytest.raises(StoreUnreadable, match="version 99"):
            await other.jobs()
        await other.close()


async def test_a_foreign_database_is_refused_untouched(store_url: str) -> None:
    location = locate(store_url)
    database = open_database(location, create=True)
    await database.transact(lambda c: Table("job", MetaData(), Column("id", Integer)).create(c.core))
    before = await database.transact(lambda c: inspect(c.core).get_table_names(), write=False)
    await database.close()
    if location.path is not None:  # in the mode in which another program keeps it
        connection = sqlite3.connect(location.path)
        connection.execute("PRAGMA journal_mode=delete")
        connection.close()
    data = location.path.read_bytes() if location.path is not None else None
    for create in (True, False):
        store = Store(location, create=create)
        with pytest.raises(StoreUnreadable, match="'job' that is not ours"):
            await store.jobs()
        await store.close()
    assert data is None or (location.path is not None and location.path.read_bytes() == data)
    database = open_database(location, create=False)
    assert await database.transact(lambda c: inspect(c.core).get_table_names(), write=False) == before == ["job"]
    await database.close()


async def test_an_empty_file_stays_empty_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.touch()
    store = Store(locate(f"sqlite:///{path}"), create=False)
    with pytest.raises(StoreMissing, match="holds no store"):
        await store.jobs()
    await store.close()
    assert path.read_bytes() == b""
    assert [found.name for found in tmp_path.iterdir()] == ["c.db"]


async def test_who_reads_waits_for_no_writer(store: Store, store_url: str) -> None:
    await store.insert_job("r", definition())
    other = Store(locate(store_url), create=False)
    await other.jobs()
    held, leave = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: Connection) -> None:
        connection.execute(update(JOB).values(worker_id="w"))
        loop.call_soon_threadsafe(held.set)
        if store.location.kind == "sqlite":
            leave.wait(60)
        else:
            await_only(asyncio.to_thread(leave.wait, 60))

    writing = asyncio.ensure_future(store.transact(hold))
    await held.wait()
    assert [row.id for row in await other.jobs()] == ["r"]
    assert not writing.done()
    leave.set()
    await writing
    await other.close()


async def test_a_database_without_tables_is_no_store(postgres_url: str) -> None:
    store = Store(locate(postgres_url), create=False)
    with pytest.raises(StoreMissing, match="holds no store"):
        await store.jobs()
    await store.close()


CREATE = """
import asyncio, sys
from checkpoint_plugin.codec import encode
from checkpoint_plugin.tables.definition import Definition
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.saving.light import is_light
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import Store

async def main():
    body = encode({"graph": {"nodes": [], "edges": []}, "inputs": {}, "enable": {}}, str)
    print("ready", flush=True)
    sys.stdin.readline()
    store = Store(locate(sys.argv[1]), create=True)
    await store.insert_job(sys.argv[2], Definition(body, "{}", "{}"))
    await store.close()

asyncio.run(main())
"""


def create_at_once(url: str, run_ids: Sequence[str]) -> list[tuple[int, str]]:
    """Create one run in each of several processes; their exit codes and complaints."""
    command = [sys.executable, "-c", CREATE, url]
    children = [subprocess.Popen([*command, run_id], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) for run_id in run_ids]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    complaints = [child.communicate()[1] for child in children]
    return [(child.returncode, complaint) for child, complaint in zip(children, complaints, strict=True)]


async def test_many_processes_may_create_at_once(store_url: str) -> None:
    run_ids = ["r0", "r1", "r2", "r3"]
    assert create_at_once(store_url, run_ids) == [(0, "")] * 4
    store = Store(locate(store_url), create=False)
    assert sorted(row.id for row in await store.jobs()) == run_ids
    await store.close()


async def test_who_makes_a_store_waits_for_another_that_just_does(tmp_path: Path) -> None:
    """SQLite's own waiting does not help here: with one write lock held, it refuses at once to change to WAL."""
    path = tmp_path / "c.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = Store(locate(f"sqlite:///{path}"), create=True)
    making = asyncio.ensure_future(store.insert_job("r", definition()))
    await asyncio.wait((making,), timeout=0.2)
    other.close()
    await making
    await store.close()


async def test_many_stores_of_one_process_may_create_at_once(store_url: str) -> None:
    stores = [Store(locate(store_url), create=True) for _ in range(6)]
    await asyncio.gather(*(store.insert_job(f"r{i}", definition()) for i, store in enumerate(stores)))
    assert len(await stores[0].jobs()) == 6
    for store in stores:
        await store.close()


async def test_an_older_checkpoint_becomes_the_newest_and_the_later_ones_stay(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    collected: list[Any] = ["first"]
    output = NodeSnapshot("o", "running", firing=1, collected=Prefix(collected))
    await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=1), output), "1")
    collected.append("second")
    later = NodeSnapshot("o", "completed", firing=1, collected=Prefix(collected))
    await store.save(
        history, cut(NodeSnapshot("a", "running", firing=2, state=2), NodeSnapshot("b", "completed", firing=1), later), "2"
    )

    again = RunHistory("r", 1, 1)
    older = await store.restore(again, 1)
    assert older is not None
    ref = await store.rewind(again, older)
    assert ref is not None and ref.number == 3
    other: list[Any] = ["first", "other"]
    await store.save(again, cut(NodeSnapshot("o", "running", firing=1, collected=Prefix(other))), "4")

    newest = await store.restore(RunHistory("r", 1, 1), None)
    assert newest is not None
    assert {node.node_id: node.state for node in newest.nodes} == {"a": 1, "o": None}
    assert [list(node.collected) for node in newest.nodes if node.node_id == "o"] == [["first", "other"]]
    second = await store.restore(RunHistory("r", 1, 1), 2)
    assert second is not None
    assert {node.node_id: node.state for node in second.nodes} == {"a": 2, "b": None, "o": None}
    assert [list(node.collected) for node in second.nodes if node.node_id == "o"] == [["first", "second"]]


@pytest.mark.parametrize("damaged", ["lease", "blocks"])
async def test_who_names_a_checkpoint_goes_on_though_what_tells_of_the_newest_is_damaged(store: Store, damaged: str) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1, tally=Tally(least=1) if damaged == "blocks" else None)
    damage = update(COMPLETED_NODES).values(body=b"x") if damaged == "blocks" else update(LEASE).values(newest_number=1)
    for number in (1, 2, 3):
        nodes = NodeSnapshot("a", "running", state=number), NodeSnapshot(f"done {number}", "completed", firing=1)
        await store.save(history, cut(*nodes), "step")
    await store.transact(lambda connection: connection.execute(damage))
    with pytest.raises(StoreDamaged):
        await store.restore(RunHistory("r", 1, 1), None, brief=True)
    history = RunHistory("r", 1, 1)
    found = await store.restore(history, 2)
    assert found is not None
    ref = await store.rewind(history, found)
    assert ref is not None and ref.number == 4
    await store.save(history, cut(NodeSnapshot("a", "running", state=5)), "step")
    found = await store.restore(RunHistory("r", 1, 1), None, brief=True)
    assert found is not None and found.number == 5 and sorted(found.over) == ["done 1", "done 2"]
    assert [node.state for node in found.nodes if node.node_id == "a"] == [5]


async def test_who_cannot_go_back_has_not_moved_and_goes_back_the_next_time(store: Store) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for state in (1, 2):
        nodes = [NodeSnapshot(node_id, "running", firing=1, state=state) for node_id in "ab"]
        await store.save(history, cut(*nodes), str(state))
    again = RunHistory("r", 1, 1)
    older = await store.restore(again, 1)
    assert older is not None
    answered = replace(older, nodes=(*older.nodes, NodeSnapshot("c", "running", firing=1, state=object())))
    with pytest.raises(ValueNotStorable):
        await store.rewind(again, answered)
    ref = await store.rewind(again, older)
    assert ref is not None and ref.number == 3
    newest = await store.restore(RunHistory("r", 1, 1), None)
    assert newest is not None and {node.node_id: node.state for node in newest.nodes} == {"a": 1, "b": 1}


async def test_a_node_has_a_state_from_its_first_firing_on_and_what_is_taken_back_is_told(store: Store) -> None:
    async def states() -> dict[str, str]:
        return {row.node_id: row.status for row in await store.node_states("r")}

    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    waiting = NodeSnapshot("b", "idle", inbox=(EdgeSnapshot("e1", (BIG,), True),))
    await store.save(history, cut(NodeSnapshot("a", "completed", firing=1), waiting), "1")
    assert await states() == {"a": "completed"}
    (report,) = (await check_store(store)).runs
    assert not report.findings
    await store.save(history, cut(NodeSnapshot("b", "completed", firing=1), NodeSnapshot("c", "running", firing=1)), "2")
    assert await states() == {"a": "completed", "b": "completed", "c": "running"}

    again = RunHistory("r", 1, 1)
    older = await store.restore(again, 1)
    assert older is not None
    await store.rewind(again, older)
    assert await states() == {"a": "completed", "b": "idle", "c": "idle"}
    await store.save(again, cut(NodeSnapshot("d", "idle", inbox=waiting.inbox), NodeSnapshot("b", "running", firing=1)), "4")
    assert await states() == {"a": "completed", "b": "running", "c": "idle"}


async def test_rows_of_a_run_that_was_deleted_by_hand_are_refused_or_found(store: Store, store_url: str) -> None:
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", firing=1, state=BIG)), "1")

    def drop(connection: Connection) -> None:
        for table in (CHECKPOINT, RUN_DEFINITION, LEASE):
            connection.execute(delete(table))
        connection.execute(delete(JOB))

    if store_url.startswith("sqlite"):
        with pytest.raises(StoreUnreadable, match="FOREIGN KEY"):
            await store.transact(drop)
        assert not (await check_store(store)).findings
        return
    await store.transact(drop)
    found = (await check_store(store)).findings
    assert [finding.what.split(":")[0] for finding in found] == [
        f"{table} has rows of run 'r', which is not there" for table in ("node_version", "run_node_state", "payload")
    ]


async def test_what_is_made_for_a_save_alone_is_not_taken_for_another(store: Store) -> None:
    """A suspension gives its metadata and answers as objects of their own, of which each may have the id of one before it."""
    await store.insert_job("r", definition())
    count = 60
    waits = [
        Suspension("ask", datetime.now(UTC), "s", {"who": f"person {n}"}, earlier=(("first", f"answer {n}"),))
        for n in range(count)
    ]
    nodes = [NodeSnapshot(f"n{n}", "suspended", firing=1, arguments={}, suspension=wait) for n, wait in enumerate(waits)]
    await store.save(RunHistory("r", 1, 1), cut(*nodes), "1")
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    assert {node.node_id: node.suspension for node in found.nodes} == {f"n{n}": wait for n, wait in enumerate(waits)}


def test_a_value_is_that_of_its_edge_where_another_has_the_id_of_its_place() -> None:
    named = [("e1", "a", "left"), (None, "b", "right"), ("e1'", "c", "mid")]
    edges = [
        {**({"id": edge_id} if edge_id else {}), "source": source, "target": "t", "targetHandle": handle}
        for edge_id, source, handle in named
    ]
    places = GraphPlaces({"nodes": [], "edges": edges})
    assert [places.producer(("edge", edge_id)) for edge_id in ("e1", "e1''", "e1'")] == [(name, "output") for name in "abc"]
    assert [places.producer(("argument", "t", handle)) for handle in ("left", "right", "mid")] == [(n, "output") for n in "abc"]


async def test_values_of_two_places_that_grow_out_of_one(store: Store) -> None:
    await store.insert_job("r", definition())
    graph = {"nodes": [], "edges": [{"id": "e", "source": "a", "target": "b"}]}
    history = RunHistory("r", 1, 1, places=GraphPlaces(graph))
    bits = random.Random(7)
    text = bits.randbytes(6_000)
    expected: dict[int, tuple[bytes | None, bytes]] = {}
    sent, kept = text, None
    for number in range(1, 30):
        if number % 3:  # the item on the edge grows, and what its consumer makes of it grows another way
            sent += bits.randbytes(900)
        else:
            kept = sent + bits.randbytes(700)
        item = EdgeSnapshot("e", (sent,), False)
        await store.save(history, cut(NodeSnapshot("b", "running", firing=1, commits=number, state=kept, inbox=(item,))), "1")
        expected[number] = (kept, sent)
    for number, (state, sent) in expected.items():
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        (node,) = found.nodes
        assert (node.state, node.inbox[0].items) == (state, (sent,))


@pytest.mark.parametrize("appended", [1_000, 40], ids=["a kilobyte", "forty bytes"])
async def test_a_value_that_grows_is_stored_as_what_is_new(store: Store, appended: int) -> None:
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    bits = random.Random(11)
    grown: list[bytes] = []
    for number in range(1, 201):
        grown.append(bits.randbytes(appended))
        state = {"step": number, "items": list(grown), "next": number + 1}
        await store.save(history, cut(NodeSnapshot("a", "running", firing=1, commits=number, state=state)), "step")

    def stored(connection: Connection) -> int:
        lengths = (func.sum(func.length(table.c.body)) for table in (PAYLOAD, PAYLOAD_SEGMENT, NODE_VERSION))
        return sum(connection.execute(select(length)).scalar_one() or 0 for length in lengths)

    whole = sum(range(0, GROWING, appended))  # what is written sooner than compared
    assert await store.transact(stored, write=False) <= 1.5 * sum(map(len, grown)) + 200 * 200 + whole
    for number in (1, 2, 3, 17, 100, 199, 200):
        found = await store.restore(RunHistory("r", 1, 1), number)
        assert found is not None
        (node,) = found.nodes
        assert node.state == {"step": number, "items": grown[:number], "next": number + 1}


@pytest.mark.parametrize("odd", [[], [2**64], ["\ud800"], [b"x"], [(1,)]], ids=["none", "large", "surrogate", "bytes", "tuple"])
async def test_many_small_values_come_back_exactly(store: Store, odd: list[Any]) -> None:
    """They are packed together where all of them are numbers, short texts and `None`, and one by one where one is not."""
    many = [True, 1, 1.0, -0.0, float("nan"), float("-inf"), None, "", "ä" * 28, 2**64 - 1, -(2**63), False, 0, *odd]
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    waiting = NodeSnapshot("a", "running", inbox=(EdgeSnapshot("e", tuple(many), False),))
    await store.save(history, cut(waiting, NodeSnapshot("o", "running", collected=many)), "1")
    await store.save(history, cut(NodeSnapshot("o", "running", collected=[*many, *many])), "2")
    found = await store.restore(RunHistory("r", 1, 1), None)
    assert found is not None
    a, o = sorted(found.nodes, key=lambda node: node.node_id)
    assert list(map(repr, a.inbox[0].items)) == list(map(repr, many))
    assert list(map(repr, o.collected)) == list(map(repr, many * 2))
