"""Another master key for a store: the keys of its runs are wrapped anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select, update

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import CheckpointError
from checkpoint_plugin.models import LEASE, RUN_KEY
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.encryption import KeyRing
from checkpoint_plugin.tables.keys import KEY, wrapped_keys

__all__ = ["rotate_keys"]

BATCH: Final = 500
"""Runs of a transaction."""


async def rotate_keys(store: Store, ring: KeyRing) -> tuple[int, int]:
    """Wrap the keys of every run with the first master key of the ring; what is stored under them stays as it is.

    Stopped anywhere, every run can be opened with the ring, and what is left is done by the next call.

    Args:
        store: an open one.
        ring: the new key, then the old ones.

    Returns:
        How many runs' keys were rewrapped, and how many were already.

    Raises:
        KeyMissing: a run's keys are wrapped by none of them; those of all others are done. Notes tell of further such runs.
        KeyUnusable, StoreDamaged: a run's keys are not what was written; as above.
    """
    # Sorted as a group of writes is, not by the collation of a database: so it waits for none of them in a circle.
    query = select(RUN_KEY.c.run_id)
    found = sorted(await store.transact(lambda connection: connection.execute(query).scalars().all(), write=False))
    changed = 0
    refused: list[CheckpointError] = []
    for first in range(0, len(found), BATCH):
        part = found[first : first + BATCH]

        def work(connection: Connection, part: Sequence[str] = part) -> tuple[int, list[CheckpointError]]:
            done, left = 0, []
            for run_id in part:
                connection.execute(select(LEASE.c.epoch).where(LEASE.c.run_id == run_id).with_for_update())
                row = connection.execute(KEY, {"of_run": run_id}).first()
                try:
                    wrapped = None if row is None else ring.rewrap(run_id, wrapped_keys(run_id, row))
                except CheckpointError as error:
                    left.append(error)
                    continue
                if wrapped is not None:
                    values = {"key_id": wrapped.key_id, "wrapped": wrapped.wrapped}
                    connection.execute(update(RUN_KEY).where(RUN_KEY.c.run_id == run_id).values(**values))
                    done += 1
            return done, left

        done, left = await store.transact(work)
        changed += done
        refused += left
    if refused:
        told, *others = refused
        for other in others:
            told.add_note(f"and {other}")
        raise told
    return changed, len(found) - changed
