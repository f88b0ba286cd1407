"""Layout 10: on SQLite the rows of nodes lie in a table of their own, beside its key: they hold values of some length now."""

from __future__ import annotations

from typing import Any

from alembic.operations import Operations
from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    insert,
    select,
)

__all__ = ["upgrade"]

NAME = "node_version"
OLD = "node_version_of_layout_9"


def upgrade(operations: Operations) -> None:
    """Take the step: SQLite can change the form of a table only by copying it."""
    if operations.get_context().dialect.name != "sqlite":
        return
    columns: list[Column[Any]] = [
        Column("run_id", Text(), nullable=False),
        Column("number", Integer(), nullable=False),
        Column("node_id", Text(), nullable=False),
        Column("body", LargeBinary(), nullable=False),
        Column("mentions", LargeBinary()),
        Column("digest", LargeBinary(), nullable=False),
    ]
    names = [column.name for column in columns]
    operations.rename_table(NAME, OLD)
    made = operations.create_table(
        NAME,
        *columns,
        PrimaryKeyConstraint("run_id", "number", "node_id", name=f"pk_{NAME}"),
        ForeignKeyConstraint(["run_id"], ["job.id"], name=f"fk_{NAME}_run_id_job"),
    )
    old = Table(OLD, MetaData(), *(Column(name) for name in names))
    operations.execute(insert(made).from_select(names, select(old)))
    operations.drop_table(OLD)
