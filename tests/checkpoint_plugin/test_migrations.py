"""From an older layout to the newest, on both databases, by one of many, and by none that was killed in the middle."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect, text, update

from checkpoint_plugin import CheckpointManager
from checkpoint_plugin.checking.store_check import check_store
from checkpoint_plugin.cli.db import db
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import (
    SchemaChanged,
    SchemaInUse,
    SchemaNewer,
    SchemaOutdated,
    StoreMissing,
    StoreReadOnly,
    StoreUnreadable,
)
from checkpoint_plugin.models import SCHEMA, Base, Job
from checkpoint_plugin.runs.jobs import JobRepository
from checkpoint_plugin.store import RunHistory, Store
from checkpoint_plugin.tables.holder import Holder
from checkpoint_plugin.tables.schema import AUTO_MIGRATE, SCHEMA_VERSION
from hookspecs import NodeSnapshot
from tests.checkpoint_plugin.roles import close_with_rights
from tests.checkpoint_plugin.test_store import cut, definition

MANY = 6
BODIES = ("payload", "payload_segment", "node_version", "output_segment")
LATER = ", continues INTEGER"
"""A column that came after the rows had moved, and so stands behind all else."""
UNBOUND = ("node_version", "payload", "run_node_state")
"""Tables that have no foreign key on PostgreSQL."""


def make_older(connection: Connection) -> None:
    """Undo what the steps do, from the last to the first."""
    kind = "BYTEA" if connection.kind == "postgresql" else "BLOB"
    for old, new in (("definition", "body"), ("definition_digest", "digest")):
        connection.execute(text(f"ALTER TABLE job ADD COLUMN {old} {kind}"))
        connection.execute(text(f"UPDATE job SET {old} = (SELECT {new} FROM run_definition WHERE run_id = job.id)"))
    for shown in ("graph", "params"):
        there = f"SELECT {shown} FROM run_definition WHERE run_id = job.id"
        connection.execute(text(f"UPDATE job SET {shown} = COALESCE({shown}, ({there}))"))
    connection.execute(text("DROP TABLE run_definition"))
    connection.execute(text("DROP TABLE completed_nodes"))
    connection.execute(text("DROP TABLE pending_answer"))
    connection.execute(text("CREATE INDEX ix_lease_expires_at ON lease (expires_at)"))
    connection.execute(text("ALTER TABLE job ADD COLUMN newest_number INTEGER NOT NULL DEFAULT 0"))
    numbers = "SELECT newest_number FROM lease WHERE lease.run_id = job.id"
    connection.execute(text(f"UPDATE job SET newest_number = ({numbers})"))
    connection.execute(text("ALTER TABLE lease DROP COLUMN newest_number"))
    connection.execute(text("ALTER TABLE job DROP COLUMN has_checkpoint"))
    connection.execute(text("ALTER TABLE checkpoint_schema DROP COLUMN store_id"))
    connection.execute(text("ALTER TABLE node_version DROP COLUMN continues"))
    connection.execute(text("DROP INDEX ix_run_node_state_wake_at"))
    if connection.kind == "postgresql":
        for table in BODIES:
            connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN body SET STORAGE EXTENDED"))
        for table in UNBOUND:
            key = f"CONSTRAINT fk_{table}_run_id_job FOREIGN KEY (run_id) REFERENCES job (id)"
            connection.execute(text(f"ALTER TABLE {table} ADD {key}"))
    else:
        for table in ("node_version", "run_node_state"):
            made = table_text(connection, table)
            connection.execute(text(f"ALTER TABLE {table} RENAME TO newer"))
            connection.execute(text(f"{made} WITHOUT ROWID"))
            connection.execute(text(f"INSERT INTO {table} SELECT * FROM newer"))
            connection.execute(text("DROP TABLE newer"))
    connection.execute(update(SCHEMA).values(version=2))


async def older_store(url: str) -> None:
    """A store of layout 2 with a run in it."""
    store = Store(locate(url), create=True)
    await store.insert_job("r", definition())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", state="x" * 2000)), "1")
    await store.transact(make_older)
    await store.close()


async def state_of(url: str, **more: Any) -> Any:
    store = Store(locate(url), create=False, **more)
    try:
        found = await store.restore(RunHistory("r", 1, 1), None)
        assert found is not None
        return found.nodes[0].state
    finally:
        await store.close()


async def look(url: str, work: Any) -> Any:
    store = Store(locate(url), create=False)
    try:
        return await store._database.transact(work, write=False)
    finally:
        await store.close()


def version_of(connection: Connection) -> Any:
    return connection.execute(text("SELECT version FROM checkpoint_schema")).scalar_one()


def differences(connection: Connection) -> list[Any]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def is_there(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
        return not (kind == "foreign_key_constraint" and connection.kind == "postgresql" and item.table.name in UNBOUND)

    options = {"include_object": is_there}
    return list(compare_metadata(MigrationContext.configure(connection.core, opts=options), Base.metadata))


async def test_an_older_store_in_which_a_run_is_executed_is_upgraded_only_on_purpose(store_url: str) -> None:
    """The older program would fail on tables that it does not know, because somebody only had a look."""
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition(), Holder.here())
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", state="x")), "1")
    await store.transact(make_older)
    await store.close()
    with pytest.raises(SchemaInUse, match=r"executes run 'r' in it.*not touched.*workflow db upgrade"):
        await state_of(store_url, auto_migrate=True)
    assert await look(store_url, version_of) == 2
    store = Store(locate(store_url), create=False)
    assert await store.upgrade() == (2, SCHEMA_VERSION)
    await store.close()
    assert await state_of(store_url) == "x"


async def test_an_older_store_whose_runs_were_left_behind_is_upgraded(store_url: str) -> None:
    here = Holder.here()
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition(), Holder("gone", here.host, here.pid, 1.0))  # another process had the number then
    await store.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", state="x")), "1")
    await store.transact(make_older)
    await store.close()
    assert await state_of(store_url, auto_migrate=True) == "x"


def bound(connection: Connection) -> set[str]:
    """The tables whose rows belong to a run by a foreign key."""
    found = inspect(connection.core)
    return {table for table in found.get_table_names() if found.get_foreign_keys(table)}


def table_text(connection: Connection, table: str) -> str:
    """The statement that made a table of SQLite."""
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name"
    return str(connection.execute(text(query), {"name": table}).scalar_one())


def rows_of(connection: Connection, table: str) -> list[Any]:
    return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()]


def storage(connection: Connection) -> set[str]:
    query = "SELECT attstorage::text FROM pg_attribute WHERE attname = 'body' AND attrelid = ANY(CAST(:tables AS regclass[]))"
    return set(connection.execute(text(query), {"tables": list(BODIES)}).scalars())


def on_postgres(url: str) -> bool:
    return url.startswith("postgresql")


async def test_a_new_store_is_of_the_newest_layout(store_url: str) -> None:
    store = Store(locate(store_url), create=True)
    await store.insert_job("r", definition())
    await store.close()
    assert await look(store_url, differences) == []
    assert (set(UNBOUND) - await look(store_url, bound)) == (set(UNBOUND) if on_postgres(store_url) else set())
    if on_postgres(store_url):
        assert await look(store_url, storage) == {"e"}


async def test_an_older_store_is_upgraded_or_refused_with_the_command(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await older_store(store_url)
    if on_postgres(store_url):
        with pytest.raises(
            SchemaOutdated, match=rf"layout 2, .* layout {SCHEMA_VERSION}; it was not touched\. .*workflow db upgrade --url post"
        ):
            await state_of(store_url)
        assert await look(store_url, version_of) == 2
        monkeypatch.setenv(AUTO_MIGRATE, "1")
    assert await state_of(store_url) == "x" * 2000
    assert await look(store_url, differences) == []
    assert (set(UNBOUND) - await look(store_url, bound)) == (set(UNBOUND) if on_postgres(store_url) else set())
    if on_postgres(store_url):
        assert await look(store_url, storage) == {"e"}


@pytest.mark.parametrize("name", ["node_version", "run_node_state"])
async def test_on_sqlite_rows_of_nodes_move_to_a_table_beside_their_key(tmp_path: Path, name: str) -> None:
    old, new = f"sqlite:///{tmp_path}/old.db", Store(locate(f"sqlite:///{tmp_path}/new.db"), create=True)
    await older_store(old)

    def table(connection: Connection) -> tuple[list[Any], str]:
        made = " ".join(table_text(connection, name).split())
        return rows_of(connection, name), made.replace(LATER, "")

    before, made = await look(old, table)
    assert len(before) == 1
    assert "WITHOUT ROWID" in made
    assert await upgraded(old) == (2, SCHEMA_VERSION)
    after, made = await look(old, table)
    assert [{key: value for key, value in row.items() if key != "continues"} for row in after] == before
    await new.insert_job("r", definition())
    assert made == (await new.transact(table))[1]
    await new.close()


async def test_a_policy_may_allow_it(store_url: str) -> None:
    await older_store(store_url)
    assert await state_of(store_url, auto_migrate=True) == "x" * 2000


def test_the_commands(store_url: str) -> None:
    asyncio.run(older_store(store_url))

    def call(name: str) -> dict[str, Any]:
        result = CliRunner().invoke(db, [name, "--url", store_url, "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.output)
        return found

    before = call("current")
    assert (before["version"], before["newest"], before["current"]) == (2, SCHEMA_VERSION, False)
    done = call("upgrade")
    assert (done["before"], done["after"]) == (2, SCHEMA_VERSION)
    assert call("current")["current"] is True
    assert call("upgrade")["before"] == SCHEMA_VERSION
    assert asyncio.run(state_of(store_url)) == "x" * 2000


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 1])
async def test_what_is_not_known_is_refused_untouched(store_url: str, version: int) -> None:
    await older_store(store_url)

    def mark(connection: Connection) -> None:
        connection.execute(update(SCHEMA).values(version=version))

    store = Store(locate(store_url), create=False, auto_migrate=True)
    await store._database.transact(mark)
    error = SchemaNewer if version > SCHEMA_VERSION else StoreUnreadable
    for work in (store.upgrade(), store.jobs()):
        with pytest.raises(error, match="it was not touched"):
            await work
    await store.close()
    assert await look(store_url, version_of) == version


@pytest.mark.parametrize("by_hand", [True, False])
async def test_who_has_the_store_open_is_told_of_newer_tables(store_url: str, by_hand: bool) -> None:
    store = Store(locate(store_url), create=True)

    async def begin(run_id: str) -> None:
        if by_hand:
            await CheckpointManager(run_id, enabled=True, store=store).save_checkpoint(completed_nodes={"a"})
        else:
            await JobRepository(store=store).add(Job(id=run_id))

    async def mark(version: int) -> None:
        await store._database.transact(lambda connection: connection.execute(update(SCHEMA).values(version=version)))

    await begin("before")
    await mark(SCHEMA_VERSION + 1)
    with pytest.raises(SchemaChanged, match="nothing was written"):
        await begin("r")
    with pytest.raises(SchemaNewer):
        await begin("r")
    await mark(SCHEMA_VERSION)
    await begin("after")
    assert {run.id for run in (await JobRepository(store=store).find()).items} == {"before", "after"}
    await store.close()


@pytest.mark.parametrize("found", ["newer", "foreign"])
async def test_an_upgrade_that_is_refused_changes_no_byte(tmp_path: Path, found: str) -> None:
    path = tmp_path / "c.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        if found == "foreign":
            database.execute("CREATE TABLE job (id TEXT)")
        else:
            database.execute("CREATE TABLE checkpoint_schema (id INTEGER PRIMARY KEY, version INTEGER, store_id TEXT)")
            database.execute(f"INSERT INTO checkpoint_schema VALUES (1, {SCHEMA_VERSION + 1}, 'x')")
    before = path.read_bytes()
    store = Store(locate(f"sqlite:///{path}"), create=False)
    with pytest.raises(StoreUnreadable):
        await store.upgrade()
    await store.close()
    assert path.read_bytes() == before
    assert [name.name for name in tmp_path.iterdir()] == ["c.db"]


async def test_nothing_to_upgrade(tmp_path: Path) -> None:
    (tmp_path / "c.db").touch()
    store = Store(locate(f"sqlite:///{tmp_path}/c.db"), create=False)
    with pytest.raises(StoreMissing):
        await store.upgrade()
    await store.close()


UPGRADE = """
import asyncio, sys
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.store import Store
import alembic.migration, alembic.operations
async def main():
    store = Store(locate(sys.argv[1]), create=False)
    print("ready", flush=True)
    sys.stdin.readline()
    print(*await store.upgrade(), flush=True)
    await store.close()
asyncio.run(main())
"""


def test_of_many_at_once_one_upgrades(store_url: str) -> None:
    asyncio.run(older_store(store_url))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    many = [subprocess.Popen([sys.executable, "-c", UPGRADE, store_url], **pipes) for _ in range(MANY)]
    for process in many:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in many:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in many]
    assert sorted(told) == sorted([f"2 {SCHEMA_VERSION}\n", *[f"{SCHEMA_VERSION} {SCHEMA_VERSION}\n"] * (MANY - 1)])


SLOW = """
import asyncio, sys, time
from sqlalchemy import event
from checkpoint_plugin import migrations
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.migrations import layout_3
from checkpoint_plugin.store import Store
done = layout_3.upgrade
def upgrade(operations):
    done(operations)
    print("in the middle", flush=True)
    time.sleep(60)
layout_3.upgrade = upgrade
async def main():
    await Store(locate(sys.argv[1]), create=False).upgrade()
asyncio.run(main())
"""


def test_killed_in_the_middle_it_is_as_before(store_url: str) -> None:
    asyncio.run(older_store(store_url))
    with subprocess.Popen([sys.executable, "-c", SLOW, store_url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    deadline = time.monotonic() + 30
    while True:  # the server may need a moment to see that the client is gone
        try:
            assert asyncio.run(look(store_url, version_of)) == 2
            assert asyncio.run(upgraded(store_url)) == (2, SCHEMA_VERSION)
            break
        except StoreUnreadable:
            assert time.monotonic() < deadline
    assert asyncio.run(state_of(store_url)) == "x" * 2000
    assert asyncio.run(look(store_url, differences)) == []


async def upgraded(url: str) -> tuple[int, int]:
    store = Store(locate(url), create=False)
    try:
        return await store.upgrade()
    finally:
        await store.close()


async def test_without_the_right_to_create_tables(store_url: str) -> None:
    if not on_postgres(store_url):
        pytest.skip("a file has no roles")
    owner = Store(locate(store_url), create=True)
    await owner.insert_job("first", definition())

    await close_with_rights(
        owner,
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker",
    )
    worker = Store(locate(store_url.replace("postgres@", "worker@", 1)), create=True)
    await worker.insert_job("r", definition())
    await worker.save(RunHistory("r", 1, 1), cut(NodeSnapshot("a", "running", state=datetime.now(UTC))), "1")
    assert await worker.restore(RunHistory("r", 1, 1), None) is not None
    await worker.close()


async def test_a_check_by_a_role_without_rights_finds_no_damage(store_url: str) -> None:
    if not on_postgres(store_url):
        pytest.skip("a file has no roles")
    owner = Store(locate(store_url), create=True)
    await owner.insert_job("r", definition())

    await close_with_rights(
        owner,
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO worker",
        "REVOKE SELECT ON completed_nodes FROM worker",
    )
    worker = Store(locate(store_url.replace("postgres@", "worker@", 1)), create=False)
    with pytest.raises(StoreReadOnly, match="completed_nodes"):
        await check_store(worker)
    await worker.close()


@pytest.mark.parametrize("schema", ["", "&schema=own"])
async def test_who_may_not_make_the_tables_is_told_who_may(store_url: str, schema: str) -> None:
    if not on_postgres(store_url):
        pytest.skip("a file has no roles")
    owner = Store(locate(store_url), create=True)

    await close_with_rights(
        owner,
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    url = store_url.replace("postgres@", "worker@", 1)
    worker = Store(locate(f"{url}{'&' if '?' in url else '?'}connect_seconds=9{schema}"), create=True)
    with pytest.raises(StoreReadOnly, match="has no tables, and this role may not make them: permission denied for"):
        await worker.insert_job("r", definition())
    await worker.close()


@pytest.mark.parametrize("may_create", [True, False])
async def test_who_may_not_upgrade_the_tables_is_told_who_may(store_url: str, may_create: bool) -> None:
    if not on_postgres(store_url):
        pytest.skip("a file has no roles")
    await older_store(store_url)
    owner = Store(locate(store_url), create=False)

    await close_with_rights(
        owner,
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker",
        f"{'GRANT CREATE ON SCHEMA public TO' if may_create else 'REVOKE CREATE ON SCHEMA public FROM'} PUBLIC",
    )
    worker = Store(locate(store_url.replace("postgres@", "worker@", 1)), create=True, auto_migrate=True)
    for work in (worker.upgrade, worker.jobs):
        with pytest.raises(
            StoreReadOnly, match=r"cannot be upgraded by this role: .*; they are as they were\. Let the role that owns"
        ):
            await work()
    await worker.close()
    assert await look(store_url, version_of) == 2
    assert await upgraded(store_url) == (2, SCHEMA_VERSION)
