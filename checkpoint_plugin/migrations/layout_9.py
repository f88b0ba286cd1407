"""Layout 9: PostgreSQL no longer looks the run up for each row of a node or a value: the statement of a save does it for all."""

from __future__ import annotations

from alembic.operations import Operations

__all__ = ["upgrade"]

TABLES = ("node_version", "run_node_state", "payload")


def upgrade(operations: Operations) -> None:
    """Take the step; on SQLite, where such a look is nearly free, nothing changes."""
    if operations.get_context().dialect.name == "postgresql":
        for table in TABLES:
            operations.drop_constraint(f"fk_{table}_run_id_job", table, type_="foreignkey")
