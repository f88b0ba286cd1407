"""The rows of `run_node_state`, written whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.models import LEASE, RUN_NODE_STATE

__all__ = ["lock_epoch", "upsert_node_rows"]


def lock_epoch(connection: Connection, run_id: str) -> int | None:
    """Lock a run's lease until the end of the transaction, as every writer of the run does.

    A server locks a row by writing it, too. Who waits for a row that was written looks at it anew, and sees that somebody was
    there (`save_sql.written_by`); of one that was only locked nothing tells.

    Returns:
        Its epoch; `None` when the run has no row.
    """
    of_run, epoch = LEASE.c.run_id == run_id, LEASE.c.epoch
    query: Any = update(LEASE).where(of_run).values(epoch=epoch).returning(epoch)
    if connection.kind == "sqlite":  # the transaction is the lock
        query = select(epoch).where(of_run)
    found: int | None = connection.execute(query).scalar_one_or_none()
    return found


def upsert_node_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with all their columns, new or changed, by one statement."""
    connection.execute(_upsert(connection.kind), [dict(row) for row in rows])


@cache
def _upsert(dialect: str) -> Any:
    make = (postgresql if dialect == "postgresql" else sqlite).insert(RUN_NODE_STATE)
    new = make.values({column.name: bindparam(column.name) for column in RUN_NODE_STATE.columns})
    key = ("run_id", "node_id")
    changed = {column.name: new.excluded[column.name] for column in RUN_NODE_STATE.columns if column.name not in key}
    return new.on_conflict_do_update(index_elements=key, set_=changed)
