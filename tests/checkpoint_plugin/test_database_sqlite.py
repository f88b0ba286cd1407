"""One file of SQLite under what its disk, its rights and other processes do to it."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, delete, event, func, select

from checkpoint_plugin import CheckpointManager, EventLogger, JobRepository
from checkpoint_plugin.bounds import LARGEST
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.database.sqlite import create_file
from checkpoint_plugin.errors import StoreBusy, StoreDamaged, StoreFull, StoreReadOnly, StoreUnreadable
from checkpoint_plugin.models import LEASE
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.saving.writing import CutWriter
from checkpoint_plugin.space.pruning import prune_runs
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.lease import LOCK_LEASE
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.test_store import cut, definition
from workflow_runner import Context, Graph, WorkflowRunner, node

WRITER = (sys.executable, "-m", "tests.checkpoint_plugin.run_writer")
PROCESSES = 4
SAVES = 20
AS_OTHER = """
import asyncio, os, pwd, sys
from tests.checkpoint_plugin.run_writer import write
asyncio.run(write(sys.argv[1], "r", 1, kill=False))  # what is imported late may be out of reach of the other user
if os.geteuid() == 0:
    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
asyncio.run(write(sys.argv[2], "another", 1, kill=False))
"""
ROOM = 8
"""Pages."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def pragma(connection: Connection, what: str) -> Any:
    return connection.core.exec_driver_sql(f"PRAGMA {what}").scalar_one()


async def restored(url: str, run_id: str = "r") -> Any:
    store = Store(locate(url), create=False)
    try:
        found = await store.restore(RunHistory(run_id, 1, 1), None)
        assert found is not None
        return found.nodes[0].state
    finally:
        await store.close()


@pytest.mark.parametrize(("may", "temp_store"), [(True, 0), (False, 2)])
async def test_without_a_place_for_temporary_files_they_are_kept_in_memory(
    may: bool, temp_store: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose root may only be read: large saves failed there with "disk I/O error"."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: may and access(path, mode))
    store = Store(locate(url), create=True)
    assert await store.transact(partial(pragma, what="temp_store")) == temp_store
    await store.close()


# Readers.


def kill_writer(url: str) -> None:
    """Leave a store with a log as a killed process does."""
    assert subprocess.run([*WRITER, url, "r", "3", "kill"], capture_output=True, timeout=60).returncode == -9


async def test_who_only_reads_moves_no_log_not_even_as_the_last(url: str, path: Path) -> None:
    kill_writer(url)
    log = path.with_name("c.db-wal")
    before = path.read_bytes(), log.read_bytes()
    assert len(before[1]) > 0
    assert await restored(url) == "r 3 " * 50
    assert (path.read_bytes(), log.read_bytes()) == before


async def test_who_writes_moves_it(url: str, path: Path) -> None:
    kill_writer(url)
    store = Store(locate(url), create=True)
    await store.insert_job("another", definition())
    await store.close()
    assert not path.with_name("c.db-wal").exists()
    assert await restored(url) == "r 3 " * 50


@pytest.mark.parametrize("turns", range(8))
async def test_who_uses_a_store_while_it_is_closed_leaves_nothing_open(turns: int, url: str, path: Path) -> None:
    """Each such use kept a thread for ever, and the file open."""
    store = Store(locate(url), create=True)
    using = asyncio.create_task(store.insert_job("r", definition()))  # one transaction after the other: there are no tables yet
    for _ in range(turns):
        await asyncio.sleep(0)
    await store.close()
    await using
    assert "workflow-checkpoint" not in {thread.name for thread in threading.enumerate()}
    assert not path.with_name("c.db-wal").exists()  # as a close leaves it


async def test_one_connection_of_a_process_moves_it(url: str) -> None:
    store = Store(locate(url), create=True)
    assert await store._database.transact(partial(pragma, what="wal_autocheckpoint"), write=False) == 0
    await store.jobs()
    assert await store.transact(partial(pragma, what="wal_autocheckpoint")) > 0
    beside = store._database.beside()
    assert await beside.transact(partial(pragma, what="wal_autocheckpoint")) == 0
    await beside.close()
    await store.close()


async def test_the_log_is_cut_when_the_reader_that_kept_it_has_gone(url: str, path: Path) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)

    async def save(times: int) -> int:
        """Save large values; the bytes of the log after it."""
        for _ in range(times):
            await store.save(
                history, cut(NodeSnapshot("n", "running", commits=history.number, state=os.urandom(1 << 20))), "step"
            )
        return path.with_name("c.db-wal").stat().st_size

    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM job").fetchall()
        assert await save(24) > 24 << 20
    assert await save(3) < 17 << 20
    await store.close()


async def test_who_only_reads_cannot_write(url: str) -> None:
    store = Store(locate(url), create=True)
    await store.jobs()
    await store.close()
    reader = Store(locate(url), create=False)
    with pytest.raises(StoreReadOnly):
        await reader.transact(lambda connection: connection.core.exec_driver_sql("DELETE FROM job"), write=False)
    await reader.close()


async def test_what_a_program_does_to_all_connections_of_sqlalchemy_is_not_done_to_a_store(url: str) -> None:
    """As its documentation shows it for foreign keys: a mode that is changed commits what has been written so far."""
    seen: list[Any] = []

    def prepare(connection: Any, record: Any) -> None:
        seen.append(connection)
        connection.isolation_level = None  # commits, as `autocommit = True` does since Python 3.12
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")  # raises in a transaction

    def half(connection: Connection) -> None:
        connection.driver.execute("DELETE FROM run_definition")
        connection.execute(delete(LEASE))
        raise LookupError("the rest is not written")

    event.listen(Engine, "connect", prepare)
    try:
        store = Store(locate(url), create=True)
        await store.insert_job("r", definition())
        with pytest.raises(LookupError):
            await store.transact(half)
        assert seen, "of other connections"
        assert await store.transact(lambda c: c.execute(select(func.count()).select_from(LEASE)).scalar_one()) == 1
        assert (await store.load_job("r")).status == "running"
        assert await store.transact(lambda c: pragma(c, "synchronous")) == 2
        await store.close()
    finally:
        event.remove(Engine, "connect", prepare)


# Several processes.


async def test_four_processes_save_in_one_file(url: str, path: Path) -> None:
    writers = [await asyncio.create_subprocess_exec(*WRITER, url, f"r{number}", str(SAVES)) for number in range(PROCESSES)]
    assert [await writer.wait() for writer in writers] == [0] * PROCESSES
    store = Store(locate(url), create=False)
    for number in range(PROCESSES):
        assert [row.number for row in await store.checkpoints(f"r{number}")] == list(range(1, SAVES + 1))
        assert await restored(url, f"r{number}") == f"r{number} {SAVES} " * 50
    await store.close()
    assert [stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()] == [0o600] * len(list(path.parent.iterdir()))


async def test_a_file_that_another_program_holds_is_told(url: str, path: Path) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    beside = store._database.beside()  # waits for a second only
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match=r"c\.db is held by another program .*Let that finish"):
        await beside.transact(lambda connection: None)
    other.close()
    await beside.transact(lambda connection: None)
    await beside.close()
    await store.close()


# The disk.


async def test_a_full_disk_is_told_and_with_room_it_goes_on(url: str) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running", state="small")), "1")
    pages = await store.transact(partial(pragma, what="page_count"))
    await store.transact(partial(pragma, what=f"max_page_count={pages + ROOM}"))
    large = cut(NodeSnapshot("a", "running", state=os.urandom(100_000)))
    for _ in range(2):
        with pytest.raises(StoreFull, match=r"c\.db cannot be written: .*full; nothing was\. Make room"):
            await store.save(history, large, "2")
        assert [row.number for row in await store.checkpoints("r")] == [1]
    await store.transact(partial(pragma, what="max_page_count=1000000"))
    await store.save(history, large, "2")
    await store.close()
    assert await restored(url) == large.nodes[0].state


async def test_a_save_into_a_file_that_was_moved_is_recognised_when_it_is_put_back(url: str) -> None:
    """It was refused, for nobody would have found it; and it was written."""
    location = locate(url)
    assert location.path is not None
    store, history, away = Store(location, create=True), RunHistory("r", 1, 1), location.path.with_name("away.db")
    await store.insert_job("r", definition())
    await store.save(history, cut(NodeSnapshot("a", "running", state="x")), "1")
    location.path.rename(away)
    moved = cut(NodeSnapshot("a", "running", state="y"))
    with pytest.raises(StoreUnreadable, match="moved or deleted"):
        await store.save(history, moved, "2")
    away.rename(location.path)
    assert (await store.save(history, moved, "3")).number == 3
    await store.close()
    assert await restored(url) == "y"


async def test_no_room_for_the_file_beside_the_log_is_a_full_disk(url: str) -> None:
    """It was told as a fault of the disk, for which somebody was to look into the system's log."""
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    await store.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
    try:
        with pytest.raises(StoreFull, match=r"c\.db cannot be used: there is no room for its -shm file .*; nothing was written"):
            await restored(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row.id for row in await store.jobs()] == ["r"]
    await store.close()


async def test_a_commit_that_fails_ends_its_transaction(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(sqlite3.Connection):
        """Fails the commit that writes a checkpoint as a disk without room for the log does."""

        fails = False

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and Failing.fails:
                Failing.fails = False
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return super().execute(sql, *arguments)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **more, factory=Failing))
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    Failing.fails = True
    with pytest.raises(StoreFull):
        await store.save(history, cut(NodeSnapshot("a", "running", state="x")), "1")
    assert await store.checkpoints("r") == []
    await store.save(history, cut(NodeSnapshot("a", "running", state="y")), "1")
    await store.close()
    assert await restored(url) == "y"


@pytest.mark.parametrize("instead", [False, True])
async def test_a_file_that_is_moved_while_it_is_written_is_told(url: str, path: Path, instead: bool) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running", state="x")), "1")
    names = [path.name, f"{path.name}-wal", f"{path.name}-shm"]
    away = path.parent / "away"
    away.mkdir()
    for name in names:
        (path.parent / name).rename(away / name)
    if instead:
        path.touch()
    with pytest.raises(StoreUnreadable, match=r"c\.db was moved or deleted while it was written"):
        await store.save(history, cut(NodeSnapshot("a", "running", state="y")), "2")
    with pytest.raises(StoreUnreadable, match="was moved or deleted"):
        await store.insert_job("another", definition())
    for name in names:
        (away / name).rename(path.parent / name)
    await store.insert_job("third", definition())
    await store.close()
    assert await restored(url) == "y"


async def test_a_disk_that_keeps_no_log_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect: Any = sqlite3.connect

    def without_memory(name: str, **more: Any) -> Any:
        return connect(f"{name}&vfs=unix-dotfile", **more)  # shares no memory, as file systems of a network

    monkeypatch.setattr(sqlite3, "connect", without_memory)
    store = Store(locate(url), create=True)
    with pytest.raises(StoreUnreadable, match=r"does not keep journal_mode=wal \(it is delete\).*local disk"):
        await store.jobs()
    await store.close()


# Rights.


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may enter, for what root may do anyway is tried as nobody."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def write_as_other(url: str) -> str:
    """The error of a process of this user, or of nobody for root, that begins a run."""
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, "-c", AS_OTHER, f"sqlite:///{folder}/c.db", url], capture_output=True, text=True, timeout=60
        )
    assert found.returncode == 1
    return found.stderr.strip().splitlines()[-1]


def hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        os.chown(path, entry.pw_uid, entry.pw_gid)


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_a_file_or_folder_that_may_not_be_written_is_named(reachable: Path, what: str) -> None:
    path = reachable / "c.db"
    store = Store(locate(f"sqlite:///{path}"), create=True)
    await store.insert_job("r", definition())
    await store.close()
    for owned in (path, reachable):
        hand_over(owned)
    path.chmod(0o444 if what == "file" else 0o600)
    reachable.chmod(0o555 if what == "folder" else 0o755)
    last = write_as_other(f"sqlite:///{path}")
    assert last.startswith("checkpoint_plugin.errors.StoreReadOnly: the store")
    assert f"no right to write {path if what == 'file' else reachable}" in last


async def test_a_folder_that_takes_no_file_is_named(reachable: Path) -> None:
    hand_over(reachable)
    reachable.chmod(0o555)
    last = write_as_other(f"sqlite:///{reachable / 'c.db'}")
    assert last.startswith("checkpoint_plugin.errors.StoreReadOnly: the store")
    assert "c.db cannot be created: Permission denied. Give this user the right" in last


async def test_a_folder_that_may_not_be_entered_is_named(reachable: Path) -> None:
    reachable.chmod(0)
    last = write_as_other(f"sqlite:///{reachable / 'c.db'}")
    assert last.startswith("checkpoint_plugin.errors.StoreReadOnly: the store")
    assert "c.db cannot be created: Permission denied. Give this user the right" in last


@pytest.mark.parametrize("create", [False, True])
def test_a_place_that_cannot_be_looked_at_is_told(tmp_path: Path, create: bool) -> None:
    with pytest.raises(StoreUnreadable, match=r"cannot be (read|created): File name too long\. Choose another place"):
        Store(locate(f"sqlite:///{tmp_path / ('n' * 300)}"), create=create)


def test_who_makes_a_file_that_a_thread_has_just_made_leaves_its_locks_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = iter([False])
    monkeypatch.setattr(Path, "is_file", lambda self: next(looked, True))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        create_file(path)
        other = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"
        told = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, timeout=20, check=False)
    assert "database is locked" in told.stderr


@node
async def large(n: int) -> str:
    return f"{n:>5}" * 600


@node
async def waits(texts: list[str], context: Context) -> int:
    await context.suspend("wait")
    return len(texts)


async def test_a_library_that_takes_999_values_a_statement(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite before 3.32 does."""
    connect = sqlite3.connect

    def limited(*arguments: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **more)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    graph = Graph(enable={"checkpoint": {"url": url, "every_firing": True}})
    texts = [graph.add(large, node_id=f"n{number}", n=number) for number in range(1_200)]
    graph.output("count", graph.add(waits, node_id="w", texts=texts))
    assert (await WorkflowRunner().run(graph, run_id="r")).status == "suspended"
    assert (await WorkflowRunner().resume("r", graph=graph, url=url, updates={"w": None})).outputs == {"count": [1_200]}
    names = [f"n{number}" for number in range(1_200)]
    async with CheckpointManager("by hand", enabled=True, url=url) as manager:
        for round_ in range(2):
            await manager.save_checkpoint(None, names, outputs={name: {"o": f"{name} {round_} " * 200} for name in names})
        data = await CheckpointManager("by hand", enabled=True, url=url).restore_checkpoint()
    assert data is not None
    assert data.completed_nodes == set(names)
    assert len(await JobRepository(url).get_many(["r", *names])) == 1
    store = Store(locate(url), create=False)
    assert {len(pruned.checkpoints) > 0 for pruned in await prune_runs(store, Retention(keep_last=1))} == {True}
    assert not (await check_store(store)).all_findings
    await store.close()


async def test_a_view_in_the_place_of_a_table_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    """What a view gives may have no end, and nothing ends a statement of SQLite."""
    path = tmp_path / "c.db"
    for table in ("job", "checkpoint_schema"):
        path.unlink(missing_ok=True)
        store = Store(locate(f"sqlite:///{path}"), create=True)
        await store.insert_job("r", definition())
        await store.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO real")
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM real")
        for create in (False, True):
            store = Store(locate(f"sqlite:///{path}"), create=create)
            with pytest.raises(StoreUnreadable, match=f"has a view '{table}' in the place of a table"):
                await store.jobs()
            await store.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are files elsewhere")
async def test_a_store_is_not_made_where_something_else_than_a_file_is(tmp_path: Path) -> None:
    """SQLite waits without end for somebody to write to a pipe, and no signal ends that."""
    path = tmp_path / "c.db"
    os.mkfifo(path)
    with pytest.raises(StoreUnreadable, match=r"c\.db cannot be created: it is no file\. .* url"):
        create_file(path)
    assert not path.is_file()


async def test_a_virtual_table_in_the_place_of_a_table_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    """It may read a view, which has no end."""
    path = tmp_path / "c.db"
    store = Store(locate(f"sqlite:///{path}"), create=True)
    await store.insert_job("r", definition())
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        # Tables and views that are not ours are nobody's matter, nor are triggers: who keeps an index of words has some.
        connection.executescript(
            "CREATE TABLE other (x); CREATE VIEW seen AS SELECT * FROM other; CREATE VIRTUAL TABLE found USING fts3(x); "
            "CREATE TRIGGER own AFTER INSERT ON job BEGIN INSERT INTO other VALUES (new.id); END"
        )
    store = Store(locate(f"sqlite:///{path}"), create=False)
    assert [job.id for job in await store.jobs()] == ["r"]
    await store.insert_job("s", definition("s"))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM other").fetchall() == [("s",)]
        connection.executescript("ALTER TABLE job RENAME TO real; CREATE VIRTUAL TABLE job USING fts3(id)")
    for create in (False, True):
        store = Store(locate(f"sqlite:///{path}"), create=create)
        with pytest.raises(StoreUnreadable, match="has a virtual table 'job' in the place of"):
            await store.jobs()
        await store.close()


@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "in the language of SQLAlchemy"])
async def test_a_time_that_is_out_of_range_is_damage_of_its_row(url: str, by_name: bool) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition(), Holder.here())
    change = "UPDATE lease SET expires_at = '0001-01-01 00:00:00+14:00'"
    await store.transact(lambda connection: connection.driver.execute(change))
    statement: Any = LOCK_LEASE if by_name else select(LEASE).where(LEASE.c.run_id == bindparam("of_run"))
    with pytest.raises(StoreUnreadable, match=r"a row of the store at .* is damaged \(OverflowError"):
        await store.transact(lambda connection: connection.execute(statement, {"of_run": "r"}).first(), write=False)
    await store.close()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("lease SET epoch = 'x'", "the epoch of its lease is 'x'"),
        (f"lease SET epoch = {LARGEST}", f"the epoch of its lease is {LARGEST}"),
        ("lease SET generation = CAST(x'ff' AS TEXT)", "the generation of its lease is "),
        (f"job SET attempt = {LARGEST}", "its row is not one that was written"),
    ],
    ids=["text", "epoch", "generation", "attempt"],
)
async def test_a_number_that_has_no_next_is_damage_of_the_run(url: str, change: str, what: str) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    await store.transact(lambda connection: connection.driver.execute(f"UPDATE {change}"))

    async def begin() -> None:
        job = await store.load_job("r")
        await store.begin_attempt("r", job.attempt + 1, Holder.here())

    async def take() -> None:
        await store.load_job("r")
        await store.take("r", Holder.here())

    for step in (begin, take):
        with pytest.raises(StoreDamaged, match=f"run 'r' is damaged: {what}"):
            await step()
    await store.close()


async def test_a_generation_that_becomes_none_while_a_run_is_saved_is_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that finds another generation is encoded again, for that; one that no save could name would come again for ever."""
    encode, encoded = CutWriter.encode, list[CutWriter]()

    def count(self: CutWriter) -> None:
        encoded.append(self)
        assert len(encoded) < 5
        encode(self)

    monkeypatch.setattr(CutWriter, "encode", count)
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    await store.save(history, cut(NodeSnapshot("a", "running", state=1)), "t")
    await store.transact(lambda connection: connection.driver.execute("UPDATE lease SET generation = CAST(x'ff' AS TEXT)"))
    with pytest.raises(StoreDamaged, match="the generation of its lease is "):
        await store.save(history, cut(NodeSnapshot("a", "running", state=2)), "t")
    await store.close()


@pytest.mark.parametrize(
    ("change", "intact", "next_number"),
    [(f"lease SET newest_number = {LARGEST}", 3, None), (f"checkpoint SET number = {LARGEST} WHERE number = 3", 2, 4)],
    ids=["lease", "checkpoint"],
)
async def test_a_number_of_a_checkpoint_that_no_run_can_have_is_passed_over(
    url: str, change: str, intact: int, next_number: int | None
) -> None:
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    history = RunHistory("r", 1, 1)
    for number in (1, 2, 3):
        await store.save(history, cut(NodeSnapshot("a", "running", firing=1, state=number)), "x")
    await store.transact(lambda connection: connection.driver.execute(f"UPDATE {change}"))
    again = RunHistory("r", 1, 1)
    found = await store.restore_latest_intact(again)
    assert found is not None
    assert (again.number, found.nodes[0].state) == (intact, intact)
    ref = await store.rewind(again, found)
    assert (None if ref is None else ref.number) == next_number
    await store.close()


@pytest.mark.parametrize("column", ["job.heartbeat_at", "lease.expires_at", "lease.acquired_at", "event.time"])
async def test_a_check_of_the_store_finds_the_row_whose_time_is_none(url: str, column: str) -> None:
    table, name = column.split(".")
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    async with EventLogger("r", store=store) as log:
        await log.log("created")
    await store.transact(lambda connection: connection.driver.execute(f"UPDATE {table} SET {name} = 'noon'"))
    (finding,) = (await check_store(store)).all_findings
    assert finding.run_id == "r"
    assert "cannot be read (ValueError: Invalid isoformat string: 'noon')" in finding.what
    await store.close()
