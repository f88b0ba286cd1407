"""Checkpoints by hand: the manager alone, without any runner, on both databases."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest
from sqlalchemy import Integer, LargeBinary, delete, event, func, literal, select, update
from sqlalchemy.engine import Engine

from checkpoint_plugin import (
    CheckpointData,
    CheckpointManager,
    Job,
    JobRepository,
    NodeStateSnapshot,
    RecoveryService,
    create_checkpoint_hook,
    restore_checkpoint_hook,
)
from checkpoint_plugin import manager as manager_module
from checkpoint_plugin.by_hand.standing import moment_of
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database import sqlite_engine, worker
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.database.postgresql import PostgresDatabase
from checkpoint_plugin.errors import GraphMismatch, NotResumable, StoreDamaged, StoreMissing, StoreUnreadable, ValueNotStorable
from checkpoint_plugin.models import CHECKPOINT, JOB, LEASE, NODE_VERSION, PAYLOAD, RUN_NODE_STATE, Base
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.space.size import measure_store
from checkpoint_plugin.status import RUN_STATUSES
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.node_rows import lock_epoch, upsert_node_rows
from hookspecs import LeaseLost, RunHeld, StoreError
from tests.checkpoint_plugin.newest import newest_number
from tests.checkpoint_plugin.test_database_postgresql import WAITING, turns_to
from tests.checkpoint_plugin.test_plugin import Host, pipeline
from workflow_runner import Context, Graph, WorkflowRunner, node

GRAPH = {
    "nodes": [{"id": name, "type": f"t.{name}"} for name in "abcd"],
    "edges": [{"source": "a", "target": "b"}, {"source": "b", "sourceHandle": "out", "target": "c", "targetHandle": "in"}],
}
BIG = "x" * 1_600


@node
async def alone() -> int:
    return 1


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = Store(locate(store_url), create=True)
    yield store
    await store.close()


@pytest.fixture
def manager(store_url: str) -> CheckpointManager:
    return CheckpointManager("r", enabled=True, url=store_url)


async def restored(manager: CheckpointManager, graph: Any = GRAPH) -> CheckpointData:
    """What is stored, read by a manager that remembers nothing."""
    fresh = CheckpointManager(manager.run_id, enabled=True)
    fresh._access = manager._access
    found = await fresh.restore_checkpoint(graph)
    assert found is not None
    return found


async def count(store: Store, table: Any) -> int:
    def work(connection: Connection) -> int:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

    return await store.transact(work, write=False)


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Any]:
    """One to PostgreSQL, apart from any store."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(url: str, statement: Any) -> None:
    store = Store(locate(url), create=False)
    await store.transact(lambda connection: connection.execute(statement))
    await store.close()


# Disabled.


async def test_a_disabled_manager_does_nothing(tmp_path: Path) -> None:
    manager = CheckpointManager("r", url=f"sqlite:///{tmp_path / 'folder' / 'x.db'}")
    assert await manager.save_checkpoint(graph=GRAPH, completed_nodes={"a"}, active_nodes=set(), pending_nodes=set()) is False
    assert await manager.restore_checkpoint(GRAPH) is None
    assert await manager.can_resume() is False
    assert await manager.clear_checkpoint() is False
    stats = manager.get_stats()
    assert stats == {"run_id": "r", "enabled": False, "checkpoint_count": 0, "last_checkpoint_time": None}
    async with manager:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disabled_manager_imports_no_database_layer() -> None:
    code = """if True:
        import asyncio, sys
        from checkpoint_plugin import CheckpointManager, create_checkpoint_hook, restore_checkpoint_hook
        async def main():
            manager = CheckpointManager("r")
            await manager.save_checkpoint(graph={}, completed_nodes={"a"}, active_nodes=(), pending_nodes=())
            await manager.restore_checkpoint({}), await manager.can_resume(), await manager.clear_checkpoint()
            await create_checkpoint_hook(None, {}), await restore_checkpoint_hook(manager, {})
        asyncio.run(main())
        print(sorted({"sqlmodel", "sqlalchemy", "asyncpg", "sqlite3", "ormsgpack", "pydantic"} & set(sys.modules)))"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_disabled_call_makes_a_single_check() -> None:
    """Counted, not timed: the method itself is the only function that is called."""
    manager = CheckpointManager("r")
    called: list[str] = []

    def note(frame: Any, kind: str, argument: Any) -> None:
        if kind in ("call", "c_call"):
            called.append(frame.f_code.co_name if kind == "call" else argument.__name__)

    sys.setprofile(note)
    try:
        await manager.save_checkpoint(GRAPH, (), (), ())
        await manager.can_resume()
    finally:
        sys.setprofile(None)
    assert called == ["save_checkpoint", "can_resume", "setprofile"]


# Saving and restoring.


async def test_a_save_comes_back(manager: CheckpointManager, store: Store) -> None:
    before = datetime.now(UTC)
    outputs = {"a": {"out": {"rows": [(1, 2.5), BIG]}, "other": None}}
    saved = await manager.save_checkpoint(
        graph=GRAPH,
        completed_nodes={"a"},
        active_nodes={"b"},
        pending_nodes={"c"},
        context_data={"k": {1, 2}, "when": before},
        outputs=outputs,
    )
    assert saved is True
    assert await manager.can_resume()
    data = await restored(manager)
    assert isinstance(data, CheckpointData)
    assert (data.run_id, data.completed_nodes, data.active_nodes, data.pending_nodes) == ("r", {"a"}, {"b"}, {"c"})
    assert data.node_states == {
        "a": NodeStateSnapshot("a", "completed", 1, outputs=outputs["a"]),
        "b": NodeStateSnapshot("b", "running", 1),
        "c": NodeStateSnapshot("c", "scheduled", 1),
    }
    assert data.context_data == {"k": {1, 2}, "when": before}
    assert before <= data.checkpoint_time <= datetime.now(UTC)
    assert manager.get_stats()["checkpoint_count"] == 1
    assert manager.get_stats()["last_checkpoint_time"] == data.checkpoint_time


async def test_what_is_saved_can_be_selected(manager: CheckpointManager, store: Store) -> None:
    await manager.save_checkpoint(GRAPH, {"a"}, {"b"}, {"c"}, outputs={"a": {"out": (1, 2)}})
    jobs = JobRepository(store=store)
    job = await jobs.get("r")
    assert (job.status, job.has_checkpoint, job.attempt) == ("running", True, 1)
    states = {state.node_id: state for state in await jobs.node_states("r")}
    assert {name: state.status for name, state in states.items()} == {"a": "completed", "b": "running", "c": "scheduled"}
    assert states["a"].outputs == {"out": (1, 2)}
    assert states["a"].completed_at is not None and states["b"].started_at is not None and states["c"].scheduled_at is not None


async def test_nothing_stored_is_none(manager: CheckpointManager, store_url: str, tmp_path: Path) -> None:
    assert await manager.restore_checkpoint(GRAPH) is None
    assert await manager.can_resume() is False
    assert await manager.clear_checkpoint() is False
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    await CheckpointManager("other", enabled=True, url=store_url).save_checkpoint(GRAPH, {"a"})
    assert await manager.restore_checkpoint(GRAPH) is None
    assert await manager.can_resume() is False


async def test_several_saves_are_several_checkpoints(manager: CheckpointManager, store: Store) -> None:
    for _ in range(3):
        await manager.save_checkpoint(GRAPH, {"a"}, {"b"}, outputs={"a": {"out": BIG}})
    assert manager.checkpoint_count == 3
    assert await count(store, CHECKPOINT) == 3
    assert await count(store, NODE_VERSION) == 2, "what did not change is not written again"
    assert await count(store, PAYLOAD) == 1


async def test_a_completed_node_that_is_pending_again_is_pending(manager: CheckpointManager) -> None:
    await manager.save_checkpoint(GRAPH, {"a", "b"}, outputs={"a": {"out": 1}, "b": {"out": 2}})
    await manager.save_checkpoint(GRAPH, {"a"}, (), {"b"})
    data = await restored(manager)
    assert (data.completed_nodes, data.pending_nodes) == ({"a"}, {"b"})
    assert data.node_states["b"] == NodeStateSnapshot("b", "scheduled", 1)
    assert data.node_states["a"].outputs == {"out": 1}, "outputs of a node that stays completed are kept"


async def test_a_node_that_is_not_named_stays_as_it_was(manager: CheckpointManager) -> None:
    await manager.save_checkpoint(GRAPH, {"a"}, {"b"}, context_data={"k": 1}, outputs={"a": {"out": 1}})
    await manager.save_checkpoint(GRAPH, (), {"c"})
    data = await restored(manager)
    assert (data.completed_nodes, data.active_nodes, data.context_data) == ({"a"}, {"b", "c"}, {"k": 1})
    await manager.save_checkpoint(GRAPH, (), (), (), context_data={})
    assert (await restored(manager)).context_data == {}


async def test_any_status_attempt_error_and_state_survive(manager: CheckpointManager) -> None:
    states = {
        "a": NodeStateSnapshot("a", "failed", 3, error="E: no\udcff\0"),
        "b": NodeStateSnapshot("b", "suspended", 2, outputs={"part": 1}, resume_state={"page": (3,)}),
        "c": NodeStateSnapshot("c", "paused", 4),
        "d": NodeStateSnapshot("d", "idle"),
    }
    await manager.save_checkpoint(GRAPH, node_states=states)
    data = await restored(manager)
    assert data.node_states == states
    assert (data.completed_nodes, data.active_nodes, data.pending_nodes) == (set(), {"b"}, set())
    await manager.save_checkpoint(GRAPH, (), {"a"})
    again = (await restored(manager)).node_states["a"]
    assert (again.status, again.attempt, again.error) == ("running", 3, None)


async def test_an_idle_node_keeps_what_it_holds(manager: CheckpointManager) -> None:
    held = NodeStateSnapshot("a", "idle", 3, {"out": PurePosixPath("made")}, "no\0text", PurePosixPath("kept"))
    await manager.save_checkpoint(GRAPH, node_states={"a": held})
    assert (await restored(manager)).node_states["a"] == held
    await manager.save_checkpoint(GRAPH, (), {"a"})
    assert (await restored(manager)).node_states["a"] == NodeStateSnapshot("a", "running", 3, resume_state=PurePosixPath("kept"))


async def test_an_error_that_begins_like_a_sealed_text_is_one_like_any_other(manager: CheckpointManager, store: Store) -> None:
    error = "aes: bad key"
    await manager.save_checkpoint(GRAPH, node_states={"a": NodeStateSnapshot("a", "failed", error=error)})
    await JobRepository(store=store).change("r", lambda job: job.mark_failed(error))
    await manager.save_checkpoint(GRAPH, (), {"b"})
    data = await restored(manager)
    assert (data.node_states["a"].error, data.active_nodes) == (error, {"b"})
    assert (await store.job("r")).error == error
    assert [row.last_error for row in await store.node_states("r") if row.node_id == "a"] == [error]


async def test_a_suspended_node_stays_suspended_unless_it_is_said_to_be_active(manager: CheckpointManager) -> None:
    suspended = NodeStateSnapshot("b", "suspended", 2, resume_state={"page": 3})
    await manager.save_checkpoint(GRAPH, {"a"}, node_states={"b": suspended})
    await manager.save_checkpoint(GRAPH, {"a"}, (), {"b", "c"})
    data = await restored(manager)
    assert data.node_states["b"] == suspended
    assert (data.active_nodes, data.pending_nodes) == ({"b"}, {"c"})
    await manager.save_checkpoint(GRAPH, {"a"}, {"b"})
    assert (await restored(manager)).node_states["b"] == NodeStateSnapshot("b", "running", 2, resume_state={"page": 3})
    await manager.save_checkpoint(GRAPH, {"a"}, (), {"b"})
    assert (await restored(manager)).node_states["b"] == NodeStateSnapshot("b", "scheduled", 2)


async def test_what_others_do_to_a_node_counts(manager: CheckpointManager, store: Store, store_url: str) -> None:
    """By its row: suspended by somebody else, it stays suspended, with the state that it was given."""
    await manager.save_checkpoint(GRAPH, {"a"}, {"b"}, outputs={"a": {"out": {1, 2}}})
    jobs = JobRepository(store=store)
    state = await jobs.node_state("r", "b")
    assert state is not None
    state.mark_suspended("waits", {"page": (3,)})
    await jobs.save_node_state(state)
    expected = NodeStateSnapshot("b", "suspended", 1, resume_state={"page": (3,)})
    assert (await restored(manager)).node_states["b"] == expected
    await manager.save_checkpoint(GRAPH, {"a"}, (), {"b"})
    data = await restored(manager)
    assert data.node_states["b"] == expected
    assert data.node_states["a"].outputs == {"out": {1, 2}}
    await execute(store_url, update(RUN_NODE_STATE).where(RUN_NODE_STATE.c.node_id == "a").values(status="failed", attempt=7))
    found = (await restored(manager)).node_states["a"]
    assert (found.status, found.attempt) == ("failed", 7)


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "two stores"])
async def test_an_open_manager_sees_what_others_write_between_its_saves(store_url: str, store: Store, shared: bool) -> None:
    manager = CheckpointManager("r", enabled=True, store=store) if shared else CheckpointManager("r", enabled=True, url=store_url)
    async with manager:
        await manager.save_checkpoint(GRAPH, {"a", "b"})
        await manager.save_checkpoint()
        jobs = JobRepository(store=store)
        state = await jobs.node_state("r", "a")
        assert state is not None
        before, state.status = state.updated_at, "failed"
        await jobs.save_node_state(state)
        assert state.updated_at > before
        await manager.save_checkpoint(GRAPH, {"a"})
        assert (await restored(manager)).completed_nodes == {"a", "b"}
        assert await newest_number(store_url) == 3


async def test_any_number_of_nodes_comes_back(manager: CheckpointManager) -> None:
    names = [f"n{place}" for place in range(1200)]
    graph = {"nodes": [{"id": name} for name in names], "edges": []}
    await manager.save_checkpoint(graph, names[:400], names[400:800], names[800:], outputs={n: {"o": n} for n in names[:400]})
    data = await restored(manager, graph)
    assert len(data.node_states) == 1200
    assert (len(data.completed_nodes), len(data.active_nodes), len(data.pending_nodes)) == (400, 400, 400)
    assert all(data.node_states[name].outputs == {"o": name} for name in names[:400])


async def test_outputs_that_a_node_gives_before_it_is_over_leave_what_it_goes_on_with(manager: CheckpointManager) -> None:
    waits = NodeStateSnapshot("b", "suspended", resume_state={"page": 3})
    await manager.save_checkpoint(GRAPH, node_states={"b": waits})
    await manager.save_checkpoint(GRAPH, outputs={"b": {"out": 1}})
    assert (await restored(manager)).node_states["b"] == NodeStateSnapshot("b", "suspended", 1, {"out": 1}, None, {"page": 3})
    await manager.save_checkpoint(GRAPH, {"b"}, outputs={"b": {"out": 2}})
    assert (await restored(manager)).node_states["b"] == NodeStateSnapshot("b", "completed", 1, {"out": 2})


async def test_outputs_of_a_node_are_given_in_one_place(manager: CheckpointManager) -> None:
    await manager.save_checkpoint(GRAPH, (), {"a"})
    with pytest.raises(ValueError, match="in node_states and named"):
        await manager.save_checkpoint(GRAPH, outputs={"a": {"out": 1}}, node_states={"a": NodeStateSnapshot("a", "completed")})
    assert (await restored(manager)).active_nodes == {"a"}


async def test_the_caller_may_change_its_values_afterwards(manager: CheckpointManager) -> None:
    outputs: dict[str, Any] = {"a": {"out": [1]}}
    context: dict[str, Any] = {"k": [1]}
    saving = asyncio.create_task(manager.save_checkpoint(GRAPH, {"a"}, context_data=context, outputs=outputs))
    await asyncio.sleep(0)
    outputs["a"]["out"].append(2)
    context["k"].append(2)
    await saving
    data = await restored(manager)
    assert data.node_states["a"].outputs == {"out": [1]}
    assert data.context_data == {"k": [1]}


async def test_what_a_manager_is_told_is_held_against_what_others_wrote_since(store_url: str) -> None:
    first, second = (CheckpointManager("r", enabled=True, url=store_url) for _ in range(2))
    await first.save_checkpoint(GRAPH, {"d"})
    await second.save_checkpoint(GRAPH, active_nodes={"a"})
    await first.save_checkpoint(GRAPH, outputs={"a": {"out": 1}})
    assert (await restored(first)).node_states["a"].outputs == {"out": 1}
    await second.clear_checkpoint()
    smaller = {"nodes": GRAPH["nodes"][:3], "edges": GRAPH["edges"]}
    await second.save_checkpoint(smaller, {"a"})
    await first.save_checkpoint(smaller, {"b"})
    assert (await restored(first, smaller)).completed_nodes == {"a", "b"}
    with pytest.raises(ValueError, match="outputs are given for node 'd'"):
        await first.save_checkpoint(outputs={"d": {"out": 1}})
    with pytest.raises(GraphMismatch):
        await first.save_checkpoint({"nodes": GRAPH["nodes"][:1], "edges": []}, {"a"})


async def test_a_moment_of_another_connection_is_another_one(tmp_path: Path) -> None:
    """Each counts from its own beginning, so that two may have counted the same, and somebody have written in between."""
    store, moments = Store(locate(f"sqlite:///{tmp_path / 'c.db'}"), create=True), list[Any]()
    await CheckpointManager("r", enabled=True, store=store).save_checkpoint(completed_nodes={"a"})
    for _ in range(2):
        await store.close()
        moments.append(await store.transact(moment_of, write=False))
    await store.close()
    assert moments[0] != moments[1]
    assert moments[0][1:] == moments[1][1:]


async def test_two_managers_of_one_run_take_turns(store_url: str) -> None:
    first = CheckpointManager("r", enabled=True, url=store_url)
    second = CheckpointManager("r", enabled=True, url=store_url)
    for place, manager in enumerate((first, second, first, first, second)):
        await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": place}})
        assert (await restored(first)).node_states["a"].outputs == {"out": place}
    await asyncio.gather(*(m.save_checkpoint(GRAPH, {"b"}) for m in (first, second) for _ in range(3)))
    assert await newest_number(store_url) == 11


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_fork_does_not_use_what_its_parent_has_open(store_url: str) -> None:
    on_sqlite = store_url.startswith("sqlite")
    mend = "Start this process with `spawn`, not `fork`." if on_sqlite else "Open it here, too."
    async with CheckpointManager("r", enabled=True, url=store_url) as manager:
        await manager.save_checkpoint(None, {"a"})
        forked = multiprocessing.get_context("fork")
        told = forked.Queue()
        process = forked.Process(target=_fork, args=(manager, store_url, told))
        process.start()
        try:
            for _ in range(2):
                assert f"of which this one is a fork; nothing was read or written. {mend}" in await asyncio.to_thread(
                    told.get, timeout=20
                )
            saved = await asyncio.to_thread(told.get, timeout=20)
            await asyncio.to_thread(process.join, 20)
            assert process.exitcode == 0
        finally:
            process.kill()
        await manager.save_checkpoint(None, {"c"})
    assert "`spawn`" in saved if on_sqlite else saved is True
    assert (await restored(manager, None)).completed_nodes == ({"a", "c"} if on_sqlite else {"a", "b", "c"})


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_fork_opens_what_its_parent_has_closed(store_url: str) -> None:
    manager = CheckpointManager("r", enabled=True, url=store_url)
    await manager.save_checkpoint(None, {"a"})
    forked = multiprocessing.get_context("fork")
    told = forked.Queue()
    process = forked.Process(target=_fork, args=(manager, store_url, told))
    process.start()
    try:
        assert await asyncio.to_thread(told.get, timeout=20) is True
        await asyncio.to_thread(process.join, 20)
    finally:
        process.kill()
    assert (await restored(manager, None)).completed_nodes == {"a", "b"}


def _fork(manager: CheckpointManager, store_url: str, told: Any) -> None:
    asyncio.run(_save_in_fork(manager, store_url, told))


async def _save_in_fork(manager: CheckpointManager, store_url: str, told: Any) -> None:
    for use in (manager.save_checkpoint(None, {"b"}), manager.__aenter__()):
        try:
            await use
        except StoreUnreadable as error:
            told.put(str(error))
    await manager.close()
    try:
        told.put(await CheckpointManager("r", enabled=True, url=store_url).save_checkpoint(None, {"b"}))
    except StoreUnreadable as error:
        told.put(str(error))


def test_a_manager_is_used_in_one_event_loop_after_another(store_url: str) -> None:
    manager = CheckpointManager("r", enabled=True, url=store_url)

    async def save(*node_ids: str) -> list[bool]:
        return await asyncio.gather(*(manager.save_checkpoint(None, {node_id}) for node_id in node_ids))

    for node_ids in ("abc", "def"):
        assert asyncio.run(save(*node_ids)) == [True] * 3
    assert asyncio.run(restored(manager, None)).completed_nodes == set("abcdef")


def test_a_store_is_used_in_several_event_loops(store_url: str) -> None:
    """On SQLite; on PostgreSQL connections belong to an event loop, and the others are told. Nobody waits for ever."""
    store = Store(locate(store_url), create=True)
    ended: list[int | str] = []
    first, last = threading.Event(), threading.Event()

    async def save(number: int) -> None:
        manager = CheckpointManager(f"r{number}", enabled=True, store=store)
        try:
            for node_id in map(str, range(10)):
                await manager.save_checkpoint(None, {node_id})
                first.set()
            ended.append(number)
        except StoreUnreadable as error:
            ended.append(str(error))
        if number == 0:
            await asyncio.to_thread(last.wait, 40)
            await store.close()

    threads = [threading.Thread(target=asyncio.run, args=(save(number),), daemon=True) for number in range(5)]
    threads[0].start()
    assert first.wait(20)
    for group in (threads[1:4], threads[4:]):
        for thread in group:
            thread.start()
        for thread in group:
            thread.join(10)
    last.set()
    threads[0].join(20)
    if locate(store_url).kind == "sqlite":
        assert sorted(map(str, ended)) == ["0", "1", "2", "3", "4"]
    else:
        assert [text for text in ended if text != 0] == [
            f"the store at {store.location.shown} was opened in another event loop, to which its connections belong; nothing was "
            "read or written. Open it here, too."
        ] * 4


def test_a_store_that_has_no_connection_any_more_is_used_in_the_next_event_loop(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was closed, or none could be made."""
    store = Store(locate(store_url), create=True)
    manager = CheckpointManager("r", enabled=True, store=store)

    async def save(node_id: str) -> bool:
        try:
            return await manager.save_checkpoint(None, {node_id})
        finally:
            await store.close()

    assert asyncio.run(save("a"))
    assert asyncio.run(save("b"))
    if locate(store_url).kind == "sqlite":
        return
    away = Store(locate(store_url), create=True)
    manager = CheckpointManager("r", enabled=True, store=away)
    with monkeypatch.context() as patch:
        patch.setattr(asyncpg, "connect", AsyncMock(side_effect=asyncpg.InvalidPasswordError("not yet")))
        with pytest.raises(StoreUnreadable, match="not yet"):
            asyncio.run(manager.save_checkpoint(None, {"c"}))
    store = away
    assert asyncio.run(save("c"))


def test_event_loops_of_several_threads_that_begin_at_once_share_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(threading.Thread):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            time.sleep(0.05)
            made.append(self)
            super().__init__(*arguments, **options)

    made: list[threading.Thread] = []
    url = f"sqlite:///{tmp_path / 'checkpoints.db'}"
    asyncio.run(CheckpointManager("r", enabled=True, url=url).save_checkpoint(None, {"a"}))  # to make the tables takes another
    store = Store(locate(url), create=True)
    saves = [CheckpointManager(f"r{n}", enabled=True, store=store).save_checkpoint(None, {"a"}) for n in range(4)]
    threads = [threading.Thread(target=asyncio.run, args=(save,), daemon=True) for save in saves]
    monkeypatch.setattr(worker, "Thread", Slow)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 1
    asyncio.run(store.close())


async def test_a_manager_keeps_the_store_open_when_it_is_entered(store_url: str) -> None:
    async with CheckpointManager("r", enabled=True, url=store_url) as manager:
        await manager.save_checkpoint(GRAPH, {"a"})
        assert await manager.can_resume()
    assert await manager.can_resume()


async def test_our_graphs_and_objects_are_graphs(store_url: str) -> None:
    @node
    async def one(x: int) -> int:
        return x

    ours = Graph()
    ours.add(one, node_id="second", x=ours.add(one, node_id="first", x=1))

    @dataclass
    class Thing:
        id: str = ""
        source: str = ""
        target: str = ""

    @dataclass
    class Flow:
        nodes: list[Thing] = field(default_factory=lambda: [Thing("first"), Thing("second")])
        edges: list[Thing] = field(default_factory=lambda: [Thing(source="first", target="second")])

    by_id = {"nodes": {"first": {}, "second": {}}, "edges": []}
    for place, graph in enumerate((ours, Flow(), by_id)):
        manager = CheckpointManager(f"r{place}", enabled=True, url=store_url)
        await manager.save_checkpoint(graph, {"first"}, {"second"})
        assert (await restored(manager, graph)).completed_nodes == {"first"}


# What the run says.


@pytest.mark.parametrize("status", sorted(RUN_STATUSES))
async def test_the_status_of_the_run_decides_with_the_checkpoint(manager: CheckpointManager, store: Store, status: str) -> None:
    jobs = JobRepository(store=store)
    await jobs.add(Job(id="r", status=status, error="why", completed_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert await manager.can_resume() is False, "no checkpoint"
    await manager.save_checkpoint(GRAPH, {"a"})
    assert await manager.can_resume() is (status not in ("completed", "cancelled"))
    job = await jobs.get("r")
    assert (job.status, job.is_resumable) == (status, await manager.can_resume()), "a save leaves the run's status alone"
    await manager.save_checkpoint(GRAPH, {"b"})
    job = await jobs.get("r")
    assert (job.status, job.error, await newest_number(store)) == (status, "why", 2)
    assert (await restore_checkpoint_hook(manager, GRAPH) is not None) is job.is_resumable


async def test_clear_deletes_and_keeps_the_row(manager: CheckpointManager, store: Store, store_url: str) -> None:
    other = CheckpointManager("r2", enabled=True, url=store_url)
    for saved in (manager, other):
        await saved.save_checkpoint(GRAPH, {"a"}, {"b"}, outputs={"a": {"out": BIG}})
    assert await manager.clear_checkpoint() is True
    assert await manager.can_resume() is False
    assert await manager.restore_checkpoint(GRAPH) is None
    assert await newest_number(store) == 0
    assert not (await JobRepository(store=store).get("r")).is_resumable
    for table, left in ((CHECKPOINT, 1), (NODE_VERSION, 2), (RUN_NODE_STATE, 2), (PAYLOAD, 1), (JOB, 2)):
        assert await count(store, table) == left
    assert await manager.clear_checkpoint() is False, "nothing was there"
    assert await other.can_resume()
    await manager.save_checkpoint(GRAPH, {"c"}, outputs={"c": {"out": BIG}})
    data = await restored(manager)
    assert (data.completed_nodes, data.node_states["c"].outputs) == ({"c"}, {"out": BIG})


async def test_what_was_cleared_by_another_manager_is_not_remembered(store_url: str) -> None:
    first = CheckpointManager("r", enabled=True, url=store_url)
    await first.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": BIG}})
    await CheckpointManager("r", enabled=True, url=store_url).clear_checkpoint()
    await first.save_checkpoint(GRAPH, (), {"b"}, context_data={"big": BIG})
    data = await restored(first)
    assert (set(data.node_states), data.context_data) == ({"b"}, {"big": BIG})


async def test_the_hooks_work_for_whoever_has_a_manager(manager: CheckpointManager) -> None:
    for nobody in (None, CheckpointManager("r")):
        assert await create_checkpoint_hook(nobody, GRAPH, {"a"}, set(), set()) is False
        assert await restore_checkpoint_hook(nobody, GRAPH) is None
    assert await restore_checkpoint_hook(manager, GRAPH) is None
    assert await create_checkpoint_hook(manager, GRAPH, {"a"}, {"b"}, {"c"}, {"k": 1}, {"a": {"out": 1}}) is True
    data = await restore_checkpoint_hook(manager, GRAPH)
    assert data is not None
    assert (data.node_states["a"].outputs, data.context_data, data.pending_nodes) == ({"out": 1}, {"k": 1}, {"c"})


# Errors.


MARKS: tuple[Callable[[Job], None], ...] = (
    lambda job: job.mark_failed("why"),
    lambda job: job.mark_running(),
    lambda job: job.mark_suspended("b", "waits", {"page": 3}, {"who": "me"}),
    lambda job: job.mark_running(),
    lambda job: job.mark_completed(),
)


@pytest.mark.parametrize("stays_open", [True, False])
async def test_a_save_leaves_in_the_row_of_the_run_how_others_say_that_it_stands(
    store_url: str, store: Store, stays_open: bool
) -> None:
    def told(job: Job) -> dict[str, Any]:
        return {name: value for name, value in job.model_dump().items() if name not in ("updated_at", "version")}

    manager = CheckpointManager("r", enabled=True, url=store_url)
    jobs = JobRepository(store=store)
    async with manager if stays_open else nullcontext():
        await manager.save_checkpoint(GRAPH, {"a"})
        for number, mark in enumerate(MARKS, 2):
            await jobs.change("r", mark)
            before = await jobs.get("r")
            await manager.save_checkpoint(GRAPH, {"b"} if number % 2 else (), (), () if number % 2 else {"b"})
            after = await jobs.get("r")
            assert told(after) == told(before)
            assert after.updated_at > before.updated_at
            assert (await store.checkpoints("r"))[-1].status == before.status


async def test_a_graph_that_comes_with_a_later_save_is_stored(manager: CheckpointManager, store: Store) -> None:
    await manager.save_checkpoint(None, {"a"})
    for nodes in (3, 4):
        graph = {"nodes": GRAPH["nodes"][:nodes], "edges": GRAPH["edges"]}
        await manager.save_checkpoint(graph, {"b"})
        fresh = CheckpointManager("r", enabled=True, store=store)
        with pytest.raises(GraphMismatch, match=r"edge .* is missing"):
            await fresh.restore_checkpoint({"nodes": graph["nodes"], "edges": []})
        shown = (await JobRepository(store=store).get("r")).graph
        assert shown is not None and shown.count('"type"') == nodes


async def test_a_graph_that_does_not_fit_is_an_error(manager: CheckpointManager) -> None:
    await manager.save_checkpoint(GRAPH, {"a"}, {"b"})
    smaller = {"nodes": GRAPH["nodes"][1:], "edges": []}
    other = {"nodes": [{"id": name, "type": "t.other"} for name in "abcd"], "edges": GRAPH["edges"]}
    rewired = {"nodes": GRAPH["nodes"], "edges": [GRAPH["edges"][0], {"source": "d", "target": "a"}]}
    for graph, words in ((smaller, "'a' is missing"), (other, "'a' is 't.other'"), (rewired, "d → a is new"), ({}, "no nodes")):
        with pytest.raises(GraphMismatch, match=words):
            await manager.restore_checkpoint(graph)
        with pytest.raises(GraphMismatch):
            await manager.save_checkpoint(graph, {"b"})
    assert manager.checkpoint_count == 1
    grown = {"nodes": [*GRAPH["nodes"], {"id": "e"}], "edges": [*GRAPH["edges"], {"source": "d", "target": "e"}]}
    await manager.save_checkpoint(grown, (), {"e"})
    assert "e" in (await restored(manager, grown)).node_states
    with pytest.raises(GraphMismatch, match="'e' is missing"):
        await manager.restore_checkpoint(GRAPH)


@pytest.mark.parametrize("handle", ["sourceHandle", "target_handle"])
@pytest.mark.parametrize("wrong", [0.5, ["out"]])
async def test_a_handle_that_is_no_text_is_an_error(manager: CheckpointManager, handle: str, wrong: Any) -> None:
    graph = {"nodes": GRAPH["nodes"], "edges": [{"source": "a", "target": "b", handle: wrong}]}
    with pytest.raises(GraphMismatch, match=r"an edge's handle is text, not (0\.5|\['out'\])"):
        await manager.save_checkpoint(graph, {"a"})
    assert await manager.restore_checkpoint() is None
    edges = [{"source": "a", "target": "b", handle: port} for port in (0, 1, "in")]
    await manager.save_checkpoint({"nodes": GRAPH["nodes"], "edges": edges}, {"a"})
    with pytest.raises(GraphMismatch, match=r"edge a.* → b.* is missing; edge a.* → b.* is missing"):
        await manager.restore_checkpoint({"nodes": GRAPH["nodes"], "edges": []})
    unnamed = {"source": "a", "target": "b"}
    with pytest.raises(GraphMismatch, match=r"edge a.* → b"):  # port 0 is one
        await manager.restore_checkpoint({"nodes": GRAPH["nodes"], "edges": [unnamed, *edges[1:]]})


async def test_what_restore_would_refuse_is_not_saved(manager: CheckpointManager) -> None:
    with pytest.raises(GraphMismatch, match="'z' is missing"):
        await manager.save_checkpoint(GRAPH, {"z"})
    with pytest.raises(ValueError, match="completed and running"):
        await manager.save_checkpoint(GRAPH, {"a"}, {"a"})
    with pytest.raises(ValueError, match="in node_states and named"):
        await manager.save_checkpoint(GRAPH, {"a"}, node_states={"a": NodeStateSnapshot("a", "idle")})
    with pytest.raises(ValueError, match="no status"):
        await manager.save_checkpoint(GRAPH, node_states={"a": NodeStateSnapshot("a", "done")})
    fields: list[dict[str, Any]] = [{"attempt": n} for n in (True, 1.5, "1", None, 2**31, -1)]
    for wrong in (*fields, {"error": 5}, {"error": ValueError("no text")}, {"outputs": [1]}):
        with pytest.raises(ValueError, match="node 'a'"):
            await manager.save_checkpoint(GRAPH, node_states={"a": NodeStateSnapshot("a", "failed", **wrong)})
    with pytest.raises(ValueError, match="the state of node 'b' under 'a'"):
        await manager.save_checkpoint(None, node_states={"a": NodeStateSnapshot("b", "failed")})
    for node_id in ("", "a\0", "a\ud800", 5):
        with pytest.raises(ValueNotStorable, match="Rename it"):
            await manager.save_checkpoint(None, node_states={node_id: NodeStateSnapshot("a", "failed")})  # type: ignore[dict-item]
    with pytest.raises(ValueNotStorable, match="longer than 1000 bytes"):
        await manager.save_checkpoint(None, {"é" * 501})
    with pytest.raises(ValueError, match="not said to be anything"):
        await manager.save_checkpoint(GRAPH, outputs={"a": {"out": 1}})
    with pytest.raises(ValueError, match="values by handle"):
        await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="as a list or a set"):
        await manager.save_checkpoint(GRAPH, "a")
    for name in ("context_data", "outputs", "node_states"):
        with pytest.raises(TypeError, match=f"{name} is a mapping, not \\['x'\\]"):
            await manager.save_checkpoint(GRAPH, {"a"}, **{name: ["x"]})  # type: ignore[arg-type]
    for run_id in ("", "a\0", "a\ud800", None, 5):
        with pytest.raises(ValueError, match="at least one character"):
            CheckpointManager(run_id, enabled=True)  # type: ignore[arg-type]
    assert await manager.can_resume() is False


async def test_what_cannot_be_stored_is_named_and_nothing_is_written(manager: CheckpointManager) -> None:
    await manager.save_checkpoint(GRAPH, (), {"a"})
    with pytest.raises(ValueNotStorable, match=r"run 'r', node 'a', outputs\['out'\]\['x'\]\[1\]"):
        await manager.save_checkpoint(GRAPH, {"a"}, {"b"}, outputs={"a": {"out": {"x": [1, object()]}}})
    with pytest.raises(ValueNotStorable, match=r"run 'r', context\['k'\]"):
        await manager.save_checkpoint(GRAPH, {"a"}, context_data={"k": object()})
    with pytest.raises(ValueNotStorable, match="resume_state"):
        await manager.save_checkpoint(GRAPH, node_states={"a": NodeStateSnapshot("a", "suspended", resume_state=object())})
    with pytest.raises(ValueNotStorable, match="Rename it"):
        await manager.save_checkpoint(None, {"a\0"})
    for depth in (99, 100, 120):
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        with pytest.raises(ValueNotStorable, match=r"run 'r', node 'a', outputs\['deep'\].* is nested deeper than 100 levels"):
            await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"flat": 1, "deep": deep}})
        state = NodeStateSnapshot("a", "suspended", outputs={"flat": 1}, resume_state=[deep])
        with pytest.raises(ValueNotStorable, match=r"run 'r', node 'a', resume_state.* is nested deeper than 100 levels"):
            await manager.save_checkpoint(GRAPH, node_states={"a": state})
    data = await restored(manager)
    assert (data.active_nodes, set(data.node_states), manager.checkpoint_count) == ({"a"}, {"a"}, 1)


@pytest.mark.parametrize("damage", ["row", "checkpoint", "payload", "lease"])
async def test_damage_is_an_error(manager: CheckpointManager, store_url: str, damage: str) -> None:
    await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": BIG}})
    statement = {
        "row": update(NODE_VERSION).values(body=b"\x00"),
        "checkpoint": delete(CHECKPOINT),
        "payload": delete(PAYLOAD),
        "lease": delete(LEASE),
    }[damage]
    await execute(store_url, statement)
    for work in (manager.restore_checkpoint(GRAPH), restore_checkpoint_hook(manager, GRAPH)):
        with pytest.raises(StoreDamaged):
            await work
    if damage == "lease":
        for another in (manager, CheckpointManager("r", enabled=True, url=store_url)):
            with pytest.raises(StoreDamaged):
                await another.save_checkpoint(GRAPH, {"b"})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run_definition SET body = 'text'",
        "UPDATE run_definition SET digest = 5",
        "UPDATE run_node_state SET outputs_json = x'ff'",
        "UPDATE run_node_state SET attempt = 'x'",
        "UPDATE run_node_state SET last_error = x'ff'",
        "UPDATE run_node_state SET status = 'done'",
    ],
)
@pytest.mark.parametrize("key", ["", "00" * 32])
async def test_what_no_column_can_have_is_damage(
    tmp_path: Path, statement: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    url = f"sqlite:///{tmp_path}/x.db"
    manager = CheckpointManager("r", enabled=True, url=url)
    await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": 1}})
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute(f"{statement}, updated_at = '2026-01-01'" if "run_node_state" in statement else statement)
    service = RecoveryService(url=url)
    for work in (
        manager.restore_checkpoint(GRAPH),
        service.plan("r"),
        CheckpointManager("r", True, url).save_checkpoint(GRAPH, {"b"}),
    ):
        with pytest.raises(StoreDamaged):
            await work


@pytest.mark.parametrize("key", ["", "00" * 32])
async def test_a_number_in_the_place_of_bytes_is_damage(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python makes as many zeros of it, which may be all memory."""
    monkeypatch.setenv("WORKFLOW_CHECKPOINT_KEY", key)
    url = f"sqlite:///{tmp_path}/x.db"
    manager = CheckpointManager("r", enabled=True, url=url)
    for part in (BIG * 5, BIG * 6):
        await manager.save_checkpoint(GRAPH, {"a"}, outputs={"a": {"out": part}}, context_data={"k": 1})
    columns = [c for table in Base.metadata.sorted_tables for c in table.columns if isinstance(c.type, LargeBinary)]
    for column in (column for column in columns if not column.primary_key):
        number, there = literal(1 << 40, Integer), column.is_not(None)
        copy = tmp_path / column.table.name / column.name / "x.db"
        copy.parent.mkdir(parents=True)
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection, closing(sqlite3.connect(copy)) as made:
            connection.backup(made)
        await execute(f"sqlite:///{copy}", update(column.table).where(there).values({column: number}))
        store = Store(locate(f"sqlite:///{copy}"), create=False)
        for work in (
            CheckpointManager("r", enabled=True, store=store).restore_checkpoint(GRAPH),
            store.load_job("r"),
            check_store(store),
            measure_store(store),
            prune_runs(store, Retention(keep_last=1)),
        ):
            with suppress(StoreError):
                await work
        await store.close()


async def test_a_lost_database_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    manager = CheckpointManager("r", enabled=True, url=f"sqlite:///{file}")
    await manager.save_checkpoint(GRAPH, {"a"})
    for path in tmp_path.iterdir():
        path.unlink()
    again = manager.save_checkpoint(GRAPH, {"b"})
    for work in (manager.restore_checkpoint(GRAPH), manager.can_resume(), manager.clear_checkpoint(), again):
        with pytest.raises(StoreMissing):
            await work
    assert not file.exists()
    file.write_bytes(b"not a database at all, but long enough to be seen as one" * 100)
    with pytest.raises(StoreUnreadable):
        await CheckpointManager("r", enabled=True, url=f"sqlite:///{file}").restore_checkpoint(GRAPH)


async def test_a_run_that_is_gone_is_not_begun_anew(manager: CheckpointManager, store: Store) -> None:
    await manager.save_checkpoint(GRAPH, {"a"})
    await JobRepository(store=store).change("r", lambda job: job.mark_completed())
    await prune_runs(store, Retention(drop_finished=0.0))
    for _ in range(2):
        with pytest.raises(StoreError, match="is gone from"):
            await manager.save_checkpoint(GRAPH, {"b"})
    assert await CheckpointManager("r", enabled=True, store=store).save_checkpoint(GRAPH, {"b"})


async def test_a_database_that_cannot_be_reached_is_an_error() -> None:
    manager = CheckpointManager("r", enabled=True, url="postgresql://nobody@127.0.0.1:1/none")
    for work in (manager.restore_checkpoint(GRAPH), manager.can_resume(), manager.save_checkpoint(GRAPH, {"a"})):
        with pytest.raises(StoreUnreadable):
            await work


async def test_the_history_of_a_run_that_is_executed_is_not_cleared(store: Store, store_url: str) -> None:
    """The next save of its worker was refused, and a resume began from nothing, as if no node had completed."""
    is_saved, may_end = asyncio.Event(), asyncio.Event()

    @node
    async def waits(n: int, context: Context) -> int:
        await context.checkpoint()
        is_saved.set()
        await may_end.wait()
        return n + 1

    graph = Graph(enable={"checkpoint": {"url": store_url}})
    graph.output("out", graph.add(waits, n=graph.add(alone)))
    running = asyncio.ensure_future(WorkflowRunner().run(graph, run_id="r"))
    await is_saved.wait()
    manager = CheckpointManager("r", enabled=True, url=store_url)
    with pytest.raises(RunHeld):
        await manager.clear_checkpoint()
    may_end.set()
    assert (await running).outputs == {"out": [2]}
    assert await newest_number(store) == 2
    assert await manager.clear_checkpoint() is True, "nobody holds it any more"


async def test_who_lost_the_run_writes_nothing(manager: CheckpointManager, store: Store) -> None:
    await manager.save_checkpoint(GRAPH, {"a"})
    await store.begin_attempt("r", 2, Holder("another"))
    with pytest.raises(LeaseLost):
        await manager.save_checkpoint(GRAPH, {"b"})
    assert (await restored(manager)).completed_nodes == {"a"}


@pytest.mark.parametrize("between", ["cancelled", "cleared"])
async def test_who_lost_the_run_is_told_so_whatever_was_between(store_url: str, store: Store, between: str) -> None:
    manager = CheckpointManager("r", enabled=True, store=store)
    await manager.save_checkpoint(GRAPH, {"a"})
    if between == "cleared":
        await manager.clear_checkpoint()
    else:
        save = asyncio.ensure_future(manager.save_checkpoint(GRAPH, {"b"}))
        await asyncio.sleep(0)
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
    await store.begin_attempt("r", 2, Holder("another"))
    owner = CheckpointManager("r", enabled=True, url=store_url)
    await owner.save_checkpoint(GRAPH, {"c"})
    with pytest.raises(LeaseLost):
        await manager.save_checkpoint(GRAPH, {"d"})
    with pytest.raises(LeaseLost):
        await manager.clear_checkpoint()
    assert "c" in (await restored(owner)).completed_nodes
    await owner.clear_checkpoint()
    assert not await owner.can_resume()


async def test_writers_of_one_store_whose_event_loop_ends(store_url: str) -> None:
    """In a process of its own: what hangs here hangs where all tasks are cancelled and waited for."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", MANY_WRITERS, store_url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    saved, stored = map(json.loads, done.stdout.splitlines())
    assert all(stored[run_id] in (number, number + 1) for run_id, number in saved.items())


MANY_WRITERS = """
import asyncio, json, sys
from checkpoint_plugin import CheckpointManager
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import Store

SAVED = {}

async def work(manager):
    while True:
        await manager.save_checkpoint(active_nodes=["a"], context_data={"text": "y" * 20_000, "n": SAVED.get(manager.run_id, 0)})
        SAVED[manager.run_id] = manager.checkpoint_count

async def main():
    store = Store(locate(sys.argv[1]), create=True)
    managers = [CheckpointManager(f"r{n}", enabled=True, store=store) for n in range(6)]
    tasks = [asyncio.create_task(work(manager)) for manager in managers]
    while len(SAVED) < 6 or min(SAVED.values()) < 5:
        await asyncio.sleep(0.01)
    raise RuntimeError("the main task fails")

async def count():
    store = Store(locate(sys.argv[1]), create=False)
    print(json.dumps({run_id: len(await store.checkpoints(run_id)) for run_id in SAVED}))
    await store.close()

try:
    asyncio.run(main())
except RuntimeError:
    print(json.dumps(SAVED))
asyncio.run(count())
"""


async def test_a_run_of_a_runner_is_not_touched(store: Store, store_url: str) -> None:
    await WorkflowRunner(plugins=Host(store_url)).run(pipeline(), enable={"checkpoint": True}, run_id="r")
    manager = CheckpointManager("r", enabled=True, store=store)
    with pytest.raises(StoreError, match="executed by a runner"):
        await manager.save_checkpoint(None, (), {"doubled"})
    found = await manager.restore_checkpoint(None)
    assert found is not None
    assert {state.status for state in found.node_states.values()} == {"completed"}


@pytest.mark.parametrize("enable", [{}, {"checkpoint": True}], ids=["as it is", "enabled"])
@pytest.mark.parametrize("status", ["running", "completed"])
@pytest.mark.parametrize("cleared", [False, True])
async def test_a_runner_does_not_go_on_with_what_a_manager_saved(
    manager: CheckpointManager, store: Store, store_url: str, enable: dict[str, Any], status: str, cleared: bool
) -> None:
    await JobRepository(store=store).add(Job(id="r", status=status))
    await manager.save_checkpoint(GRAPH, {"a"})
    if cleared:
        await manager.clear_checkpoint()
    before = await JobRepository(store=store).get("r")
    with pytest.raises(NotResumable, match="saved by hand, not by a runner"):
        await WorkflowRunner(plugins=Host(store_url)).resume("r", enable=enable)
    assert await JobRepository(store=store).get("r") == before
    await manager.save_checkpoint(GRAPH, {"b"})  # which still owns the run


async def test_a_save_is_written_although_others_write_the_run_after_every_look_of_it(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[str] = []
    look = CheckpointManager._look

    async def look_and_be_overtaken(self: CheckpointManager, store: Store) -> Any:
        found = await look(self, store)
        if self is manager:
            others.append(f"o{len(others)}")
            await other.save_checkpoint(active_nodes=others[-1:])
        return found

    manager = CheckpointManager("r", enabled=True, url=store_url)
    async with CheckpointManager("r", enabled=True, url=store_url) as other:
        await other.save_checkpoint({"nodes": ["z"]}, ["z"], context_data={"page": 1})
        monkeypatch.setattr(CheckpointManager, "_look", look_and_be_overtaken)
        for place, name in enumerate("ab"):
            await manager.save_checkpoint(completed_nodes=[name], outputs={name: {"o": BIG}})
            await other.save_checkpoint(pending_nodes=["z"])  # so that the next one looks, too
            data = await manager.restore_checkpoint()
            assert data is not None
            assert data.completed_nodes == {*"ab"[: place + 1]}
            assert (data.active_nodes, data.pending_nodes, data.context_data) == ({*others}, {"z"}, {"page": 1})
    assert manager.checkpoint_count == 2
    async with StoreAccess(store_url, None).open(create=False) as store:
        assert (await check_store(store)).all_findings == []


async def test_a_run_that_was_taken_after_the_last_look_of_a_save_is_lost(
    manager: CheckpointManager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.save_checkpoint(None, {"a"})
    other = CheckpointManager("r", enabled=True, store=store)
    looks: list[str] = []
    look = CheckpointManager._look

    async def look_and_be_overtaken(self: CheckpointManager, store: Store) -> Any:
        found = await look(self, store)
        if self is manager:
            looks.append(self.run_id)
            if len(looks) < manager_module.TRIES - 1:  # the first try does not look
                await other.save_checkpoint(active_nodes=[f"b{len(looks)}"])
            else:
                await store.begin_attempt("r", 2, Holder("another"))
        return found

    await other.save_checkpoint(active_nodes=["c"])
    monkeypatch.setattr(CheckpointManager, "_look", look_and_be_overtaken)
    with pytest.raises(LeaseLost):
        await manager.save_checkpoint(None, {"d"})
    data = await manager.restore_checkpoint()
    assert data is not None
    assert data.completed_nodes == {"a"}


# One statement on PostgreSQL.


class Overtaker(threading.Thread):
    """As another process: it writes a node of a run, and commits when it is told to."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.wrote, self.may_commit = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._write())

    async def _write(self) -> None:
        async with StoreAccess(self.url, None).open(create=False) as store:
            state = await JobRepository(store=store).node_state("r", "a")
            assert state is not None
            state.status, state.updated_at = "failed", datetime.now(UTC)

            def work(connection: Connection) -> None:
                assert lock_epoch(connection, "r") is not None
                upsert_node_rows(connection, [state.model_dump()])
                self.wrote.set()
                assert self.may_commit.wait(30)

            await store.transact(work)


def asked_alone(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each save that is sent as one statement from now on, whether it was written."""
    outcomes: list[bool] = []
    take = PostgresDatabase.take

    async def note(self: PostgresDatabase, step: Any) -> Any:
        found = await take(self, step)
        outcomes.append(found)
        return found

    monkeypatch.setattr(PostgresDatabase, "take", note)
    return outcomes


async def test_what_another_writes_while_a_save_waits_for_it_is_seen(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement of a server sees what was committed when it began, but for the rows that it waits for."""
    other = Overtaker(postgres_url)
    async with connection_to(postgres_url) as watcher, CheckpointManager("r", enabled=True, url=postgres_url) as manager:
        await manager.save_checkpoint(GRAPH, {"a", "b"})
        outcomes = asked_alone(monkeypatch)
        other.start()
        try:
            assert await asyncio.to_thread(other.wrote.wait, 30)
            saving = asyncio.create_task(manager.save_checkpoint(GRAPH, {"a"}))
            await turns_to(watcher, WAITING, 1)
        finally:
            other.may_commit.set()
            await asyncio.to_thread(other.join, 30)
        assert await saving
        assert outcomes == [False]
        assert (await restored(manager)).completed_nodes == {"a", "b"}
        await manager.save_checkpoint(GRAPH, {"c"})
        assert outcomes == [False, True], "it knows again who wrote last"


@pytest.mark.parametrize("what", ["a node", "the run", "a lease", "nothing"])
async def test_what_another_wrote_since_is_looked_at(postgres_url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = JobRepository(url=postgres_url)
    async with CheckpointManager("r", enabled=True, url=postgres_url) as manager:
        await manager.save_checkpoint(GRAPH, {"b"}, {"a"})
        if what == "a node":
            state = await jobs.node_state("r", "a")
            assert state is not None
            state.mark_suspended("waits", 1)
            await jobs.save_node_state(state)
        elif what == "the run":
            await jobs.change("r", lambda job: job.mark_cancelled())
        elif what == "a lease":
            await execute(postgres_url, update(LEASE).values(expires_at=None))
        outcomes = asked_alone(monkeypatch)
        await manager.save_checkpoint(GRAPH, pending_nodes={"a"})
        assert outcomes == [what == "nothing"]
        assert (await restored(manager)).node_states["a"].status == ("suspended" if what == "a node" else "scheduled")
    job = await jobs.get("r")
    assert job is not None
    assert job.status == ("cancelled" if what == "the run" else "running")


async def test_a_save_whose_answer_is_lost_is_done_once_more(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take = PostgresDatabase.take

    async def lose(self: PostgresDatabase, step: Any) -> Any:
        assert await take(self, step)
        raise self._told(ConnectionResetError("lost"), undone=False)

    async with CheckpointManager("r", enabled=True, url=postgres_url) as manager:
        await manager.save_checkpoint(GRAPH, {"a"})
        with monkeypatch.context() as lost:
            lost.setattr(PostgresDatabase, "take", lose)
            assert await manager.save_checkpoint(GRAPH, {"b"}, outputs={"b": {"out": BIG}})
        data = await restored(manager)
        assert (data.completed_nodes, data.node_states["b"].outputs) == ({"a", "b"}, {"out": BIG})
    assert await newest_number(postgres_url) == 3, "nobody knew of the second"
    async with StoreAccess(postgres_url, None).open(create=False) as store:
        assert (await check_store(store)).all_findings == []


# What it costs.


async def written_transactions(url: str) -> int:
    """Transactions that wrote anything, counted by the database itself."""
    async with connection_to(url) as connection:
        return int(await connection.fetchval("SELECT pg_current_xact_id()::text"))


@pytest.mark.parametrize("first", [True, False])
async def test_a_save_of_200_nodes_is_one_commit(postgres_url: str, first: bool) -> None:
    names = [f"n{place}" for place in range(200)]
    graph = {"nodes": [{"id": name} for name in names], "edges": []}
    await CheckpointManager("other", enabled=True, url=postgres_url).save_checkpoint(graph, ())
    manager = CheckpointManager("r", enabled=True, url=postgres_url)
    if not first:
        await manager.save_checkpoint(graph, (), names)
    before = await written_transactions(postgres_url)
    await manager.save_checkpoint(graph, names, outputs={name: {"out": BIG + name} for name in names})
    assert await written_transactions(postgres_url) - before == 2, "the save, and this count"


async def test_a_save_of_nothing_new_needs_no_sqlalchemy_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin it over the connection of the driver takes longer than all else of such a save."""
    begun: list[Engine] = []
    begin = sqlite_engine.make_sqlite_engine

    def count(*of: Any) -> Engine:
        begun.append(begin(*of))
        return begun[-1]

    monkeypatch.setattr(sqlite_engine, "make_sqlite_engine", count)
    async with CheckpointManager("r", enabled=True, url=f"sqlite:///{tmp_path}/c.db") as manager:
        await manager.save_checkpoint(completed_nodes=["a"], outputs={"a": {"output": 1}})
        before = len(begun)
        await manager.save_checkpoint()
        await manager.save_checkpoint(completed_nodes=["b"])
        assert len(begun) == before
        found = await manager.restore_checkpoint()
        assert len(begun) == 1, "a restore needs it"
    assert found is not None
    assert sorted(found.completed_nodes) == ["a", "b"]


@pytest.mark.parametrize("changed", [0, 1, 200, 1000])
async def test_a_save_is_one_commit_and_few_statements_however_many_nodes(
    store_url: str, changed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"n{place}" for place in range(1000)]
    graph = {"nodes": [{"id": name} for name in names], "edges": []}
    statements: list[str] = []
    steps = asked_alone(monkeypatch)

    async with CheckpointManager("r", enabled=True, url=store_url) as manager:
        for round_ in range(2):
            await manager.save_checkpoint(graph, names, outputs={name: {"o": round_} for name in names})
        is_sqlite = store_url.startswith("sqlite")
        if is_sqlite:  # most statements go to its driver directly
            store: Any = manager._access.hold(create=False)
            await store.compute(lambda: store._database._opened(write=True).set_trace_callback(statements.append))
        else:
            event.listen(Engine, "before_cursor_execute", note := lambda *call: statements.append(call[2]))
        steps.clear()
        try:
            await manager.save_checkpoint(graph, names, outputs={name: {"o": -1} for name in names[:changed]})
        finally:
            if not is_sqlite:
                event.remove(Engine, "before_cursor_execute", note)
    kinds = [statement.split()[0] for statement in statements]
    if is_sqlite:  # which takes at most 128 rows of a table at once, and what is left by powers of two
        assert kinds.count("BEGIN") == kinds.count("COMMIT") == 1
        assert len(kinds) <= 10 + 2 * (changed // 128 + (changed % 128).bit_count()), statements
    else:
        assert (statements, steps) == ([], [True]), "one statement, which commits itself"


async def test_what_is_made_once_is_made_when_a_manager_is_opened(store_url: str) -> None:
    """Counted in a fresh process: the first saves load no module of ours and compile no statement."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FIRST_SAVES, store_url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], 0]


async def test_a_manager_that_cannot_be_opened_leaves_no_thread(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kind: str) -> None:
        raise MemoryError(kind)

    monkeypatch.setattr(manager_module, "_load", fail)
    with pytest.raises(MemoryError):
        async with CheckpointManager("r", enabled=True, url=store_url):
            raise AssertionError("it is open")
    assert not [thread for thread in threading.enumerate() if thread.name == "workflow-checkpoint"]


FIRST_SAVES = """
import asyncio, json, sys
from checkpoint_plugin import CheckpointManager

async def main():
    async with CheckpointManager("r", enabled=True, url=sys.argv[1]) as manager:
        await manager.can_resume()
        from checkpoint_plugin.database.compiled import Compiled
        made, loaded = [], set(sys.modules)
        original = Compiled.__init__
        Compiled.__init__ = lambda self, *given, **more: (made.append(given[2]), original(self, *given, **more))[0]
        await manager.save_checkpoint(completed_nodes=["a"], outputs={"a": {"o": 1}})
        await manager.save_checkpoint()
        await manager.save_checkpoint(active_nodes=["b"])
        late = sorted(name for name in set(sys.modules) - loaded if name.startswith("checkpoint_plugin"))
        print(json.dumps([late, len(made)]))

asyncio.run(main())
"""
