"""Layout 7: graphs of new runs are stored by column. Those that are there stay as they are, and are read; no table changes."""

from __future__ import annotations

from alembic.operations import Operations

__all__ = ["upgrade"]


def upgrade(operations: Operations) -> None:
    """Take the step: programs that know layout 6 alone could not read what is written from here on."""
