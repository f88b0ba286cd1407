"""Runs of which something may be deleted, told apart by few queries: a transaction that locks each run takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import select

from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.models import CHECKPOINT
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.store import Store

__all__ = ["find_candidates"]

TOGETHER: Final = 500
"""Runs of a transaction: a long one would keep a server from clearing up what others write meanwhile."""
ROWS_AT_ONCE: Final = 1_000
"""Rows that are fetched together."""
LOOKED_AT: Final = tuple(CHECKPOINT.c[name] for name in ("run_id", "number", "created_at", "label"))


async def find_candidates(store: Store, rules: Retention, jobs: Sequence[Any], now: datetime) -> set[str]:
    """The runs that rules do not leave as they are; each is to be locked, and looked at again, before anything is deleted.

    Args:
        store: an open one.
        rules: what is kept.
        jobs: rows of the runs.
        now: aware.

    Returns:
        Their ids, and those of runs whose rows are damaged.

    Raises:
        StoreError: the store cannot be used.
    """
    found = {job.id for job in jobs if rules.drops(job.status, job.finished_at, now)}
    left = [job for job in jobs if job.id not in found]
    for first in range(0, len(left), TOGETHER):
        part = left[first : first + TOGETHER]
        try:
            found.update(await store.transact(partial(_losing, rules=rules, jobs=part, now=now), write=False))
        except (StoreBusy, StoreUnreachable):
            raise
        except (StoreUnreadable, TypeError, ValueError):  # of a row that is damaged: which, its run's own look tells
            found.update(job.id for job in part)
    return found


def _losing(connection: Connection, rules: Retention, jobs: Iterable[Any], now: datetime) -> set[str]:
    """The runs of which a checkpoint goes. Those of one run at a time are in memory: it may have tens of thousands."""
    found: set[str] = set()
    statuses = {job.id: job.status for job in jobs}
    for part in batches(connection, list(statuses)):
        query = select(*LOOKED_AT).where(CHECKPOINT.c.run_id.in_(part)).order_by(CHECKPOINT.c.run_id, CHECKPOINT.c.number)
        rows = connection.core.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
        for run_id, group in groupby(rows, key=attrgetter("run_id")):
            of_run = list(group)
            kept = rules.kept(of_run, statuses[run_id], now)
            if any(row.number not in kept for row in of_run):
                found.add(run_id)
    return found
