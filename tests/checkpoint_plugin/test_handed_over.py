"""A store is opened once: what read a run hands its connections to who goes on with it, and an open runner to its next run."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import Executable, update
from sqlalchemy.schema import DropTable

from checkpoint_plugin import CheckpointManager
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import Location, locate
from checkpoint_plugin.database.opening import open_database
from checkpoint_plugin.database.transaction import Database, Step
from checkpoint_plugin.loader import CheckpointLoader
from checkpoint_plugin.models import SCHEMA, Base
from checkpoint_plugin.opening.connections import Connections
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.schema import SCHEMA_VERSION
from hookspecs import ResourcePool, RunExists, RunHeld, RunNotFound, StoreError
from hookspecs.pool import MOST_KEPT
from tests.checkpoint_plugin.test_database_postgresql import THROW_OUT
from tests.postgres import execute
from workflow_runner import Graph, NodeFailed, WorkflowRunner, node

FAILS = "HANDED_OVER_FAILS"


@node
def fail_at_first() -> int:
    """Fails while the environment says so."""
    if FAILS in os.environ:
        raise ValueError("not yet")
    return 7


class Counted:
    """The databases that were opened, and those that were closed."""

    def __init__(self) -> None:
        self.opened: list[Database] = []
        self.closed: list[Database] = []

    def open(self, location: Location, *, create: bool) -> Database:
        """As `open_database`."""
        database = open_database(location, create=create)
        close = database.close

        async def closed() -> None:
            self.closed.append(database)
            await close()

        database.close = closed  # type: ignore[method-assign]
        self.opened.append(database)
        return database


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    monkeypatch.setattr("checkpoint_plugin.opening.connections.open_database", found.open)
    yield found
    assert len(found.closed) == len(set(found.closed)) == len(found.opened), "each is closed, and by one owner"


async def begin(url: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> WorkflowRunner:
    """A run that has failed, and a runner that may go on with it."""
    graph = Graph()
    graph.output("end", graph.add(fail_at_first))
    runner = WorkflowRunner(nodes=["tests.checkpoint_plugin.test_handed_over"])
    monkeypatch.setenv(FAILS, "1")
    with pytest.raises(NodeFailed):
        await runner.run(graph, enable={"checkpoint": {"url": url}}, run_id=run_id)
    monkeypatch.delenv(FAILS)
    return runner


async def test_a_resume_opens_the_store_once(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)
    counted.opened.clear()
    counted.closed.clear()
    assert (await runner.resume("r", url=store_url)).outputs == {"end": [7]}
    assert len(counted.opened) == 1


async def test_what_is_read_alone_is_closed(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)
    await runner.resume("r", url=store_url)
    assert (await runner.resume("r", url=store_url)).outputs == {"end": [7]}  # it has completed: no plugin is asked
    with pytest.raises(RunNotFound):
        await runner.resume("other", url=store_url)


async def test_a_refused_resume_closes_what_it_took(store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = await begin(store_url, "r", monkeypatch)

    async def refuse(*arguments: object, **more: object) -> None:
        raise RunHeld("r", "somebody", None)

    monkeypatch.setattr("checkpoint_plugin.store.Store.begin_attempt", refuse)
    with pytest.raises(RunHeld):
        await runner.resume("r", url=store_url)


async def test_only_the_same_store_is_handed_over(tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    url, other = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await begin(url, "r", monkeypatch)
    loader = CheckpointLoader(url)
    assert await loader.take(locate(url), "r") is None  # nothing is open yet
    await loader.load("r")
    assert await loader.take(locate(other), "r") is None
    taken = await loader.take(locate(url), "r")
    assert taken is not None and taken.connections.database is counted.opened[-1]
    assert taken.seen is not None and taken.seen.number == 1
    assert await loader.take(locate(url), "r") is None
    await loader.close()
    assert taken.connections.database not in counted.closed
    await taken.connections.close()


# Runs of an open runner.


@node
async def add(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


def adding() -> Graph:
    graph = Graph()
    graph.output("sum", graph.add(add, x=graph.input("x")))
    return graph


async def run_one(runner: WorkflowRunner, url: str, run_id: str, x: int = 1) -> None:
    result = await runner.run(adding(), {"x": x}, {"checkpoint": {"url": url, "every_firing": True}}, run_id)
    assert result.outputs == {"sum": [x + 1]}


async def execute_on(url: str, *statements: Executable) -> None:
    """As another program, whatever the layout."""
    database = open_database(locate(url), create=False)
    await database.transact(lambda connection: [connection.execute(statement) for statement in statements])
    await database.close()


async def stored(url: str) -> set[str]:
    return {run.id for run in (await JobRepository(url).find()).items}


async def test_runs_of_an_open_runner_open_the_store_once(store_url: str, counted: Counted) -> None:
    async with WorkflowRunner() as runner:
        for number in range(3):
            await run_one(runner, store_url, f"r{number}", number)
        assert (await runner.resume("r1", url=store_url)).outputs == {"sum": [2]}  # it has completed: read alone
        assert len(counted.opened) == 1
        assert not counted.closed
    assert len(counted.closed) == 1
    assert "workflow-checkpoint" not in {thread.name for thread in threading.enumerate()}
    assert await stored(store_url) == {"r0", "r1", "r2"}


async def test_a_resume_in_an_open_runner_goes_on_with_what_is_open(
    store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await begin(store_url, "r", monkeypatch) as runner:
        counted.opened.clear()
        counted.closed.clear()
        await run_one(runner, store_url, "first")
        assert (await runner.resume("r", url=store_url)).outputs == {"end": [7]}
        assert len(counted.opened) == 1


async def test_a_compiled_graph_brings_its_types_to_a_resume(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {
        "nodes": [
            {"id": "work", "type": "tests.checkpoint_plugin.test_handed_over.fail_at_first"},
            {"id": "end", "type": "workflow.Output"},
        ],
        "edges": [{"source": "work", "target": "end", "targetHandle": "value"}],
    }
    compiled = WorkflowRunner(nodes=["tests.checkpoint_plugin.test_handed_over"]).compile(document)
    stranger = WorkflowRunner()  # which knows no modules of nodes
    monkeypatch.setenv(FAILS, "1")
    with pytest.raises(NodeFailed):
        await stranger.run(compiled, enable={"checkpoint": {"url": store_url}}, run_id="r")
    monkeypatch.delenv(FAILS)
    assert (await stranger.resume("r", url=store_url, graph=compiled)).outputs == {"end": [7]}


async def test_runs_at_once_have_connections_of_their_own(store_url: str, counted: Counted) -> None:
    async with WorkflowRunner() as runner:
        for turn in "ab":
            await asyncio.gather(*(run_one(runner, store_url, f"{turn}{number}", number) for number in range(4)))
            assert len(counted.opened) == 4
    assert await stored(store_url) == {f"{turn}{number}" for turn in "ab" for number in range(4)}


async def test_a_runner_that_is_not_open_keeps_nothing(store_url: str, counted: Counted) -> None:
    runner = WorkflowRunner()
    for number in range(2):
        await run_one(runner, store_url, f"r{number}")
    assert len(counted.opened) == len(counted.closed) == 2


async def test_a_failed_node_does_not_matter_and_a_failed_save_does(
    store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    graph.output("end", graph.add(fail_at_first))
    monkeypatch.setenv(FAILS, "1")
    async with WorkflowRunner() as runner:
        with pytest.raises(NodeFailed):
            await runner.run(graph, enable={"checkpoint": {"url": store_url}})
        await run_one(runner, store_url, "after a failed node")
        assert len(counted.opened) == 1

        async def fail(*given: object) -> None:
            raise StoreError("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr("checkpoint_plugin.store.Store.save", fail)
            with pytest.raises(StoreError, match="the disk is gone"):
                await run_one(runner, store_url, "not saved")
        assert len(counted.closed) == 1
        await run_one(runner, store_url, "after a failed save")
        assert len(counted.opened) == 2


async def test_where_the_file_is_gone_the_next_run_makes_another(tmp_path: Path, counted: Counted) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with WorkflowRunner() as runner:
        await run_one(runner, url, "first")
        (tmp_path / "a.db").rename(tmp_path / "moved.db")
        await run_one(runner, url, "second")
        assert len(counted.opened) == 2
        assert len(counted.closed) == 1
    assert await stored(url) == {"second"}
    assert await stored(f"sqlite:///{tmp_path}/moved.db") == {"first"}


async def test_a_copy_that_is_put_back_between_two_runs_is_what_the_next_goes_on_with(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    await run_one(WorkflowRunner(), url, "before")
    shutil.copy(tmp_path / "a.db", tmp_path / "copy.db")
    async with WorkflowRunner() as runner:
        await asyncio.gather(*(run_one(runner, url, f"lost {number}") for number in range(3)))
        (tmp_path / "copy.db").replace(tmp_path / "a.db")
        await run_one(runner, url, "after")
    assert await stored(url) == {"before", "after"}


async def test_while_somebody_uses_the_file_its_log_is_left_alone(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db-wal"
    pool = ResourcePool()
    first, second = (Connections(locate(url), create=True) for _ in range(2))
    for name, connections in (("a", first), ("b", second)):
        change = update(SCHEMA).values(store_id=name)
        store = Store(connections.location, create=True, connections=connections)
        await store.transact(partial(Connection.execute, statement=change))
    await first.give(pool)
    assert log.stat().st_size > 0
    await second.give(pool)
    assert log.stat().st_size == 0
    await pool.close()


async def test_connections_that_were_dropped_unclosed_use_the_file_no_more(tmp_path: Path) -> None:
    location, log = locate(f"sqlite:///{tmp_path}/a.db"), tmp_path / "a.db-wal"
    pool = ResourcePool()
    kept, dropped = (Connections(location, create=True) for _ in range(2))
    await Store(location, create=True, connections=kept).transact(lambda c: c.execute(update(SCHEMA).values(store_id="a")))
    del dropped
    gc.collect()
    await kept.give(pool)
    assert log.stat().st_size == 0
    await pool.close()


async def test_what_others_wrote_beside_an_open_runner_is_in_a_file_that_is_moved(tmp_path: Path) -> None:
    url, moved = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/moved.db"
    async with WorkflowRunner() as runner:
        await run_one(runner, url, "first")
        await CheckpointManager("by hand", enabled=True, url=url).save_checkpoint(None, {"a"})
        (tmp_path / "a.db").rename(tmp_path / "moved.db")
        await run_one(runner, url, "second")
    assert await stored(moved) == {"first", "by hand"}


async def test_who_is_cancelled_while_connections_are_given_back_leaves_none(
    store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections(locate(store_url), create=True)

    pulse = connections.pulse
    close = pulse.close

    async def cancelled() -> None:
        await close()
        raise asyncio.CancelledError

    monkeypatch.setattr(pulse, "close", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await connections.give(ResourcePool())


async def test_of_many_stores_only_some_are_kept_open(tmp_path: Path, counted: Counted) -> None:
    async with WorkflowRunner() as runner:
        for number in range(MOST_KEPT + 2):
            await run_one(runner, f"sqlite:///{tmp_path}/{number}.db", "r")
        assert counted.closed == counted.opened[:2]


async def test_tables_are_looked_at_for_each_run(store_url: str, counted: Counted) -> None:
    async with WorkflowRunner() as runner:
        await run_one(runner, store_url, "first")
        await execute_on(store_url, update(SCHEMA).values(version=SCHEMA_VERSION + 1))
        with pytest.raises(StoreError, match="newer"):
            await run_one(runner, store_url, "second")
    await execute_on(store_url, update(SCHEMA).values(version=SCHEMA_VERSION))
    assert await stored(store_url) == {"first"}


async def test_tables_that_are_gone_are_made_again(store_url: str) -> None:
    async with WorkflowRunner() as runner:
        await run_one(runner, store_url, "first")
        await execute_on(store_url, *map(DropTable, reversed(Base.metadata.sorted_tables)))
        await run_one(runner, store_url, "second")
    assert await stored(store_url) == {"second"}


async def test_a_run_of_an_open_runner_takes_one_step_to_begin_and_none_to_end(
    store_url: str, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WorkflowRunner() as runner:
        await run_one(runner, store_url, "first")
        (database,) = counted.opened
        steps: list[str] = []

        async def refuse(*given: object, **more: object) -> None:
            raise AssertionError("several messages to a server")

        take = database.take

        async def counting(step: Step[Any]) -> Any:
            steps.append(type(step).__name__)
            return await take(step)

        monkeypatch.setattr(database, "transact", refuse)
        monkeypatch.setattr(database, "take", counting)
        await run_one(runner, store_url, "second")
        assert [name for name in steps if name != "CutWriter"] == ["FirstRows"]
        with pytest.raises(RunExists):
            await run_one(runner, store_url, "second")
        monkeypatch.undo()
    assert await stored(store_url) == {"first", "second"}


async def test_the_connection_for_signs_of_life_is_not_kept(store_url: str) -> None:
    pool, location = ResourcePool(), locate(store_url)
    connections = Connections(location, create=True)
    closed = []
    pulse = connections.pulse
    close = pulse.close

    async def count() -> None:
        closed.append(pulse)
        await close()

    pulse.close = count  # type: ignore[method-assign]
    await connections.give(pool)
    assert closed == [pulse]
    assert await Connections.take(pool, location, create=True) is connections
    assert connections.pulse is not pulse
    await connections.close()


async def test_a_server_that_threw_out_who_waits_is_reached_again(postgres_url: str, counted: Counted) -> None:
    async with WorkflowRunner() as runner:
        await run_one(runner, postgres_url, "first")
        await execute(postgres_url, THROW_OUT)
        await run_one(runner, postgres_url, "second")
    assert await stored(postgres_url) == {"first", "second"}


async def test_a_url_that_leaves_the_server_to_the_environment_is_followed_there(
    postgres_url: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await execute(postgres_server, 'CREATE DATABASE "another one"')
    try:
        parts = urlsplit(postgres_url)
        async with WorkflowRunner() as runner:
            for name in (parts.path[1:], "another one"):
                monkeypatch.setenv("PGDATABASE", name)
                await run_one(runner, urlunsplit(parts._replace(path="")), name)
        assert await stored(postgres_url) == {parts.path[1:]}
    finally:
        await execute(postgres_server, 'DROP DATABASE "another one" WITH (FORCE)')


async def test_a_runner_is_opened_once() -> None:
    async with WorkflowRunner() as runner:
        with pytest.raises(RuntimeError, match="open already"):
            async with runner:
                pass
    async with runner:
        pass


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_a_fork_of_an_open_runner_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    forked = multiprocessing.get_context("fork")
    told = forked.Queue()
    async with WorkflowRunner() as runner:
        await run_one(runner, url, "first")
        process = forked.Process(target=_run_in_fork, args=(url, told))
        process.start()
        try:
            answer = await asyncio.to_thread(told.get, timeout=20)
            await asyncio.to_thread(process.join, 20)
        finally:
            process.kill()
    assert "`spawn`" in answer  # SQLite deletes the log under it when the parent closes the file
    assert await stored(url) == {"first"}


def _run_in_fork(url: str, told: Any) -> None:
    try:
        asyncio.run(run_one(WorkflowRunner(), url, "second"))
        told.put("it ran")
    except StoreError as error:
        told.put(str(error))
