"""Whether a run can be resumed, asked of the database; and how everything that it could be resumed from is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, select, update

from checkpoint_plugin.blobs.files import Blobs
from checkpoint_plugin.blobs.mentioned import fetch_names, named
from checkpoint_plugin.blobs.name import BlobName
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.models import (
    CHECKPOINT,
    COMPLETED_NODES,
    JOB,
    LEASE,
    NODE_VERSION,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    PENDING_ANSWER,
    RUN_NODE_STATE,
)
from checkpoint_plugin.opening.held_runs import RUNNER
from checkpoint_plugin.status import can_be_resumed
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.lease import check_unheld
from checkpoint_plugin.tables.node_rows import lock_epoch
from hookspecs import LeaseLost

__all__ = ["delete_history", "fetch_resumable"]

HISTORY: Final = (
    CHECKPOINT,
    NODE_VERSION,
    COMPLETED_NODES,
    OUTPUT_SEGMENT,
    PAYLOAD,
    PAYLOAD_SEGMENT,
    RUN_NODE_STATE,
    PENDING_ANSWER,
)


def fetch_resumable(connection: Connection, run_id: str) -> bool:
    """Whether a run can be resumed; not when it has no row."""
    if not is_storable_text(run_id):
        return False
    row = connection.execute(select(JOB.c.status, JOB.c.has_checkpoint).where(JOB.c.id == run_id)).first()
    return row is not None and can_be_resumed(row.status, row.has_checkpoint)


def delete_history(connection: Connection, run_id: str, blobs: Blobs, epoch: int | None = None) -> Sequence[BlobName] | None:
    """Delete every checkpoint and node state of a run, under its lease; of one that a runner executes now, nothing.

    Who remembers what was stored of the run is told by another generation of its rows.

    Args:
        connection: in a transaction that writes.
        run_id: the run.
        blobs: where its large values may be files.
        epoch: of the lease under which alone it may be done; `None` for whoever comes.

    Returns:
        Files to be deleted once this is durable; `None` when there was nothing to delete.

    Raises:
        LeaseLost: the epoch is over.
        RunHeld: a runner executes it.
        BlobsUnusable: values lie in files whose place is not known.
    """
    held = lock_epoch(connection, run_id)
    if epoch is not None and held not in (None, epoch):
        raise LeaseLost(run_id, epoch, held)
    if connection.execute(select(JOB.c.execution_strategy).where(JOB.c.id == run_id)).scalar_one_or_none() == RUNNER:
        check_unheld(connection, run_id)  # a run saved by hand is written by any manager of who executes it
    files = named(run_id, fetch_names(connection, run_id))
    blobs.check(files)
    deleted = sum(connection.execute(delete(table).where(table.c.run_id == run_id)).rowcount for table in HISTORY)
    if not deleted:
        return None
    connection.execute(update(LEASE).where(LEASE.c.run_id == run_id).values(generation=LEASE.c.generation + 1, newest_number=0))
    connection.execute(update(JOB).where(JOB.c.id == run_id).values(has_checkpoint=False, version=JOB.c.version + 1))
    return files
