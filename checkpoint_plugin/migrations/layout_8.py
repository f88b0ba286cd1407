"""Layout 8: on SQLite the states of nodes lie in a table of their own, beside its key: one of some length took a page."""

from __future__ import annotations

from typing import Any

from alembic.operations import Operations
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    insert,
    select,
    text,
)

__all__ = ["upgrade"]

NAME = "run_node_state"
OLD = "run_node_state_of_layout_7"


def upgrade(operations: Operations) -> None:
    """Take the step: SQLite can change the form of a table only by copying it."""
    if operations.get_context().dialect.name != "sqlite":
        return
    columns: list[Column[Any]] = [
        Column("run_id", Text(), nullable=False),
        Column("node_id", Text(), nullable=False),
        Column("number", Integer()),
        Column("status", String(), nullable=False),
        Column("attempt", Integer(), nullable=False),
        *(Column(f"{name}_at", DateTime()) for name in ("scheduled", "started", "completed", "failed")),
        Column("updated_at", DateTime(), nullable=False),
        Column("last_error", Text()),
        Column("retryable", Boolean(), nullable=False),
        *(Column(f"{name}_at", DateTime()) for name in ("suspended", "wake")),
        *(Column(name, Text()) for name in ("suspension_reason", "suspension_metadata_json")),
        *(Column(name, Text()) for name in ("resume_state_json", "outputs_json")),
    ]
    names = [column.name for column in columns]
    operations.rename_table(NAME, OLD)
    made = operations.create_table(
        NAME,
        *columns,
        PrimaryKeyConstraint("run_id", "node_id", name=f"pk_{NAME}"),
        ForeignKeyConstraint(["run_id"], ["job.id"], name=f"fk_{NAME}_run_id_job"),
    )
    old = Table(OLD, MetaData(), *(Column(name) for name in names))
    operations.execute(insert(made).from_select(names, select(old)))
    operations.drop_table(OLD)
    operations.create_index(f"ix_{NAME}_wake_at", NAME, ["wake_at"], sqlite_where=text("wake_at IS NOT NULL"))
