"""Layout 4: a store has a name of its own, under which it keeps files where other stores keep theirs."""

from __future__ import annotations

import uuid

from alembic.operations import Operations
from sqlalchemy import Column, Integer, MetaData, Table, Text, update

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step."""
    operations.add_column("checkpoint_schema", Column("store_id", Text()))
    schema = Table("checkpoint_schema", MetaData(), Column("id", Integer), Column("store_id", Text()))
    operations.execute(update(schema).values(store_id=uuid.uuid4().hex))
