"""The tables of a store: made, brought up to date, or refused."""

from __future__ import annotations

import os
import uuid
from typing import Final
from zlib import crc32

from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.schema import CreateSchema

from checkpoint_plugin.errors import SchemaInUse, SchemaNewer, SchemaOutdated, StoreMissing, StoreReadOnly, StoreUnreadable
from checkpoint_plugin.migrations import FIRST_VERSION, upgrade_tables
from checkpoint_plugin.models import LEASE, NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, PAYLOAD_SEGMENT, SCHEMA, Base
from checkpoint_plugin.tables.lease import database_now, is_held

__all__ = ["AUTO_MIGRATE", "SCHEMA_VERSION", "check_upgradable", "create_schema", "is_current", "read_version", "upgrade_schema"]

SCHEMA_VERSION: Final = 11
LOCK_KEY: Final = 7_306_085_893_296_906_348
"""Of the advisory lock under which one of several processes makes or upgrades the tables."""
AUTO_MIGRATE: Final = "WORKFLOW_CHECKPOINT_AUTO_MIGRATE"
HELD: Final = select(*(LEASE.c[name] for name in ("run_id", "owner", "host", "pid", "process_started", "expires_at"))).where(
    LEASE.c.owner.is_not(None)
)
"""Who executes what; every layout that can be upgraded has these columns."""
ANY_CHARACTER: Final = ("UTF8", "SQL_ASCII")
"""Encodings of PostgreSQL that keep every text as it is; the second knows of bytes only."""
NOT_ENTERED: Final = text(
    "SELECT nspname FROM pg_catalog.pg_namespace WHERE current_schema() IS NULL AND nspname IN "
    "(SELECT btrim(name, ' \"') FROM unnest(string_to_array(current_setting('search_path'), ',')) AS name)"
)
"""The schemas where tables would be looked for, of a role that may enter none of them: to it they look empty."""


def create_schema(connection: Connection, shown: str, schema: str | None = None) -> None:
    """Create the tables where there are none; harmless when several processes do it at once.

    Args:
        connection: in a transaction that writes.
        shown: the store, for errors.
        schema: of PostgreSQL, in which the connection looks for tables; made where there is none.

    Raises:
        StoreUnreadable: tables of these names are not ours, or the database does not keep every character.
    """
    _check_encoding(connection, shown)
    _lock(connection, schema)
    if schema is not None and not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))
    if read_version(connection, shown) is None:
        Base.metadata.create_all(connection)
        if connection.dialect.name == "postgresql":
            # What is worth it was compressed before it was sent; the server would try it once more, at 76 ms a megabyte.
            for table in (PAYLOAD, PAYLOAD_SEGMENT, NODE_VERSION, OUTPUT_SEGMENT):
                connection.execute(text(f"ALTER TABLE {table.name} ALTER COLUMN body SET STORAGE EXTERNAL"))
        connection.execute(insert(SCHEMA).values(id=1, version=SCHEMA_VERSION, store_id=uuid.uuid4().hex))


def upgrade_schema(connection: Connection, shown: str, schema: str | None = None, *, unused: bool = False) -> tuple[int, int]:
    """Bring the tables up to date, in a transaction that writes; of several processes one does it, and the others wait.

    Args:
        connection: in a transaction that writes.
        shown: the store, for errors.
        schema: of PostgreSQL, in which the connection looks for tables.
        unused: only where nobody executes a run: an older program would fail on tables that it does not know.

    Returns:
        The versions before and after.

    Raises:
        SchemaInUse: somebody does; they were not touched.
        StoreMissing: there are no tables of ours.
        SchemaNewer: they are of a newer version; they were not touched.
        StoreUnreadable: they are older than any that can be upgraded.
    """
    _lock(connection, schema)
    version = check_upgradable(connection, shown)
    if version < SCHEMA_VERSION:
        if unused:
            _check_unused(connection, shown, version)
        upgrade_tables(connection, version, SCHEMA_VERSION)
    return version, SCHEMA_VERSION


def _check_unused(connection: Connection, shown: str, version: int) -> None:
    now = database_now(connection)
    held = next((row for row in connection.execute(HELD) if is_held(row, now)), None)
    if held is not None:
        raise SchemaInUse(shown, version, held.run_id)


def check_upgradable(connection: Connection, shown: str) -> int:
    """See that tables can be brought up to date, or are.

    Returns:
        Their version.

    Raises:
        StoreMissing, SchemaNewer, StoreUnreadable: as `upgrade_schema`.
    """
    version = read_version(connection, shown)
    if version is None:
        raise StoreMissing(f"the database {shown} holds no store of runs. Name another with --url.")
    if version > SCHEMA_VERSION:
        raise SchemaNewer(shown, version, SCHEMA_VERSION)
    if version < FIRST_VERSION:
        raise StoreUnreadable(
            f"the store at {shown} has layout {version}, which no released program wrote; it was not touched. Use another store."
        )
    return version


def is_current(connection: Connection, shown: str, *, may_upgrade: bool) -> bool | None:
    """Look at the tables without touching them.

    Args:
        connection: for reading.
        shown: the store, for errors.
        may_upgrade: whether older tables may be upgraded without being asked.

    Returns:
        Whether they are up to date, `None` where there are none.

    Raises:
        SchemaOutdated: they are older, and must be upgraded on purpose.
        SchemaNewer: they are of a newer version.
        StoreUnreadable: tables of these names are not ours.
    """
    version = read_version(connection, shown)
    if version is None or version == SCHEMA_VERSION:
        return None if version is None else True
    if version > SCHEMA_VERSION:
        raise SchemaNewer(shown, version, SCHEMA_VERSION)
    if not may_upgrade and not _is_wanted(os.environ.get(AUTO_MIGRATE, "")):
        raise SchemaOutdated(shown, version, SCHEMA_VERSION)
    return False


def read_version(connection: Connection, shown: str) -> int | None:
    """The version of the tables; `None` where there are none.

    Raises:
        StoreReadOnly: the role may not look where they would be.
        StoreUnreadable: tables of these names are not ours.
    """
    found = inspect(connection)
    ours = {table.name for table in Base.metadata.sorted_tables}
    # What a view gives may have no end, and nothing ends a statement of SQLite.
    if connection.dialect.name == "sqlite" and (views := sorted(ours.intersection(found.get_view_names()))):
        raise StoreUnreadable(f"the database {shown} has a view {views[0]!r} in the place of a table. Restore a copy of it.")
    if not found.has_table(SCHEMA.name):
        if taken := sorted(ours.intersection(found.get_table_names())):
            raise StoreUnreadable(f"the database {shown} has a table {taken[0]!r} that is not ours. Use a database of its own.")
        _check_entered(connection, shown)
        return None
    version = connection.execute(select(SCHEMA.c.version)).scalar_one_or_none()
    if not isinstance(version, int):
        raise StoreUnreadable(
            f"the store at {shown} does not say of which version it is; it was not touched. Restore a copy of it."
        )
    return version


def _check_encoding(connection: Connection, shown: str) -> None:
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.execute(select(func.current_setting("server_encoding"))).scalar_one()
    if encoding not in ANY_CHARACTER:
        raise StoreUnreadable(
            f"the database {shown} keeps the characters of {encoding} only, and ids and messages may hold any; nothing was made. "
            "Use a database of encoding UTF8."
        )


def _check_entered(connection: Connection, shown: str) -> None:
    """Refuse to say that there are no tables where this role could not see them."""
    if connection.dialect.name == "postgresql" and (schema := connection.execute(NOT_ENTERED).scalars().first()) is not None:
        raise StoreReadOnly(
            f"the store at {shown} cannot be used: this role may not enter the schema {schema!r}. Let a role that may grant it "
            f"do so: GRANT USAGE ON SCHEMA {schema} TO …, or name another one with ?schema=."
        )


def _lock(connection: Connection, schema: str | None) -> None:
    if connection.dialect.name == "postgresql":  # on SQLite the transaction itself is the lock
        key = LOCK_KEY if schema is None else LOCK_KEY + crc32(schema.encode())  # stores beside one another do not wait
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def _is_wanted(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")
