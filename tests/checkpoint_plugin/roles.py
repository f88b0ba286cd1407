"""A role of PostgreSQL that owns nothing: what a worker has."""

from __future__ import annotations

from sqlalchemy import text

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.store import Store

__all__ = ["MAKE_WORKER", "close_with_rights"]

MAKE_WORKER = "DO $$ BEGIN CREATE ROLE worker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
"""Roles are the server's, not the database's: another test may have made it."""


async def close_with_rights(owner: Store, *statements: str) -> None:
    """Make the role, change what it may do, and close the owner's store.

    Args:
        owner: of the tables.
        statements: that give rights and take them.
    """

    def give(connection: Connection) -> None:
        for statement in (MAKE_WORKER, *statements):
            connection.execute(text(statement))

    await owner._database.transact(give)
    await owner.close()
