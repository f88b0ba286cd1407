"""From an older layout of the tables to the newest, one step after the other, in one transaction.

Each step is a module with `upgrade(operations)`: it says what changes in terms of Alembic's operations, and nothing that later
changes of the models could bend. The version in the table `checkpoint_schema` is the only record of what was done. Alembic takes
most of a second to import, so only a store that is not up to date pays for it.
"""

from __future__ import annotations

from importlib import import_module

from sqlalchemy import Connection, update

from checkpoint_plugin.models import SCHEMA

__all__ = ["upgrade_tables"]


def upgrade_tables(connection: Connection, version: int, newest: int) -> None:
    """Take the steps that are missing; the caller holds the lock under which the version was read.

    Args:
        connection: in a transaction that writes.
        version: of the tables.
        newest: to reach.
    """
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for number in range(version + 1, newest + 1):
        import_module(f"checkpoint_plugin.migrations.layout_{number}").upgrade(operations)
    connection.execute(update(SCHEMA).values(version=newest))
