"""Making the tables, and refusing those of another version."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, insert, inspect, select

from checkpoint_plugin.errors import StoreMissing, StoreUnreadable
from checkpoint_plugin.models import SCHEMA, Base

__all__ = ["SCHEMA_VERSION", "check_schema", "create_schema", "has_schema"]

SCHEMA_VERSION: Final = 2
LOCK_KEY: Final = 7_306_085_893_296_906_348
"""Of the advisory lock under which one of several processes creates the tables."""


def create_schema(connection: Connection, shown: str) -> None:
    """Create the tables where there are none; harmless when several processes do it at once.

    Raises:
        StoreUnreadable: the tables are of a newer version, or tables of these names are not ours.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK_KEY)))
    if not has_schema(connection, shown):
        Base.metadata.create_all(connection)
        connection.execute(insert(SCHEMA).values(id=1, version=SCHEMA_VERSION))


def check_schema(connection: Connection, shown: str) -> None:
    """Refuse a database without our tables, or with those of another version.

    Raises:
        StoreMissing: it has none of our tables.
        StoreUnreadable: as `has_schema`.
    """
    if not has_schema(connection, shown):
        raise StoreMissing(f"the database {shown} holds no store of runs. Name another with --url.")


def has_schema(connection: Connection, shown: str) -> bool:
    """Whether our tables are there; only reads.

    Raises:
        StoreUnreadable: they are of another version, or tables of these names are not ours.
    """
    present = set(inspect(connection).get_table_names())
    if SCHEMA.name not in present:
        ours = {table.name for table in Base.metadata.sorted_tables}
        if taken := sorted(ours & present):
            raise StoreUnreadable(f"the database {shown} has a table {taken[0]!r} that is not ours. Use a database of its own.")
        return False
    version = connection.execute(select(SCHEMA.c.version)).scalar_one_or_none()
    if version != SCHEMA_VERSION:
        raise StoreUnreadable(
            f"the store at {shown} has version {version}, and this program knows version {SCHEMA_VERSION}; it was not touched. "
            "Install the workflow-checkpoint that wrote it, or a newer one."
        )
    return True
