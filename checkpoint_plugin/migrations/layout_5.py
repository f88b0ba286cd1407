"""Layout 5: the run's row is small. What every save changes stands in the lease, what never changes in a row of its own."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import (
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    case,
    false,
    func,
    insert,
    null,
    select,
    update,
)

__all__ = ["upgrade"]

LONG = 8_192


def upgrade(operations: Operations) -> None:
    """Take the step."""
    _move_number(operations)
    _move_definition(operations)


def _move_number(operations: Operations) -> None:
    operations.add_column("lease", Column("newest_number", Integer(), nullable=False, server_default="0"))
    operations.add_column("job", Column("has_checkpoint", Boolean(), nullable=False, server_default=false()))
    tables = MetaData()
    job = Table("job", tables, Column("id", Text()), Column("newest_number", Integer()), Column("has_checkpoint", Boolean()))
    lease = Table("lease", tables, Column("run_id", Text()), Column("newest_number", Integer()))
    number = select(job.c.newest_number).where(job.c.id == lease.c.run_id).scalar_subquery()
    operations.execute(update(lease).values(newest_number=number))
    operations.execute(update(job).values(has_checkpoint=job.c.newest_number > 0))
    operations.drop_column("job", "newest_number")


def _move_definition(operations: Operations) -> None:
    made = operations.create_table(
        "run_definition",
        Column("run_id", Text(), nullable=False),
        Column("digest", LargeBinary(), nullable=False),
        Column("body", LargeBinary(), nullable=False),
        Column("graph", Text()),
        Column("params", Text()),
        PrimaryKeyConstraint("run_id", name="pk_run_definition"),
        ForeignKeyConstraint(["run_id"], ["job.id"], name="fk_run_definition_run_id_job"),
    )
    texts = [Column(name, Text()) for name in ("graph", "params")]
    bytes_ = [Column(name, LargeBinary()) for name in ("definition", "definition_digest")]
    job = Table("job", MetaData(), Column("id", Text()), *texts, *bytes_)
    long = [case((func.length(text) >= LONG, text), else_=null()) for text in texts]
    found = select(job.c.id, job.c.definition_digest, job.c.definition, *long)
    operations.execute(insert(made).from_select(["run_id", "digest", "body", "graph", "params"], found))
    for text in texts:
        operations.execute(update(job).where(func.length(text) >= LONG).values({text: null()}))
    for column in bytes_:
        operations.drop_column("job", column.name)
