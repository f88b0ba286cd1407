"""Layout 5: the number that every save moves on stands in the small row of the lease, not in the run's."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Boolean, Column, Integer, MetaData, Table, Text, false, select, update

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step."""
    operations.add_column("lease", Column("newest_number", Integer(), nullable=False, server_default="0"))
    operations.add_column("job", Column("has_checkpoint", Boolean(), nullable=False, server_default=false()))
    job = Table("job", MetaData(), Column("id", Text()), Column("newest_number", Integer()), Column("has_checkpoint", Boolean()))
    lease = Table("lease", MetaData(), Column("run_id", Text()), Column("newest_number", Integer()))
    number = select(job.c.newest_number).where(job.c.id == lease.c.run_id).scalar_subquery()
    operations.execute(update(lease).values(newest_number=number))
    operations.execute(update(job).values(has_checkpoint=job.c.newest_number > 0))
    operations.drop_column("job", "newest_number")
