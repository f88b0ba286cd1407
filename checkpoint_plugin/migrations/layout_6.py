"""Layout 6: blocks of nodes that have completed. Runs that are there get theirs as they go on."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, ForeignKeyConstraint, Integer, LargeBinary, PrimaryKeyConstraint, Text

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step."""
    operations.create_table(
        "completed_nodes",
        Column("run_id", Text(), nullable=False),
        Column("number", Integer(), nullable=False),
        Column("body", LargeBinary(), nullable=False),
        Column("digest", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("run_id", "number", name="pk_completed_nodes"),
        ForeignKeyConstraint(["run_id"], ["job.id"], name="fk_completed_nodes_run_id_job"),
    )
