"""Layout 3: suspended nodes are found by their wake time; PostgreSQL compresses no payload that is compressed already."""

from __future__ import annotations

from typing import Final

from alembic.operations import Operations
from sqlalchemy import text

__all__ = ["upgrade"]

BODIES: Final = ("payload", "payload_segment", "node_version", "output_segment")


def upgrade(operations: Operations) -> None:
    """Take the step."""
    wakes = text("wake_at IS NOT NULL")
    operations.create_index(
        "ix_run_node_state_wake_at", "run_node_state", ["wake_at"], postgresql_where=wakes, sqlite_where=wakes
    )
    if operations.get_context().dialect.name == "postgresql":
        for table in BODIES:
            operations.execute(f"ALTER TABLE {table} ALTER COLUMN body SET STORAGE EXTERNAL")
