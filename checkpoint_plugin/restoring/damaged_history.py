"""Which rows a run has, for those who go on from one of its checkpoints although something else of it is damaged."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from checkpoint_plugin.models import CHECKPOINT, LEASE, NODE_VERSION

__all__ = ["fetch_node_ids", "fetch_numbers"]


def fetch_node_ids(connection: Connection, run_id: str) -> set[str]:
    """Every node of which a run has a row, of whatever checkpoint; a name that is damaged is none."""
    found = connection.execute(select(NODE_VERSION.c.node_id).where(NODE_VERSION.c.run_id == run_id).distinct()).scalars()
    return {node_id for node_id in found if type(node_id) is str}


def fetch_numbers(connection: Connection, run_id: str) -> tuple[int | None, Sequence[int]]:
    """Which checkpoints a run has, for those who go on although something is damaged.

    Returns:
        The number of the newest as its lease names it, 0 before the first, `None` where it names none; and the numbers of
        all that are there, the newest first. SQLite keeps anything in any column, so what is no number is left out.
    """
    newest = connection.execute(select(LEASE.c.newest_number).where(LEASE.c.run_id == run_id)).scalar_one_or_none()
    query = select(CHECKPOINT.c.number).where(CHECKPOINT.c.run_id == run_id).order_by(CHECKPOINT.c.number.desc())
    numbers = [number for number in connection.execute(query).scalars() if type(number) is int]
    return newest if type(newest) is int else None, numbers
