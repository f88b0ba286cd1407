"""Who waits for what: the suspended nodes of every run that is not over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.lease import database_now
from checkpoint_plugin.tables.sealed_columns import HIDDEN, shown_row
from hookspecs import TaggedValueError, loads_tagged

__all__ = ["SuspendedNode", "fetch_suspended_nodes"]

SUSPENDED: Final = Statement("checkpoint_plugin.opening.list_sql", "suspended_nodes")
SEALED: Final = ("suspension_reason", "suspension_metadata_json")


@dataclass(frozen=True, slots=True)
class SuspendedNode:
    """A node that waits.

    Args:
        run_id: the run.
        node_id: the node.
        reason: for what, for people; `(encrypted)` to those who have no key of the run.
        since: when it was suspended.
        wake_at: from when on it need not wait any more; for one that was answered, when that was.
        due: whether that time has come: a resume of the run goes on with it.
        metadata: what it tells whoever answers; `None` also where that has no JSON form, or is encrypted.
    """

    run_id: str
    node_id: str
    reason: str | None
    since: datetime | None
    wake_at: datetime | None
    due: bool
    metadata: Any


async def fetch_suspended_nodes(store: Store) -> Sequence[SuspendedNode]:
    """The suspended nodes of runs that are not over, those that wait for the longest time first.

    Args:
        store: an open one.

    Raises:
        StoreDamaged: what is stored cannot be read.
    """

    def work(connection: Connection) -> Sequence[SuspendedNode]:
        now = database_now(connection)
        return [_read(store, connection, row, now) for row in connection.execute(SUSPENDED)]

    return await store.transact(work, write=False)


def _read(store: Store, connection: Connection, row: Any, now: datetime) -> SuspendedNode:
    run_id, node_id, _, since, wake_at, _, updated_at = row
    is_due = wake_at is not None and wake_at <= max(now, updated_at)  # of an answer both are by the clock of who saved it
    shown = shown_row(store.keys, connection, run_id, row, SEALED)
    reason, metadata = shown.suspension_reason, shown.suspension_metadata_json
    try:
        told = None if metadata is None or metadata == HIDDEN else loads_tagged(metadata)
    except TaggedValueError as error:
        raise StoreDamaged(run_id, f"what node {node_id!r} waits for: {error}") from error
    return SuspendedNode(run_id, node_id, reason, since, wake_at, is_due, told)
