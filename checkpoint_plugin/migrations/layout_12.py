"""Layout 12: a row of a node that holds much may tell only what changed since an earlier one, which it names."""

from __future__ import annotations

from alembic.operations import Operations
from sqlalchemy import Column, Integer

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step; rows that are there stay as they are."""
    operations.add_column("node_version", Column("continues", Integer()))
