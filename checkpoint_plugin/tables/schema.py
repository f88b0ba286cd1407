"""The tables of a store: made, brought up to date, or refused."""

from __future__ import annotations

import os
import uuid
from typing import Any, Final

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement, sqlite_schema
from checkpoint_plugin.errors import SchemaInUse, SchemaNewer, SchemaOutdated, StoreMissing, StoreUnreadable
from checkpoint_plugin.tables.lease import database_now, is_held

__all__ = ["AUTO_MIGRATE", "SCHEMA_VERSION", "check_upgradable", "create_schema", "is_current", "read_version", "upgrade_schema"]

SCHEMA_VERSION: Final = 13
FIRST_UPGRADABLE: Final = 2
"""The oldest layout that can be upgraded; none before it was ever released."""
AUTO_MIGRATE: Final = "WORKFLOW_CHECKPOINT_AUTO_MIGRATE"
TABLE: Final = "checkpoint_schema"
"""The table that tells of all others."""
SQL: Final = "checkpoint_plugin.tables.row_sql"
VERSION: Final = Statement(SQL, "schema_version")
FIRST: Final = Statement(SQL, "first_version")
HELD: Final = Statement(SQL, "held_leases")


def create_schema(connection: Connection, shown: str, schema: str | None = None) -> None:
    """Create the tables where there are none; harmless when several processes do it at once.

    Args:
        connection: in a transaction that writes.
        shown: the store, for errors.
        schema: of PostgreSQL, in which the connection looks for tables; made where there is none.

    Raises:
        StoreUnreadable: tables of these names are not ours, or the database does not keep every character.
    """
    if connection.kind == "postgresql":
        from checkpoint_plugin.tables import postgresql_schema

        postgresql_schema.check_encoding(connection.core, shown)
        _lock(connection, schema)
        postgresql_schema.make_schema(connection.core, schema)
    if read_version(connection, shown) is None:
        if connection.kind == "postgresql":
            postgresql_schema.make_tables(connection.core)
        else:
            for statement in sqlite_schema()[1]:
                connection.driver.execute(statement)
        connection.execute(FIRST, {"version": SCHEMA_VERSION, "store_id": uuid.uuid4().hex})


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
        from checkpoint_plugin.migrations import upgrade_tables

        upgrade_tables(connection.core, version, SCHEMA_VERSION)
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
    if version < FIRST_UPGRADABLE:
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
    ours = sqlite_schema()[0]
    found = _table_names(connection, shown, ours)
    if TABLE not in found:
        if taken := sorted(ours.intersection(found)):
            raise StoreUnreadable(f"the database {shown} has a table {taken[0]!r} that is not ours. Use a database of its own.")
        if connection.kind == "postgresql":
            from checkpoint_plugin.tables.postgresql_schema import check_entered

            check_entered(connection.core, shown)
        return None
    version: Any = connection.execute(VERSION).scalar_one_or_none()
    if not isinstance(version, int):
        raise StoreUnreadable(
            f"the store at {shown} does not say of which version it is; it was not touched. Restore a copy of it."
        )
    return version


def _table_names(connection: Connection, shown: str, ours: frozenset[str]) -> frozenset[str]:
    if connection.kind == "postgresql":
        from checkpoint_plugin.tables.postgresql_schema import table_names

        return table_names(connection.core)
    tables = set[str]()
    for kind, name, page in connection.driver.execute("SELECT type, name, rootpage FROM sqlite_master"):
        name = str(name).lower()  # as SQLite takes names
        if kind == "table":
            tables.add(name)
        # What these give may have no end, and nothing ends a statement there.
        if name in ours and (kind == "view" or (kind == "table" and not page)):
            what = "view" if kind == "view" else "virtual table"
            raise StoreUnreadable(f"the database {shown} has a {what} {name!r} in the place of a table. Restore a copy of it.")
    return frozenset(tables)


def _lock(connection: Connection, schema: str | None) -> None:
    if connection.kind == "postgresql":  # on SQLite the transaction itself is the lock
        from checkpoint_plugin.tables.postgresql_schema import lock_tables

        lock_tables(connection.core, schema)


def _is_wanted(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")
