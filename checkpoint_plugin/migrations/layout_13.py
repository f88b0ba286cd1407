"""Layout 13: answers for suspended nodes of a run that is executed wait in a table of their own until it has taken them.

An index of the leases goes, which nobody asked and each sign of life wrote.
"""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, DateTime, ForeignKeyConstraint, LargeBinary, PrimaryKeyConstraint, Text

__all__ = ["upgrade"]

NAME = "pending_answer"


def upgrade(operations: Operations) -> None:
    """Take the step."""
    operations.create_table(
        NAME,
        Column("run_id", Text(), nullable=False),
        Column("node_id", Text(), nullable=False),
        Column("since", DateTime(timezone=True), nullable=False),
        Column("brought_at", DateTime(timezone=True), nullable=False),
        Column("body", LargeBinary(), nullable=False),
        Column("digest", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("run_id", "node_id", name=f"pk_{NAME}"),
        ForeignKeyConstraint(["run_id"], ["job.id"], name=f"fk_{NAME}_run_id_job"),
    )
    operations.drop_index("ix_lease_expires_at", "lease")
