"""The tables on PostgreSQL: looked for, and made."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.schema import CreateSchema

from checkpoint_plugin.errors import StoreReadOnly, StoreUnreadable
from checkpoint_plugin.models import NODE_VERSION, OUTPUT_SEGMENT, PAYLOAD, PAYLOAD_SEGMENT, Base

__all__ = ["check_encoding", "check_entered", "lock_tables", "make_schema", "make_tables", "table_names"]

LOCK_KEY: Final = 7_306_085_893_296_906_348
"""Of the advisory lock under which one of several processes makes or upgrades the tables."""
ANY_CHARACTER: Final = ("UTF8", "SQL_ASCII")
"""Encodings that keep every text as it is; the second knows of bytes only."""
NOT_ENTERED: Final = text(
    "SELECT nspname FROM pg_catalog.pg_namespace WHERE current_schema() IS NULL AND nspname IN "
    "(SELECT btrim(name, ' \"') FROM unnest(string_to_array(current_setting('search_path'), ',')) AS name)"
)
"""The schemas where tables would be looked for, of a role that may enter none of them: to it they look empty."""


def table_names(core: Connection) -> frozenset[str]:
    """The tables that the connection finds by their names alone."""
    return frozenset(inspect(core).get_table_names())


def check_entered(core: Connection, shown: str) -> None:
    """Refuse to say that there are no tables where this role could not see them.

    Raises:
        StoreReadOnly: it may not look.
    """
    if (schema := core.execute(NOT_ENTERED).scalars().first()) is not None:
        raise StoreReadOnly(
            f"the store at {shown} cannot be used: this role may not enter the schema {schema!r}. Let a role that may grant it "
            f"do so: GRANT USAGE ON SCHEMA {schema} TO …, or name another one with ?schema=."
        )


def check_encoding(core: Connection, shown: str) -> None:
    """Refuse a database that does not keep every character.

    Raises:
        StoreUnreadable: it does not.
    """
    encoding = core.execute(select(func.current_setting("server_encoding"))).scalar_one()
    if encoding not in ANY_CHARACTER:
        raise StoreUnreadable(
            f"the database {shown} keeps the characters of {encoding} only, and ids and messages may hold any; nothing was made. "
            "Use a database of encoding UTF8."
        )


def lock_tables(core: Connection, schema: str | None) -> None:
    """Let one of several processes make or upgrade the tables; it waits for who does. Others in other schemas do not wait."""
    core.execute(select(func.pg_advisory_xact_lock(LOCK_KEY if schema is None else LOCK_KEY + crc32(schema.encode()))))


def make_schema(core: Connection, schema: str | None) -> None:
    """Make the schema in which the connection looks for tables, where it is named and there is none."""
    if schema is not None and not inspect(core).has_schema(schema):
        core.execute(CreateSchema(schema))


def make_tables(core: Connection) -> None:
    """Make the tables, where there are none."""
    Base.metadata.create_all(core)
    # What is worth it was compressed before it was sent; the server would try it once more, at 76 ms a megabyte.
    for table in (PAYLOAD, PAYLOAD_SEGMENT, NODE_VERSION, OUTPUT_SEGMENT):
        core.execute(text(f"ALTER TABLE {table.name} ALTER COLUMN body SET STORAGE EXTERNAL"))
