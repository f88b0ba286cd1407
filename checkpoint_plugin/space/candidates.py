"""Runs of which something may be deleted, told apart by few queries: a transaction that locks each run takes milliseconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, select

from checkpoint_plugin.database.batches import batches
from checkpoint_plugin.errors import StoreBusy, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.models import CHECKPOINT
from checkpoint_plugin.retention import Retention
from checkpoint_plugin.store import Store

__all__ = ["find_candidates"]

TOGETHER: Final = 500
"""Runs of a transaction: a long one would keep a server from clearing up what others write meanwhile."""
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
            rows = await store.transact(partial(_checkpoints, jobs=part), write=False)
            found.update(job.id for job in part if _loses(rules, rows[job.id], job.status, now))
        except (StoreBusy, StoreUnreachable):
            raise
        except (StoreUnreadable, TypeError, ValueError):  # of a row that is damaged: which, its run's own look tells
            found.update(job.id for job in part)
    return found


def _checkpoints(connection: Connection, jobs: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for part in batches(connection, [job.id for job in jobs]):
        query = select(*LOOKED_AT).where(CHECKPOINT.c.run_id.in_(part)).order_by(CHECKPOINT.c.number)
        for row in connection.execute(query):
            found[row.run_id].append(row)
    return found


def _loses(rules: Retention, rows: Sequence[Any], status: str, now: datetime) -> bool:
    kept = rules.kept(rows, status, now)
    return any(row.number not in kept for row in rows)
