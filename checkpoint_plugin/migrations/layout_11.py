"""Layout 11: what is saved beside the nodes may be a payload, which the row of the checkpoint mentions."""

from __future__ import annotations

from alembic.operations import Operations

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step: the tables stay as they are, and rows of older layouts are read as before."""
